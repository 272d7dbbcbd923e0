"""From records to rows: pooled folds, averaged seeds, and the flags of each row."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.files import digest
from bench.floors import floor
from bench.measured import Measured
from bench.metrics.comparison import difference
from bench.protocols import ACTION
from bench.records import IDENTITY, Record, pool_folds
from bench.remembered import measured_or_remembered
from bench.submission.states import noted_flags
from bench.threat import RANKING
from bench.verdicts import reproductions

CONTROLS = ("identity", "null")  # the anonymizers that prove the instrument
# The attackers that do: two that look at no coordinates, for names and for pairs, and one that learns nothing.
NUISANCE, NUISANCE_LINKAGE, SHUFFLED = "nuisance", "nuisance-linkage", "shuffled-labels"
RECORDING = (NUISANCE, NUISANCE_LINKAGE)
_ROUNDING = 1e-9
_EPOCHS = 3
_SURE = 0.001  # of shuffled labels: a control that fails in one of twenty sound runs would soon be ignored
FLAGS = {
    "single-draw": "the anonymizer is random, and only one draw of its randomness was measured",
    "no-control": "identity or null was not measured with this attacker: nothing shows that it works, or that it is not misled",
    "incomplete-panel": "an attacker that identity was measured with is missing here, or has fewer seeds: it may be the worst",
    "few-people": "so few people were tested, or of one class, that no interval can be stated",
    "weak-attacker": "the attacker does not reach its floor on raw clips (chance, if none is stored): its failure shows nothing",
    "undertrained": "the budget ended before the attacker had seen its training clips three times: more may find more",
    "control-failed": "an attacker beats chance where nothing is to be found (null, shuffled labels): the measurement is broken, "
    "or, if it was submitted, that attacker knows what no clip told it, and ranks nothing",
    "frozen-beats-retrained": "the raw-trained attacker reads more than the one that knows the anonymizer: that did not learn, "
    "or took another of its models for the better one",
    "pass-through": "the released clips are the raw ones, to the last bit: the method did nothing",
    "shared-performances": "tests performances that are in training as well, filmed by another camera: the moment may be matched",
    "nuisance": "no more than the room, the camera and the clip's length give away: it need not be the body that leaks",
    "fixed-release": "strangers released the clips themselves, those too that attackers learn from: these may mislead them",
    "two-faced": "clips that it was fitted to are released otherwise than those tested, and attackers learn from the former",
    "unproven": "scores or networks that were sent in: whoever has the test clips can make them fit, so they change no rank",
    "not-reproduced": "an audit measured a record of this method, or of a control, again, and something else came out",
    "told-action": "it is told each clip's action: what is recognised in a release may be what it was told",
    "below-prior": "fewer clips are named than by always naming the most frequent class: compare the balanced number alone",
}
# Of a method with such a row, no rank is stated: what it is worth is not known. Those in neither list withhold it if they are
# raised by the attacker whose leakage ranks the method; in other rows they only say how to read a number.
WITHHOLDING = (
    *("no-control", "control-failed", "incomplete-panel", "undertrained", "pass-through", "shared-performances"),
    *("fixed-release", "two-faced", "not-reproduced", "told-action"),
)
# These never do: they say that a number looks worse than it is, or where else to look.
REMARKS = ("nuisance", "below-prior")


def measure_all(records: Iterable[Record], results: Path | None = None) -> list[Measured]:
    """Pools folds, groups records that differ in their seed only, measures each group and raises its flags.

    Args:
        records: The records.
        results: The folder in which they lie: measurements are kept there for the next time, and flags that only it can tell are
            raised as well (what evaluations noted of submissions, and what audits found). None for none of this.
    """
    groups: dict[str, list[Record]] = {}
    for record in pool_folds(records):
        groups.setdefault(_group_key(record), []).append(record)
    seeds = [sorted(group, key=lambda record: record.data["seed"]) for group in groups.values()]
    measured = [measured_or_remembered(group, results) for group in seeds]
    if results:
        noted, wrong = noted_flags(results), {key for key, verdict in reproductions(results).items() if not verdict.same}
        contradicted = [m for m in measured if any(key in wrong for record in m.records for key in record.keys)]
        measured = [replace(m, flags=(*_noted(m, noted), *_doubts(m, contradicted))) for m in measured]
    measured = [replace(m, flags=(*_flags(m, measured), *m.flags)) for m in measured]
    return sorted(
        measured, key=lambda m: (m.group, _anonymizer_rank(m), m.first["target"], m.first["attacker"]["name"], m.first["threat"])
    )


def _noted(measured: Measured, noted: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """What the evaluation of a submitted anonymizer noted of it."""
    return noted.get(measured.first["anonymizer"]["parameters"].get("submission", ""), ())


def _doubts(measured: Measured, contradicted: Sequence[Measured]) -> tuple[str, ...]:
    """A flag if a row cannot be relied on, since an audit contradicts a record.

    Then neither can other rows of its method, nor, if that is a control, others of its table, which rests on it; but of a
    submitted attacker all rows of that attacker alone: no stranger can cost others their ranks.
    """

    def concerns(other: Measured) -> bool:
        mine, theirs = measured.first, other.first
        if submitted(mine["attacker"]) or submitted(theirs["attacker"]):
            return mine["names"]["attacker"] == theirs["names"]["attacker"]
        return mine["names"]["anonymizer"] == theirs["names"]["anonymizer"] or theirs["anonymizer"]["name"] in CONTROLS

    return ("not-reproduced",) if any(m.group == measured.group and concerns(m) for m in contradicted) else ()


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
        return ("unproven",) if submitted(data["attacker"]) else ()
    flags = ["fixed-release"] if submitted(data["anonymizer"]) == "data" else []
    if ACTION in data["uses"]:
        flags.append("told-action")
    if data["stochastic"] and len(measured.records) * data["draws"] == 1:
        flags.append("single-draw")
    splits = data["protocol"]["splits"]
    if splits.get(data["target"], {}).get("shares"):  # what is measured from the body is split by people
        flags.append("shared-performances")
    same = [m for m in others if m.group == measured.group]
    mine = [m for m in same if m.first["names"]["attacker"] == data["names"]["attacker"]]
    at_level = {m.first["anonymizer"]["name"]: m for m in mine if m.first["threat"] == data["threat"]}
    controls = {name: at_level[name] for name in CONTROLS if name in at_level}
    if set(controls) != set(CONTROLS):
        flags.append("no-control")
    if "identity" in controls and is_weak(controls["identity"]):
        flags.append("weak-attacker")
    trainings = [training for record in measured.records for training in record.trainings]
    if not submitted(data["attacker"]) and any(  # what strangers report of a training costs nobody a rank
        0 < epochs < _EPOCHS for training in trainings for epochs in _epochs(training)
    ):
        flags.append("undertrained")
    learnt_nothing = [m for m in same if m.first["attacker"]["name"] == SHUFFLED and m.first["target"] == data["target"]]
    if ("null" in controls and beats_chance(controls["null"])) or any(surely_beats_chance(m) for m in learnt_nothing):
        flags.append("control-failed")
    method = data["names"]["anonymizer"]
    if data["threat"] == RANKING and _lacks_attackers(method, same):
        flags.append("incomplete-panel")
    if not measured.leakage.sample.enough:
        flags.append("few-people")
    frozen = [m for m in mine if m.first["names"]["anonymizer"] == method and m.first["threat"] == "ignorant"]
    if data["threat"] == RANKING and frozen and difference(frozen[0].leakage, measured.leakage).estimate.low > _ROUNDING:
        flags.append("frozen-beats-retrained")
    raw = released(controls["identity"]) if "identity" in controls else set()
    if data["anonymizer"]["name"] != "identity" and released(measured) == raw:
        flags.append("pass-through")
    room = [m for m in same if m.first["attacker"]["name"] in RECORDING and m.first["target"] == data["target"]]
    if data["chance"] < measured.leakage.low and any(measured.leakage.low <= m.leakage.value for m in room):
        flags.append("nuisance")
    if measured.named and beats_chance(measured) and measured.named["top1"].high < data["prior"]:
        flags.append("below-prior")
    return tuple(flags)


def submitted(described: Mapping[str, Any]) -> str:
    """Kind of the submission that an anonymizer or attacker came from; "" if it is a plugin of the machine."""
    stated = described["parameters"]
    return stated["kind"] if "submission" in stated else ""


def set_aside(attacker: str, table: Sequence[Measured]) -> bool:
    """Whether a submitted attacker counts for nothing: it beats chance on clips that hold nothing, whatever it knows of how they
    were made; or it was not tried on such clips; or an audit contradicts it.

    Code may bring the right answers along, by the lengths of clips or otherwise. What that finds says nothing of any method, and
    nothing against the measurement either.
    """
    mine = [m for m in table if m.first["names"]["attacker"] == attacker and submitted(m.first["attacker"])]
    on_nothing = [m for m in mine if m.first["anonymizer"]["name"] == "null"]
    untried = RANKING not in {m.first["threat"] for m in on_nothing}
    return bool(mine) and (untried or any("not-reproduced" in m.flags for m in mine) or any(map(beats_chance, on_nothing)))


def _lacks_attackers(method: str, table: Sequence[Measured]) -> bool:
    """Whether identity was measured with an attacker that counts, or with seeds, that this method was not."""

    def panel(of: Callable[[Measured], bool]) -> dict[str, int]:
        ranking = (m for m in table if not m.is_control and m.first["threat"] == RANKING and of(m))
        return {m.first["names"]["attacker"]: len(m.records) for m in ranking}

    mine = panel(lambda m: m.first["names"]["anonymizer"] == method)
    whole = panel(lambda m: m.first["anonymizer"]["name"] == CONTROLS[0] and not is_weak(m))
    return any(mine.get(attacker, 0) < seeds and not set_aside(attacker, table) for attacker, seeds in whole.items())


def _epochs(training: Any) -> Iterator[int]:
    """Lengths of all curves of training losses in what an attacker reported, an entry an epoch; an attacker may be several."""
    for name, value in training.items() if isinstance(training, Mapping) else ():
        if name == "train_loss" and isinstance(value, list):
            yield len(value)
        else:
            yield from _epochs(value)


def released(measured: Measured) -> set[str]:
    """Digests of the clips that were released, one a seed and fold."""
    return {content for record in measured.records for content in record.releases}


def beats_chance(measured: Measured) -> bool:
    """Whether the interval says that an attacker is better than guessing, or of linkage that it is reliably wrong."""
    return measured.normalised.low > _ROUNDING


def surely_beats_chance(measured: Measured) -> bool:
    """As `beats_chance`, wrong in one of a thousand cases rather than one of forty: for a control that runs every time."""
    above = measured.leakage.value - measured.first["chance"]
    spread = float(np.nanstd(measured.leakage.draws))
    return above > _ROUNDING and (spread == 0 or measured.leakage.sample.p_of(above / spread) / 2 < _SURE)


def is_weak(on_raw: Measured) -> bool:
    """Whether an attacker, as measured on `identity`, is too weak for its failures to count.

    Of too few people nothing can be said either way; the flag of these says so.
    """
    least = floor(on_raw.first)
    if least is not None:
        return on_raw.leakage.value < least
    return on_raw.leakage.sample.enough and not beats_chance(on_raw)
