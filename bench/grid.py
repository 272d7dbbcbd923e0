"""What a table of comparable results says as a whole: trade-off, ranks, Pareto set, controls. All views read it from here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bench.measured import Measured
from bench.metrics.comparison import rank_groups
from bench.metrics.tradeoff import hypervolume, pareto_set
from bench.metrics.uncertainty import Estimate, estimate, largest_of
from bench.summary import (
    FLAGS,
    RECORDING,
    REMARKS,
    SHUFFLED,
    WITHHOLDING,
    beats_chance,
    is_weak,
    set_aside,
    submitted,
    surely_beats_chance,
)
from bench.threat import RANKING

_FROZEN = "frozen-beats-retrained"
BUDGETS = (0.05, 0.10, 0.20, 0.40)  # leakage that a data holder may accept


@dataclass(frozen=True)
class TradeOff:
    """One anonymizer as a point: what is left of the use against the worst that leaks.

    Args:
        anonymizer: Its spec.
        utility: Utility retention of the retrained action classifier.
        leakage: Chance-normalised leakage of the worst semi-informed attacker; its interval is one for the largest of the panel.
        attacker: That attacker.
        family: Equal for anonymizers that differ in their strength only.
        strength: That strength; not a number for one without.
        panel: The leakages of which this is the largest, below 0 where less than chance is read.
        of_ten: As `leakage`, of the attacker that reads most if it has ten clips of one person; None where that is not known.
        withheld: Flags for which it has no rank.
    """

    anonymizer: str
    utility: Estimate
    leakage: Estimate
    attacker: str
    family: str
    strength: float
    panel: tuple[Estimate, ...]
    withheld: tuple[str, ...] = ()
    of_ten: Estimate | None = None

    def leakage_at(self, level: float) -> tuple[float, float]:
        """Ends of an interval that holds the leakage so often; not numbers if there are too few people for one."""
        found = largest_of(self.panel, 0, level)
        return float(np.maximum(0.0, found.low)), float(np.maximum(0.0, found.high))


def trade_off(measured: Sequence[Measured], threat: str) -> list[TradeOff]:
    """The worst attacker of each anonymizer at one threat level.

    A weak attacker cannot make a method look private: the worst is taken, so it can only raise a leakage, and that only where it
    surely finds something, or its noise would rank what others find nothing in; and a method that only weak attackers were tried
    on has no point. What needs no body to know, the nuisance-only control, does not count; nor does an attacker that was tested
    on too few people for an interval, where others were not: of it nothing can be said; nor one that
    strangers sent and that finds people in clips that hold nothing.
    """
    points = []
    misled = {name for name in {m.first["names"]["attacker"] for m in measured} if set_aside(name, measured)}
    measured = [m for m in measured if m.first["names"]["attacker"] not in misled]
    for name in dict.fromkeys(m.first["names"]["anonymizer"] for m in measured):
        panel = [m for m in measured if m.first["names"]["anonymizer"] == name and m.first["threat"] == threat]
        panel = [m for m in panel if not m.is_control]
        if any("weak-attacker" not in m.flags for m in panel):
            heard = [m for m in panel if "weak-attacker" not in m.flags or beats_chance(m)]
            judged = [m for m in heard if m.leakage.sample.enough] or heard
            worst = max(judged, key=lambda m: m.normalised.value)
            curve = worst.first["strength"] or {"family": name, "value": math.nan}
            attacker = worst.first["names"]["attacker"]
            withheld = _withheld(name, judged, panel, measured)
            leakage = largest_of([m.normalised for m in judged], judged.index(worst))
            heard = tuple(m.unclipped for m in judged)
            of_ten = [m.of_ten for m in judged if math.isfinite(m.of_ten.value)]
            most = max(range(len(of_ten)), key=lambda i, of=of_ten: of[i].value, default=None)
            ten = None if most is None else largest_of(of_ten, most)
            points.append(
                TradeOff(name, worst.retention, leakage, attacker, curve["family"], curve["value"], heard, withheld, ten)
            )
    return points


def _withheld(name: str, judged: Sequence[Measured], panel: Sequence[Measured], measured: Sequence[Measured]) -> tuple[str, ...]:
    """Flags for which an anonymizer has no rank: those of the attacker that ranks it, and some of any other's.

    That some attacker read more while it knew nothing matters if it read more than the worst of those that know: then the worst
    is not the worst. What submitted attackers do costs no method its rank: of those rows that they have no part in, the flags
    count, the worst one's in the place of theirs.
    """
    ours, of_these = ([m for m in rows if not submitted(m.first["attacker"])] or rows for rows in (panel, judged))
    worst = max(of_these, key=lambda m: m.normalised.value)
    found = {flag for flag in worst.flags if flag not in REMARKS}
    found |= {flag for m in ours for flag in m.flags if flag in WITHHOLDING}
    misled = {m.first["names"]["attacker"] for m in ours if _FROZEN in m.flags}
    frozen = (m for m in measured if (m.first["names"]["anonymizer"], m.first["threat"]) == (name, "ignorant"))
    if any(m.first["names"]["attacker"] in misled and m.normalised.value > worst.normalised.value for m in frozen):
        found.add(_FROZEN)
    return tuple(flag for flag in FLAGS if flag in found)


@dataclass(frozen=True)
class Grid:
    """The rows of one table, all measured under the same protocol, preset and code.

    Args:
        measured: The rows.
        points: Each anonymizer at the level that ranks: what is left of the use against the worst that leaks.
    """

    measured: tuple[Measured, ...]
    points: tuple[TradeOff, ...]

    @classmethod
    def of(cls, measured: Sequence[Measured]) -> "Grid":
        return cls(tuple(measured), tuple(trade_off(measured, RANKING)))

    @cached_property
    def naive(self) -> tuple[TradeOff, ...]:
        """Each anonymizer against attackers that know nothing of it; this ranks nobody."""
        return tuple(trade_off(self.measured, "ignorant"))

    @cached_property
    def ranked(self) -> tuple[TradeOff, ...]:
        """The points that have a rank: without a flag that withholds it."""
        return tuple(point for point in self.points if not point.withheld)

    @cached_property
    def ranks(self) -> Mapping[str, tuple[int, int]]:
        """Best and worst rank in privacy that each ranked anonymizer may have, as far as differences are sure (95 %, Holm)."""
        # Linkage leaves out resamples without pairs; worst attackers of two kinds were resampled apart, in no common order.
        shortest = min((len(point.leakage.draws) for point in self.ranked), default=0)
        private = [replace(p.leakage.turned, draws=1 - p.leakage.draws[:shortest]) for p in self.ranked]
        return {p.anonymizer: rank for p, rank in zip(self.ranked, rank_groups(private), strict=True)}

    @cached_property
    def useful(self) -> tuple[TradeOff, ...]:
        """The ranked points whose utility is known."""
        return tuple(point for point in self.ranked if np.isfinite(point.utility.value))

    @cached_property
    def pareto(self) -> Mapping[str, tuple[bool, float]]:
        """Whether each anonymizer is in the Pareto set, and in which share of the resamples of people it is."""
        if not self.useful:
            return {}
        utility, leakage = self._draws
        sets = pareto_set(utility, leakage)
        names = (point.anonymizer for point in self.useful)
        return {name: (bool(now), float(share)) for name, now, share in zip(names, sets[0], sets[1:].mean(axis=0), strict=True)}

    @cached_property
    def hypervolume(self) -> Estimate | None:
        """Area under the Pareto set, of utility against one less leakage; None without a point."""
        if not self.useful:
            return None
        volumes = hypervolume(*self._draws)
        samples = [of.sample for p in self.useful for of in (p.leakage, p.utility)]
        enough = [sample for sample in samples if sample.enough]  # an interval from those of whom there can be one
        fewest = min(enough or samples, key=lambda sample: sample.people)
        return estimate(volumes[0], volumes[1:], fewest, bounds=(0.0, 1.0))

    def best_within(self, budget: float) -> TradeOff | None:
        """The most useful anonymizer that leaks no more than a budget, as measured; None if none does.

        Whether it surely does is told by the upper end of its interval.
        """
        within = [point for point in self.useful if point.leakage.value <= budget]
        return max(within, key=lambda point: point.utility.value, default=None)

    @property
    def _draws(self) -> tuple[np.ndarray, np.ndarray]:
        """Utility and leakage, each (1 + B, n): the values, then resamples in which all are numbers."""
        shortest = min(min(len(p.utility.draws), len(p.leakage.draws)) for p in self.useful)
        columns = [[np.r_[e.value, e.draws[:shortest]] for e in (p.utility, p.leakage)] for p in self.useful]
        utility, leakage = np.array(columns).transpose(1, 2, 0)
        whole = np.isfinite(utility).all(axis=1) & np.isfinite(leakage).all(axis=1)
        return utility[whole], leakage[whole]

    @cached_property
    def rooms(self) -> Mapping[str, float]:
        """What is known of each target without looking at the body, chance-normalised, where that was measured."""
        return {m.first["target"]: m.normalised.value for m in self.measured if m.first["attacker"]["name"] in RECORDING}

    def summary(self) -> dict[str, Any]:
        """All of this as JSON values, for `--json`."""
        volume, best = self.hypervolume, {budget: self.best_within(budget) for budget in BUDGETS}
        return {
            **(self.measured[0].group._asdict() if self.measured else {}),
            "failed_controls": list(self.failed_controls),
            "unjudged_controls": list(self.unjudged_controls),
            "ranks": {name: list(ranks) for name, ranks in self.ranks.items()},
            "withheld": {point.anonymizer: list(point.withheld) for point in self.points if point.withheld},
            "pareto": {name: share for name, (now, share) in self.pareto.items() if now},
            **({"hypervolume": [volume.value, volume.low, volume.high]} if volume else {}),
            "within": {f"{budget:.2f}": point.anonymizer for budget, point in best.items() if point},
            "surely_within": [f"{budget:.2f}" for budget, point in best.items() if point and point.leakage.high <= budget],
        }

    @cached_property
    def unjudged_controls(self) -> tuple[str, ...]:
        """Controls of which nothing can be said, a line each: so few people were tested that there is no interval."""
        few = [m for m in self.measured if not m.leakage.sample.enough and not submitted(m.first["attacker"])]
        null = [m for m in few if m.first["anonymizer"]["name"] == "null" and not m.is_control]
        raw = [m for m in few if m.first["anonymizer"]["name"] == "identity"]
        about = [*null, *(m for m in raw if not m.is_control or m.first["attacker"]["name"] == SHUFFLED)]
        return tuple(
            f"{m.first['names']['attacker']} on {m.first['anonymizer']['name']} ({m.first['threat']}): {m.first['target']} was "
            f"tested on {m.first['test_people']} people"
            for m in about
        )

    @cached_property
    def failed_controls(self) -> tuple[str, ...]:
        """What the controls say against the table, a line each; empty if they hold."""
        return tuple(failed_controls(self.measured))


def failed_controls(measured: Sequence[Measured]) -> list[str]:
    """What the controls of one table say against it, a line each; empty if they hold.

    `identity` must leak to somebody, for each target; `null` and shuffled labels must leave everybody at chance but strangers.
    """
    found = []
    for m in measured:
        name, first = m.first["names"]["attacker"], m.first
        value = f"{m.leakage.value:.2f} [{m.leakage.low:.2f}, {m.leakage.high:.2f}], chance {first['chance']:.2f}"
        if first["attacker"]["name"] == SHUFFLED and surely_beats_chance(m):
            found.append(f"{name} learnt wrong labels and still names {first['target']} right: {value}")
        elif submitted(first["attacker"]):
            continue  # who sent it may have sent the answers along: that is its failure, and no other's
        elif not m.is_control and first["anonymizer"]["name"] == "null" and beats_chance(m):
            found.append(f"{name} ({first['threat']}) reads {first['target']} from clips that hold nothing: {value}")
    raw = [m for m in measured if m.first["anonymizer"]["name"] == "identity" and not m.is_control]
    raw = [m for m in raw if not submitted(m.first["attacker"])]  # they may ask for what nobody else looks for
    for target in dict.fromkeys(m.first["target"] for m in raw):
        if all(is_weak(m) for m in raw if m.first["target"] == target):
            found.append(f"no attacker finds {target} in raw clips, so nothing shows that an anonymizer hides it")
    return found
