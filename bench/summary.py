"""From records to rows: every number with its interval, chance level and prior, computed from stored predictions alone."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bench.files import digest
from bench.metrics.identification import normalised_leakage, retention, top_k
from bench.metrics.uncertainty import Estimate, People, estimate
from bench.records import IDENTITY, Record

METRIC = "balanced top-1"
CONTROLS = ("identity", "null")  # the anonymizers that prove the instrument
_ROUNDING = 1e-9
# One row format for table, CSV, JSON, MLflow and leaderboard (design section 4); later versions only add.
COLUMNS = (
    *("dataset", "protocol", "preset", "anonymizer", "attacker", "target", "threat", "seeds", "draws", "metric"),
    *("leakage", "leakage_low", "leakage_high", "chance", "prior"),
    *("leakage_normalised", "leakage_normalised_low", "leakage_normalised_high"),
    *("action_raw", "action_retrained", "utility_retention", "utility_retention_low", "utility_retention_high"),
    *("flags", "provider", "record"),
    # Added after the first version of the format.
    *("top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high", "prior_top5"),
    *("action_raw_low", "action_raw_high", "action_retrained_low", "action_retrained_high", "action_reference", "action_chance"),
    *("test_clips", "test_people", "data"),
)
FLAGS = {
    "single-draw": "the anonymizer is random, and only one draw of its randomness was measured",
    "no-control": "identity or null was not measured with this attacker: nothing shows that it works, or that it is not misled",
    "weak-attacker": "the attacker does not beat chance on raw clips, so its failure here shows nothing",
    "control-failed": "an attacker beats chance on clips that hold nothing (null): the measurement itself is broken",
}


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
        leakage, top1, top5: Of the attacker, on the target's test clips.
        action_reference, action_raw, action_retrained: Top-1 of the action classifiers.
        retention: Utility retention of the retrained classifier, resampled in pairs with its reference.
    """

    records: tuple[Record, ...]
    leakage: Estimate
    top1: Estimate
    top5: Estimate
    action_reference: Estimate
    action_raw: Estimate
    action_retrained: Estimate
    retention: Estimate
    flags: tuple[str, ...] = ()

    @property
    def first(self) -> Mapping[str, Any]:
        return self.records[0].data

    @cached_property
    def group(self) -> Group:
        """What must agree for rows to share a table."""
        data = self.first
        shared = ("data", "protocol", "normalisation", "preset", "code")
        version = digest({name: data[name] for name in shared})
        return Group(data["dataset"], data["data"], data["protocol"]["name"], data["preset"]["name"], version)

    @cached_property
    def normalised(self) -> Estimate:
        """Chance-normalised leakage."""
        chance = self.first["chance"]
        values = [float(normalised_leakage(v, chance)) for v in (self.leakage.value, self.leakage.low, self.leakage.high)]
        return Estimate(*values, np.asarray(normalised_leakage(self.leakage.draws, chance)))

    def row(self) -> dict[str, Any]:
        """The row in the common format; a number that is not known is absent."""
        data = self.first
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
            "metric": METRIC,
            **_spread("leakage", self.leakage),
            "chance": data["chance"],
            "prior": data["prior"],
            **_spread("leakage_normalised", self.normalised),
            **_spread("action_raw", self.action_raw),
            **_spread("action_retrained", self.action_retrained),
            **_spread("utility_retention", self.retention),
            "flags": list(self.flags),
            "provider": f"{data['anonymizer']['provider']}; {data['attacker']['provider']}",
            "record": [record.data["key"] for record in self.records],
            **_spread("top1", self.top1),
            **_spread("top5", self.top5),
            "prior_top5": data["prior_top5"],
            "action_reference": self.action_reference.value,
            "action_chance": data["action_chance"],
            "test_clips": data["test_clips"],
            "test_people": data["test_people"],
            "data": data["data"],
        }
        return {name: row[name] for name in COLUMNS if name in row and not _unknown(row[name])}


def _spread(name: str, value: Estimate) -> dict[str, float]:
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def _unknown(value: Any) -> bool:
    return isinstance(value, float) and not np.isfinite(value)


