"""Reproduction: records measured again from the raw clips on, in an empty folder, and compared."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.executors import Where
from bench.experiment import Experiment
from bench.files import UserError
from bench.measure import measure
from bench.occupied import at_work
from bench.plan import Plan, make_plan
from bench.presets import get_preset
from bench.records import IDENTITY, Record
from bench.registry import ANONYMIZERS, ATTACKERS, Registry
from bench.runner import run_plans
from bench.specs import Spec, parse_spec
from bench.submission.session import ForeignError, close_all
from bench.submission.source import received
from bench.submission.states import entries, submitted_as
from bench.verdicts import write_reproductions

# What a record states of its trainings, and how the chosen epochs did: other last digits are no other measurement.
_FOLLOWS = ("training", "inversion", "fitting", "stages", "validation")
_NUMBERS = ("leakage", "action_raw", "action_retrained")


@dataclass(frozen=True)
class Verdict:
    """What an audit says of one record.

    Args:
        record: The record.
        same: Whether it was reproduced within the tolerance; None if it could not be measured again, or other numbers came out on
            other hardware, for which the tolerance was not made.
        told: In words.
    """

    record: Record
    same: bool | None
    told: str


def choose(found: Sequence[Record], sample: int | None, seed: int) -> list[Record]:
    """Some records at random; all if no number is given."""
    if sample is None or sample >= len(found):
        return list(found)
    chosen = np.random.default_rng(seed).choice(len(found), sample, replace=False)
    return [found[i] for i in sorted(chosen)]


def audit(found: Sequence[Record], results: Path, where: Where, tolerance: float, tell: Callable[[Verdict], None]) -> bool:
    """Measures records again and compares what attackers and action classifiers say of each clip; keeps what it found.

    A record that was made on other hardware, with other precision or another torch, and differs, is told apart from one that
    differs without such a reason: neither is reproduced.

    Only the prepared clips, if they are there, are taken from the results folder; everything else is computed anew in a folder of
    its own, shared stages once.

    Args:
        found: The records.
        results: Folder that they come from.
        where: Where to compute.
        tolerance: Largest difference of any number said of a clip.
        tell: Called with each verdict.

    Returns:
        Whether all were reproduced.
    """
    plans, broken, verdicts = {}, {}, []
    with at_work(results), tempfile.TemporaryDirectory(prefix=".audit-", dir=results) as name:
        again = Path(name)
        if (results / "data").is_dir():  # or data sets that can be had are prepared anew
            (again / "data").symlink_to((results / "data").resolve(), target_is_directory=True)
        for record in found:
            try:
                plans[record.path] = _plan(record, results, again)
            except UserError as error:
                broken[record.path] = f"cannot be done again: {error}"
        try:
            result = run_plans(list(plans.values()), again, where, "bench audit")
        finally:
            close_all()
        for record in found:
            verdict = _verdict(record, broken.get(record.path, ""), result.records, result.failed, tolerance)
            verdicts.append(verdict)
            tell(verdict)
    write_reproductions([(v.record, v.same) for v in verdicts if v.same is not None], tolerance, results)
    return all(verdict.same for verdict in verdicts)


def experiment_of(record: Record) -> Experiment:
    """What would measure this record alone."""
    data = record.data
    return Experiment(
        dataset=data["dataset"],
        protocol=data["protocol"]["name"],
        anonymizer=data["names"]["anonymizer"],
        attacker=data["names"]["attacker"],
        threat=data["threat"],
        preset=data["preset"]["name"],
        seeds=(data["seed"],),
        controls=False,
    )


def _plan(record: Record, results: Path, again: Path) -> Plan:
    """What measures a record again; a submission comes from what was received.

    Raises:
        UserError: if that cannot be done here.
    """
    asked, data = experiment_of(record), record.data
    if not any(submitted_as(data[side]) for side in ("anonymizer", "attacker")):
        (plan,) = asked.plans(again)
        return plan
    return make_plan(
        dataset=asked.dataset,
        protocol=asked.protocol,
        anonymizers=[_spec(data["anonymizer"], asked.anonymizer, ANONYMIZERS, results)],
        attackers=[_spec(data["attacker"], asked.attacker, ATTACKERS, results)],
        threats=asked.threat,
        preset=get_preset(asked.preset),
        seeds=asked.seeds,
        results=again,
        controls=False,
    )


def _spec(described: Mapping[str, Any], name: str, registry: Registry, results: Path) -> Spec:
    if not (known_as := submitted_as(described)):
        return parse_spec(name, registry)
    entry = next((entry for entry in entries(results) if entry.data["identity"] == known_as), None)
    if entry is None:
        raise UserError(f"{name} was submitted, and what was received is not in {results}")
    try:
        return received(entry, described["parameters"].get("isolation", ""), results, trust=False)
    except ForeignError as error:
        raise UserError(f"{name} cannot be loaded: {error}") from error


def _verdict(
    record: Record, broken: str, measured: Sequence[Record], failed: Sequence[Mapping[str, str]], tolerance: float
) -> Verdict:
    if broken:
        return Verdict(record, None, broken)
    data, asked = record.data, experiment_of(record)
    if new := next((new for new in measured if experiment_of(new) == asked), None):
        changed = [name for name in IDENTITY if new.data[name] != data[name]]
        if changed:
            return Verdict(record, None, f"cannot be done again: {', '.join(changed)} changed since it was measured")
        return _compare(record, new, tolerance)
    names = {**data["names"], "threat": data["threat"], "seed": str(data["seed"])}
    errors = [failure["error"] for failure in failed if all(failure[name] == value for name, value in names.items())]
    return Verdict(record, None, f"cannot be done again: {errors[0]}")


def _compare(old: Record, new: Record, tolerance: float) -> Verdict:
    try:
        before, after = old.predictions(), new.predictions()
    except UserError as error:
        return Verdict(old, None, str(error))
    for name, values in before.items():
        if name not in after or values.shape != after[name].shape:
            return Verdict(old, False, f"DIFFERS: {name} is of another shape")
        if values.dtype.kind != "f" and not np.array_equal(values, after[name]):
            return Verdict(old, False, f"DIFFERS: {name}, so other clips or labels were tested")
    apart = {name: _apart(values, after[name]) for name, values in before.items() if values.dtype.kind == "f"}
    name, most = max(apart.items(), key=lambda one: one[1])
    stated = sorted(key for key, value in old.data.items() if new.data.get(key) != value)
    wrong = [key for key in stated if key not in _FOLLOWS]
    if most <= tolerance and wrong:
        return Verdict(old, False, f"DIFFERS: {', '.join(wrong)}")
    if most == 0:
        told = f" in all predictions; {', '.join(stated)} differ" if stated else ""
        return Verdict(old, True, f"equal to the bit{told}")
    first, second = measure([old]).row(), measure([new]).row()
    told = ", ".join(f"{number} {first[number]:.4f} -> {second[number]:.4f}" for number in _NUMBERS)
    if most <= tolerance:
        return Verdict(old, True, f"equal within {tolerance:g}: largest difference {most:.1e} ({name}); {told}")
    found = f"by up to {most:.1e} ({name}), more than {tolerance:g}; {told}"
    if elsewhere := _elsewhere(old, new):
        return Verdict(old, None, f"not reproduced, but on other hardware or software ({elsewhere}): differs {found}")
    return Verdict(old, False, f"DIFFERS {found}")


def _elsewhere(old: Record, new: Record) -> str:
    """In which respects two records were made in different places, "" as far as both say the same.

    Records of before do not say where their stages were made; the process that wrote them knew its own device and packages.
    """
    seen = []
    for record in (old, new):
        try:
            manifest = record.manifest()
        except UserError:  # missing or damaged
            return ""
        own = [{"device": manifest["device"], "torch": manifest["packages"].get("torch", "")}]
        seen.append(manifest.get("made_on") or own)
    changed = []
    for name in dict.fromkeys(key for places in seen for place in places for key in place):
        before, after = ({place.get(name, "") for place in places} for places in seen)
        known = all(name in place for places in seen for place in places)
        if before != after and (known or name in ("compile", "processes")):  # not mentioned where there is nothing unusual
            changed.append(f"{name} {_listed(before)} -> {_listed(after)}")
    return ", ".join(changed)


def _listed(values: set[str]) -> str:
    return " and ".join(sorted(value or "none" for value in values))


def _apart(before: np.ndarray, after: np.ndarray) -> float:
    """Largest difference; where both are unknown there is none."""
    both = np.isnan(before) & np.isnan(after)
    return float(np.where(both, 0.0, np.nan_to_num(np.abs(before - after), nan=np.inf)).max(initial=0.0))
