"""`bench submit check`: everything that is wrong with a submission at once, without a network and without its author.

Code is run at the level of isolation that was asked for, on synthetic people. What it must hold is what the numbers rest on:
equal input gives equal output, whatever else is in the batch, whatever day it is; what is released is all that there is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.attacker import refuse_all_but_probabilities
from bench.data.clips import ClipSet
from bench.data.prepare import open_or_prepare
from bench.data.store import ClipStore
from bench.data.synthetic import EXAMPLE, Synthetic
from bench.files import UserError
from bench.plan import choose_protocol, make_plan
from bench.presets import smoke_preset
from bench.protocols import SUBJECT, instantiate
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS
from bench.release import FittedAnonymizer
from bench.specs import parse_spec
from bench.submission.findings import Finding, Problems, Report
from bench.submission.foreign import ForeignAnonymizer, ForeignAttacker
from bench.submission.hidden import hidden_identity
from bench.submission.isolation import Limits, refuse_visible
from bench.submission.manifest import Manifest, ManifestError, check_files, copy_files, read_manifest
from bench.submission.networks import SubmittedNetworks
from bench.submission.prepared import check_clips, pick_scores, read_scores
from bench.submission.session import Foreign, ForeignError, close_all, noted
from bench.submission.source import Submission, SubmittedSpec
from bench.submission.trials import Lab, release, try_anonymizer, try_attacker

_CROWD = "synthetic:people=12,motions=8,cameras=1"  # enough to tell whether digits name people
LIMITS = Limits(seconds=120.0)
_MOST_CLIPS = 20_000  # of synthetic people: who checks it makes them all
_FORBIDDEN = {
    "network": "take it out; weights and other files belong into the submission",
    "write outside": "write below /tmp, if at all",
    "read outside": "read the submission's own files only, by paths relative to the module",
    "links": "take it out",
    "processes": "take it out; the evaluator starts as many processes as there are cores",
}
_REMEDIES = {
    "time": "make it faster, or split the work: the limit is for one batch of clips, or one training",
    "memory": "work on a part of the clips at a time",
    "processes": _FORBIDDEN["processes"],
    "file size": "write less",
    "ended": "find out what ends the process: sys.exit, or a crash of a library",
    "error": "run the template's test in the folder: `pytest`",
}

_ANSWERS = {
    "anonymizer": "return finite float32 clips of the shape of batch.clips, zero where batch.present is false",
    "attacker": "return float32 class probabilities, a row for each index and a column for each of part.classes",
}
_LOADED = {  # by the manifest's tables
    "code": "let [code] name a frozen dataclass of the kind that is stated; `bench submit new` writes one",
    "weights": "write the folder anew, with `bench anonymize --save-weights`, or of an attacker `bench submit export`",
    "data": "write the clips with `bench anonymize --format store`",
    "scores": "name an anonymizer as `bench list anonymizers` does, and what it is to hide as target",
}


def check(folder: Path, level: str | None, results: Path, step: Callable[[str], Any]) -> Report:
    """Checks a submission.

    Args:
        folder: Where it lies.
        level: Level of isolation for its code; None does not run any, which is told.
        results: Folder for the synthetic people of the smoke evaluation.
        step: Shows one piece of work to people.

    Raises:
        IsolationError: if code at that level could read the results, or the data.
    """
    refuse_visible(level or "", results)
    report = Report()
    try:
        manifest = report.manifest = read_manifest(folder)
        report.add("manifest", [])
    except ManifestError as error:
        report.findings += [Finding("manifest", f"{where}: {what}", remedy) for where, what, remedy in error.problems]
        return report
    report.add("files", [(f"{where}: {what}", remedy) for where, what, remedy in check_files(folder, manifest)])
    report.add("name", _name(manifest, Submission(folder, manifest).makes))
    report.add("data", _data(manifest))
    if not report.good:
        return report  # nothing of files that are not what they are said to be is opened
    if manifest.runs_code and level is None:
        report.findings.append(Finding("isolation", "its code was not run", "install bubblewrap, or say --trust"))
        return report
    with TemporaryDirectory(prefix="bench-check-") as name:
        place = Path(name)
        place.chmod(0o755)  # the worker may be another account
        copy_files(folder, place / "files")  # what no hash covers, such as compiled modules, is not there
        submission = Submission(place / "files", manifest)
        try:
            _check_content(submission, level, results, report, step)
        finally:
            close_all()  # workers hold the copy
        if manifest.runs_code:
            report.add("behaviour", _noted(submission.foreign(level or "", LIMITS)))
    return report


def _check_content(submission: Submission, level: str | None, results: Path, report: Report, step: Callable[[str], Any]) -> None:
    """Loads and tries what was submitted."""
    manifest = submission.manifest
    loaded = next(remedy for table, remedy in _LOADED.items() if getattr(manifest, table) is not None)
    try:
        with step(f"load {manifest.name}"):
            spec = submission.spec(level or "", LIMITS)
    except (UserError, ValueError, RecursionError, MemoryError) as error:
        report.add("contract", [(str(error) or type(error).__name__, loaded)])
        return
    except ForeignError as error:
        report.add(*_foreign(error, {"error": loaded}))
        return
    report.add("load", [])
    answer = {"answer": _ANSWERS[submission.makes]}
    try:
        lab = Lab.open(results, step)
        if isinstance(spec.value, ForeignAnonymizer):
            with step("fit to synthetic clips"):
                state = spec.value.fit(lab.examples()).state
            for name, problems, grave in try_anonymizer(submission, spec, state, lab, step):
                report.add(name, problems, grave=grave)
            with step("look for hidden identity"):
                report.add("hidden identity", _hidden(spec, state, results))
        elif isinstance(spec.value, ForeignAttacker):
            for name, problems, grave in try_attacker(submission, spec, lab, step):
                report.add(name, problems, grave=grave)
        elif manifest.weights and submission.makes == "anonymizer":
            with step("look for hidden identity"):
                report.add("hidden identity", _hidden_in_weights(spec, results))
        elif manifest.data:
            report.add("clips", _clips_fit(submission, results))
            if report.good:
                with step("look for hidden identity"):
                    report.add("hidden identity", _hidden_in_clips(submission, results))
        elif manifest.scores:
            report.add("scores", _scores_fit(submission, results))
        if report.good and _can_be_tried(manifest, spec, lab):
            with step("smoke evaluation on synthetic people"):
                report.add("smoke evaluation", _smoke(submission, spec, results, report))
    except ForeignError as error:
        report.add(*_foreign(error, answer))
    except (UserError, ValueError, RecursionError, MemoryError) as error:  # the last two: files made to exhaust their reader
        report.add("contract", [(str(error) or type(error).__name__, answer["answer"] if manifest.runs_code else loaded)])


def _foreign(error: ForeignError, remedies: Mapping[str, str]) -> tuple[str, Problems]:
    """Name of the check that an error in submitted code fails, and what is wrong; `remedies` go before the usual ones."""
    known = {**_REMEDIES, **remedies}
    return {"error": "code"}.get(error.kind, error.kind), [(str(error), known.get(error.kind, known["error"]))]


def _can_be_tried(manifest: Manifest, spec: SubmittedSpec, lab: Lab) -> bool:
    """Whether synthetic people are what it is made for: nothing that is bound to the clips of others, or to another layout."""
    if manifest.scores or (manifest.data and not manifest.dataset.startswith("synthetic")):
        return False
    return not isinstance(spec.value, SubmittedNetworks) or spec.value.reads(lab.clips)


def _name(manifest: Manifest, makes: str) -> Problems:
    registry = ANONYMIZERS if makes == "anonymizer" else ATTACKERS
    if manifest.name not in registry.names():
        return []
    whose = registry[manifest.name].provider
    if whose == "builtin":
        return [(f"{manifest.name} is the name of a built-in {makes}", "choose another name")]
    what = f"{manifest.name} is the name of an {makes} of {whose}, which is installed here"
    return [(what, f"if that is this one, uninstall it first (pip uninstall {whose.split()[0]}), or rename it")]


def _data(manifest: Manifest) -> Problems:
    try:
        data = parse_spec(manifest.dataset, DATASETS)
        choose_protocol(data, manifest.protocol or None)
    except UserError as error:
        return [(str(error), "name a data set and a protocol of `bench list datasets`")]
    if isinstance(data.value, Synthetic) and len(data.value) > _MOST_CLIPS:
        return [(f"{data} has {len(data.value)} clips", f"name one of {_MOST_CLIPS} at most")]
    return []


def _noted(foreign: Foreign) -> Problems:
    """Forbidden acts that the worker noticed."""
    return [(line, _FORBIDDEN.get(line.partition(":")[0], "take it out")) for line in noted(foreign)]


def _hidden(spec: SubmittedSpec, state: Mapping[str, Tensor], results: Path) -> Problems:
    """Whether the bits that rounding takes away name the person."""
    store = open_or_prepare(parse_spec(_CROWD, DATASETS), results)
    exact = replace(spec.value, rounds=False)
    return _told_by_digits(release(exact, state, ClipSet.from_store(store)), store)


def _hidden_in_weights(spec: SubmittedSpec, results: Path) -> Problems:
    """The same for a known method; one of another layout cannot be tried on these people, and is rounded as well."""
    loaded = FittedAnonymizer.load(Path(spec.value.folder))
    if loaded.layout != open_or_prepare(parse_spec(_CROWD, DATASETS), results).layout.name:
        return []
    try:
        return _hidden(spec, loaded.state, results)
    except (KeyError, IndexError, RuntimeError) as error:  # of a known method on tensors that are not what it learns
        raise UserError(f"{loaded.spec} cannot use these weights ({type(error).__name__}: {error})") from error


def _hidden_in_clips(submission: Submission, results: Path) -> Problems:
    """The same for clips, with the names of the people whom they are to hide."""
    source = open_or_prepare(parse_spec(submission.manifest.dataset, DATASETS), results)
    sent = ClipStore.open(submission.folder / submission.manifest.data.folder)
    places = {name: i for i, name in enumerate(sent.labels["clip"])}
    order = [places[name] for name in source.labels["clip"]]  # rows of the clips, in the order of the source's
    rows = np.concatenate([sent.rows[first : first + frames * bodies] for first, frames, bodies in sent.index[order]])
    return _told_by_digits(torch.from_numpy(rows), source)


def _told_by_digits(rows: Tensor, store: ClipStore) -> Problems:
    clips, people = ClipSet.from_store(store), store.labels[SUBJECT].to_numpy()
    found = hidden_identity(rows, clips, people)
    if not found.more_than(hidden_identity(clips.rows, clips, people)):
        return []
    return [
        (
            f"digits below a tenth of a millimetre name {found.accuracy:.0%} of clips (chance {found.chance:.0%}): identity is "
            "hidden in them; they are rounded away before anything is measured",
            "release what the coordinates show and nothing else",
        )
    ]


def _clips_fit(submission: Submission, results: Path) -> Problems:
    manifest = submission.manifest
    data = parse_spec(manifest.dataset, DATASETS)
    try:
        source = open_or_prepare(data, results)
        problems = check_clips(submission.folder / manifest.data.folder, source)
    except UserError as error:
        problems = [str(error)]
    return [(problem, f"make them with `bench anonymize --dataset {manifest.dataset} --format store`") for problem in problems]


def _scores_fit(submission: Submission, results: Path) -> Problems:
    manifest = submission.manifest
    data = parse_spec(manifest.dataset, DATASETS)
    try:
        found = read_scores(submission.folder / manifest.scores.file)
        store = open_or_prepare(data, results)
        part = instantiate(choose_protocol(data, manifest.protocol or None), manifest.scores.target, store.labels, str(data))
        refuse_all_but_probabilities(pick_scores(found, store.labels["clip"].to_numpy()[part.test], part.classes))
    except (UserError, ValueError) as error:
        remedy = "write it with numpy.savez(file, clip=..., classes=..., scores=...), for every test clip and class of the target"
        return [(str(error), remedy)]
    return []


def _smoke(submission: Submission, spec: SubmittedSpec, results: Path, report: Report) -> Problems:
    """A tiny evaluation from end to end, in a results folder of its own: what it measures is for no board."""
    from bench.devices import choose_devices
    from bench.executors import Where
    from bench.runner import run_plans
    from bench.summary import measure_all

    anonymizer, results = submission.makes == "anonymizer", results / "checks"
    plan = make_plan(
        dataset=submission.manifest.dataset if submission.manifest.data else EXAMPLE,
        protocol=None,
        anonymizers=[spec] if anonymizer else "identity",
        attackers="bones-lda,stats-rf" if anonymizer else [spec],
        threats="semi-informed",
        preset=smoke_preset(),
        seeds=(0,),
        results=results,
        controls=False,
    )
    result = run_plans([plan], results, Where("serial", choose_devices("cpu")), "bench submit check")
    for m in measure_all(result.records):
        names = m.first["names"]
        report.smoke[names["attacker"]] = m.normalised.value
    return [(f"{failed['attacker']}: {failed['error']}", _REMEDIES["error"]) for failed in result.failed]