def measure(records: Sequence[Record]) -> Measured:
    """Averages the seeds of one pair clip by clip and puts an interval over people on everything.

    Args:
        records: Records that differ in their seed only.
    """
    predictions = [record.predictions() for record in records]
    first = predictions[0]
    label, action_label = first["label"], first["action_label"]
    # The same resamples for every method measured on the same clips: differences between methods are paired.
    people = _people(first["clip"], first["subject"], label)
    actors = _people(first["action_clip"], first["action_subject"], action_label)

    def hits(scores: str, labels: np.ndarray, k: int = 1) -> np.ndarray:
        return np.mean([top_k(p[scores], labels, k) for p in predictions], axis=0)

    def over(draws: np.ndarray) -> Estimate:
        return estimate(draws[0], draws[1:])

    attack = hits("attack", label)
    reference, raw, retrained = (
        actors.mean(hits(f"action_{which}", action_label)) for which in ("reference", "raw", "retrained")
    )
    return Measured(
        records=tuple(records),
        leakage=over(people.balanced_mean(attack, label)),
        top1=over(people.mean(attack)),
        top5=over(people.mean(hits("attack", label, 5))),
        action_reference=over(reference),
        action_raw=over(raw),
        action_retrained=over(retrained),
        retention=over(np.asarray(retention(retrained, reference, records[0].data["action_chance"]))),
    )


def _people(clips: np.ndarray, subjects: np.ndarray, labels: np.ndarray) -> People:
    seed = zlib.crc32("\n".join(clips).encode())
    return People.resample(subjects, np.random.default_rng(seed), strata=labels)


def measure_all(records: Iterable[Record]) -> list[Measured]:
    """Groups records that differ in their seed only, measures each group and raises its flags."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_group_key(record), []).append(record)
    measured = [measure(sorted(group, key=lambda record: record.data["seed"])) for group in groups.values()]
    measured = [replace(m, flags=_flags(m, measured)) for m in measured]
    return sorted(
        measured, key=lambda m: (m.group, _anonymizer_rank(m), m.first["target"], m.first["attacker"]["name"], m.first["threat"])
    )


def _group_key(record: Record) -> str:
    """Equal for records that differ in their seed only; code versions and preset values count."""
    return digest({name: record.data[name] for name in IDENTITY if name != "seed"})


def _anonymizer_rank(measured: Measured) -> tuple[int, str]:
    """Controls first: what leaks untouched, what leaks from nothing; then the methods by name."""
    name = measured.first["anonymizer"]["name"]
    return CONTROLS.index(name) if name in CONTROLS else len(CONTROLS), measured.first["names"]["anonymizer"]


def _flags(measured: Measured, others: Sequence[Measured]) -> tuple[str, ...]:
    data = measured.first
    flags = []
    if data["stochastic"] and len(measured.records) == 1:
        flags.append("single-draw")
    controls = {
        m.first["anonymizer"]["name"]: m
        for m in others
        if m.group == measured.group
        and m.first["names"]["attacker"] == data["names"]["attacker"]
        and m.first["threat"] == data["threat"]
        and m.first["anonymizer"]["name"] in CONTROLS
    }
    if set(controls) != set(CONTROLS):
        flags.append("no-control")
    if "identity" in controls and controls["identity"].leakage.low <= data["chance"]:
        flags.append("weak-attacker")
    if "null" in controls and controls["null"].leakage.low > data["chance"] + _ROUNDING:
        flags.append("control-failed")
    return tuple(flags)


@dataclass(frozen=True)
class TradeOff:
    """One anonymizer as a point: what is left of the use against the worst that leaks.

    Args:
        anonymizer: Its spec.
        utility: Utility retention of the retrained action classifier.
        leakage: Chance-normalised leakage of the worst semi-informed attacker.
        attacker: That attacker.
    """

    anonymizer: str
    utility: Estimate
    leakage: Estimate
    attacker: str


def trade_off(measured: Sequence[Measured], threat: str) -> list[TradeOff]:
    """The worst attacker of each anonymizer at one threat level (methods.md section 6.8).

    A weak attacker beside a stronger one does not count, since the worst is taken; a panel of weak attackers only shows nothing,
    and its rows are flagged.
    """
    points = []
    for name in dict.fromkeys(m.first["names"]["anonymizer"] for m in measured):
        panel = [m for m in measured if m.first["names"]["anonymizer"] == name and m.first["threat"] == threat]
        if panel:
            worst = max(panel, key=lambda m: m.normalised.value)
            points.append(TradeOff(name, worst.retention, worst.normalised, worst.first["names"]["attacker"]))
    return points
