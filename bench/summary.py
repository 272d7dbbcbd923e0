"""From records to tables: rows with their flags, and the points of the trade-off."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.files import digest
from bench.floors import floor
from bench.measured import Measured, measure
from bench.metrics.uncertainty import Estimate
from bench.records import IDENTITY, Record, pool_folds

CONTROLS = ("identity", "null")  # the anonymizers that prove the instrument
NUISANCE, SHUFFLED = "nuisance", "shuffled-labels"  # the attackers that do, which look at no coordinates, or learn nothing
_ROUNDING = 1e-9
_SURE = 0.001  # of shuffled labels: a control that fails in one of twenty sound runs would soon be ignored
FLAGS = {
    "single-draw": "the anonymizer is random, and only one draw of its randomness was measured",
    "no-control": "identity or null was not measured with this attacker: nothing shows that it works, or that it is not misled",
    "weak-attacker": "the attacker does not reach its floor on raw clips (chance, if none is stored): its failure shows nothing",
    "control-failed": "an attacker beats chance on clips that hold nothing (null): the measurement itself is broken",
    "shared-performances": "tests performances that are in training as well, filmed by another camera: the moment may be matched",
    "nuisance": "no more than the room, the camera and the clip's length give away: it need not be the body that leaks",
}


def measure_all(records: Iterable[Record]) -> list[Measured]:
    """Pools folds, groups records that differ in their seed only, measures each group and raises its flags."""
    groups: dict[str, list[Record]] = {}
    for record in pool_folds(records):
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
    if measured.is_control:
        return ()
    flags = []
    if data["stochastic"] and len(measured.records) == 1:
        flags.append("single-draw")
    splits = data["protocol"]["splits"]
    if splits.get(data["target"], {}).get("shares"):  # what is measured from the body is split by people
        flags.append("shared-performances")
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
    if "identity" in controls and is_weak(controls["identity"]):
        flags.append("weak-attacker")
    if "null" in controls and controls["null"].leakage.low > data["chance"] + _ROUNDING:
        flags.append("control-failed")
    room = [m for m in others if m.group == measured.group and m.is_control and m.first["target"] == data["target"]]
    if data["chance"] < measured.leakage.low and any(measured.leakage.low <= m.leakage.value for m in room):
        flags.append("nuisance")
    return tuple(flags)


def is_weak(on_raw: Measured) -> bool:
    """Whether an attacker, as measured on `identity`, is too weak for its failures to count."""
    least = floor(on_raw.first)
    return on_raw.leakage.low <= on_raw.first["chance"] if least is None else on_raw.leakage.value < least


@dataclass(frozen=True)
class TradeOff:
    """One anonymizer as a point: what is left of the use against the worst that leaks.

    Args:
        anonymizer: Its spec.
        utility: Utility retention of the retrained action classifier.
        leakage: Chance-normalised leakage of the worst semi-informed attacker.
        attacker: That attacker.
        family: Equal for anonymizers that differ in their strength only.
        strength: That strength; not a number for one without.
    """

    anonymizer: str
    utility: Estimate
    leakage: Estimate
    attacker: str
    family: str
    strength: float


def trade_off(measured: Sequence[Measured], threat: str) -> list[TradeOff]:
    """The worst attacker of each anonymizer at one threat level (methods.md section 6.8).

    A weak attacker cannot make a method look private: the worst is taken, so it can only raise a leakage, and a method that only
    weak attackers were tried on has no point. What needs no body to know, the nuisance-only control, does not count.
    """
    points = []
    for name in dict.fromkeys(m.first["names"]["anonymizer"] for m in measured):
        panel = [m for m in measured if m.first["names"]["anonymizer"] == name and m.first["threat"] == threat]
        panel = [m for m in panel if not m.is_control]
        if any("weak-attacker" not in m.flags for m in panel):
            worst = max(panel, key=lambda m: m.normalised.value)
            curve = worst.first["strength"] or {"family": name, "value": math.nan}
            attacker = worst.first["names"]["attacker"]
            points.append(TradeOff(name, worst.retention, worst.normalised, attacker, curve["family"], curve["value"]))
    return points
