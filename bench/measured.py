"""What was measured of one pair at one threat level, and its row in tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bench.files import digest
from bench.metrics.geometry import MEASURES
from bench.metrics.identification import normalised_leakage
from bench.metrics.uncertainty import SHARE, Estimate
from bench.records import Record

METRIC = "balanced top-1"
LINKAGE_METRIC = "AUC"
# Of linkage only: numbers on the pairs of the first regime that there are pairs of; then the AUC of each regime.
LINKAGE_COLUMNS = (
    *("test_pairs", "regime", "eer", "eer_low", "eer_high", "tar_far_01", "tar_far_001", "linkability", "maximal_linkability"),
    *("min_cllr", "disclosure", "worst_disclosure", "disclosure_grade", "auc_cross_action", "auc_same_action", "auc_cross_setup"),
    *("auc_of_5_pairs", "auc_of_10_pairs"),
    *("linkability_chance", "maximal_linkability_chance", "disclosure_chance", "worst_disclosure_chance"),
)
# One row format for table, CSV, JSON, MLflow and leaderboard; later versions only add.
COLUMNS = (
    *("dataset", "protocol", "preset", "anonymizer", "attacker", "target", "threat", "seeds", "draws", "metric"),
    *("leakage", "leakage_low", "leakage_high", "chance", "prior"),
    *("leakage_normalised", "leakage_normalised_low", "leakage_normalised_high"),
    *("action_raw", "action_retrained", "utility_retention", "utility_retention_low", "utility_retention_high"),
    *("flags", "provider", "record"),
    # Added after the first version of the format.
    *("top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high", "prior_top5"),
    *("action_raw_low", "action_raw_high", "action_retrained_low", "action_retrained_high", "action_reference", "action_chance"),
    *("test_clips", "test_people", "data", "learning"),
    *LINKAGE_COLUMNS,
    # Of attackers that name classes: the area under the ROC curve for attributes of two values; of re-identification, how it
    # spreads over people and what several clips of a person give; both in bits as well (bench/metrics says what each is).
    *("auc", "auc_low", "auc_high", "mrr", "mrr_low", "mrr_high", "information", "min_entropy_leakage"),
    *("worst_person", "p95_person", "exposed_people", "gini", "top1_of_5_clips", "top1_of_10_clips"),
    # Intervals of what is above, and more on who is at risk; information as a share of what there is to know.
    *(f"{name}{end}" for name in ("information", "min_entropy_leakage") for end in ("_low", "_high")),
    *(f"{name}{end}" for name in ("worst_person", "p95_person", "exposed_people", "gini") for end in ("_low", "_high")),
    *("singled_out_people", "singled_out_people_low", "singled_out_people_high", "information_share"),
    *(f"top1_of_{size}_clips{end}" for size in (2, 5, 10, "all") for end in ("", "_low", "_high") if end or size in (2, "all")),
    # Of re-identification: how far apart the leakage of groups of people lies, how likely that is by chance, and who leaks most.
    *("group_gap", "group_gap_p", "group_most"),
    # P value of finding anything at all (bench/metrics/permutation.py).
    "p_leak",
    # Standard deviations: between trainings, between releases to one training, and over resamples of people.
    *("leakage_seed_std", "leakage_draw_std", "leakage_people_std"),
    # More on the action: macro F1 and top-5 of the retrained classifier, and one of another kind, retrained as well.
    *("action_raw_f1", "action_retrained_f1", "action_retrained_top5"),
    *(f"{name}{end}" for name in ("action_raw_f1", "action_retrained_f1", "action_retrained_top5") for end in ("_low", "_high")),
    *("action_transfer_f1", "action_transfer_f1_low", "action_transfer_f1_high"),
    *("action_transfer", "action_transfer_low", "action_transfer_high"),
    *("transfer_retention", "transfer_retention_low", "transfer_retention_high"),
    # What the anonymizer costs: seconds to fit it, milliseconds a clip, how many numbers it learnt, and whether it is causal.
    *("fit_seconds", "transform_ms", "learnt_values", "causal"),
    # How far released poses are from the raw ones (bench/metrics/geometry.py).
    *(f"{measure}{end}" for measure in (*MEASURES, "frechet") for end in ("", "_low", "_high")),
    # What ten clips of one person give, chance 0, people counting alike.
    *(f"leakage_of_10_clips{end}" for end in ("", "_low", "_high")),
    "commit",  # of the code that made the records; "+" behind it if files differed from it
)


class Group(NamedTuple):
    """What rows of one table share; `version` is a digest of the data, protocol, preset and code behind the names."""

    dataset: str
    data: str
    protocol: str
    preset: str
    version: str

    def __str__(self) -> str:
        return f"{self.dataset}, protocol {self.protocol}, preset {self.preset}"


@dataclass(frozen=True)
class Measured:
    """All seeds of one pair at one threat level, with every estimate that a row needs.

    Args:
        records: One record a seed.
        leakage: Of the attacker, on the target's test clips: balanced top-1, or the AUC of linkage.
        each: The same of each release (D), seed by seed.
        of_ten: Of re-identification, the chance-normalised leakage to who has ten clips of one person and adds up what each says,
            balanced over the people who have ten; not a number where fewer than two have.
        people: Of re-identification, the share of each person's clips that are named right, least first; whose is not told.
        named: What a row says besides of an attacker that names classes: top-1, top-5, and more with intervals.
        plain: What a row says of it without an interval.
        linked: What a row says besides of an attacker that links clips.
        action_reference, action_raw, action_retrained: Top-1 of the action classifiers.
        retention: Utility retention of the retrained classifier, resampled in pairs with its reference.
        use: What a row says besides of what the release is good for, with intervals.
        spread: What it says besides of that and of the leakage, without.
    """

    records: tuple[Record, ...]
    leakage: Estimate
    each: Sequence[Sequence[float]]
    of_ten: Estimate
    people: Sequence[float]
    named: Mapping[str, Estimate]
    plain: Mapping[str, Any]
    linked: Mapping[str, Any]
    action_reference: Estimate
    action_raw: Estimate
    action_retrained: Estimate
    retention: Estimate
    use: Mapping[str, Estimate]
    spread: Mapping[str, float]
    flags: tuple[str, ...] = ()

    @property
    def first(self) -> Mapping[str, Any]:
        return self.records[0].data

    @property
    def is_control(self) -> bool:
        """Whether this is no attack but what is known without looking at the body."""
        return self.first["control"]

    @property
    def metric(self) -> str:
        """What the leakage is."""
        return LINKAGE_METRIC if self.linked else METRIC

    @property
    def of_two(self) -> bool:
        """Whether the attacker tells two things apart, so that one that is always wrong knows as much as one that is right."""
        return bool(self.linked) or len(self.first["classes"]) == 2

    @cached_property
    def group(self) -> Group:
        """What must agree for rows to share a table."""
        data = self.first
        shared = ("data", "protocol", "normalisation", "preset", "code")
        version = digest({name: data[name] for name in shared})
        return Group(data["dataset"], data["data"], data["protocol"]["name"], data["preset"]["name"], version)

    @cached_property
    def _turned(self) -> Estimate:
        """Leakage; of two things, reliably wrong leaks as well and is turned round."""
        return self.leakage.turned if self.of_two and self.leakage.high < self.first["chance"] else self.leakage

    @cached_property
    def normalised(self) -> Estimate:
        """Chance-normalised leakage."""
        found, chance = self._turned, self.first["chance"]
        values = [float(normalised_leakage(v, chance)) for v in (found.value, found.low, found.high)]
        return Estimate(*values, np.asarray(normalised_leakage(found.draws, chance)), found.sample, SHARE)

    @cached_property
    def unclipped(self) -> Estimate:
        """As `normalised`, but below 0 where less than chance is read: resamples that are cut off at 0 vary too little for
        intervals of other levels.
        """
        found, chance = self._turned, self.first["chance"]
        value, low, high, draws = ((v - chance) / (1 - chance) for v in (found.value, found.low, found.high, found.draws))
        return Estimate(value, low, high, draws, found.sample, (-chance / (1 - chance), 1.0))

    def row(self) -> dict[str, Any]:
        """The row in the common format; a number that is not known is absent."""
        data = self.first
        more: dict[str, float] = {}
        for name, found in (*self.named.items(), *self.use.items()):
            more |= spread_columns(name, found)
        row = {
            "dataset": data["dataset"],
            "protocol": data["protocol"]["name"],
            "preset": data["preset"]["name"],
            "anonymizer": data["names"]["anonymizer"],
            "attacker": data["names"]["attacker"],
            "target": data["target"],
            "threat": data["threat"],
            "seeds": len(self.records),
            "draws": data["draws"] * len(self.records),
            "metric": self.metric,
            **spread_columns("leakage", self.leakage),
            "chance": data["chance"],
            "prior": data["prior"],
            **spread_columns("leakage_normalised", self.normalised),
            **spread_columns("leakage_of_10_clips", self.of_ten),
            **spread_columns("action_raw", self.action_raw),
            **spread_columns("action_retrained", self.action_retrained),
            **spread_columns("utility_retention", self.retention),
            "flags": list(self.flags),
            "provider": f"{data['anonymizer']['provider']}; {data['attacker']['provider']}",
            "record": [key for record in self.records for key in record.keys],
            **more,
            **self.spread,
            **self.plain,
            **self.linked,
            "prior_top5": data.get("prior_top5", float("nan")),
            "learning": ", ".join(sorted({record.data["learning"] for record in self.records})),
            "action_reference": self.action_reference.value,
            "action_chance": data["action_chance"],
            "test_clips": data["test_clips"],
            "test_people": data["test_people"],
            "data": data["data"],
        }
        return {name: row[name] for name in COLUMNS if name in row and not _unknown(row[name])}


def spread_columns(name: str, value: Estimate) -> dict[str, float]:
    """A number and the ends of its interval, under the names of their columns."""
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def _unknown(value: Any) -> bool:
    return isinstance(value, float) and not np.isfinite(value)
