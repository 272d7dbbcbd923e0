"""`bench submit check`: everything that is wrong with a submission at once, without a network and without its author.

Code is run at the level of isolation that was asked for, on synthetic people. What it must hold is what the numbers rest on:
equal input gives equal output, whatever else is in the batch, whatever day it is; what is released is all that there is.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.anonymizer import Examples, anonymize
from bench.data.clips import ClipSet
from bench.data.prepare import open_or_prepare
from bench.data.store import ClipStore
from bench.data.synthetic import Synthetic
from bench.files import UserError
from bench.pipeline import Bench
from bench.plan import choose_protocol, make_plan
from bench.presets import smoke_preset
from bench.protocols import SUBJECT, anonymizer_part, instantiate
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS
from bench.release import FittedAnonymizer
from bench.specs import parse_spec
from bench.stages import StageStore
from bench.submission.foreign import ForeignAnonymizer, ForeignAttacker
from bench.submission.hidden import hidden_identity
from bench.submission.isolation import Limits, refuse_visible
from bench.submission.manifest import Manifest, ManifestError, check_files, copy_files, read_manifest
from bench.submission.networks import SubmittedNetworks
from bench.submission.prepared import check_clips, pick_scores, read_scores
from bench.submission.session import Foreign, ForeignError, close, close_all, noted
from bench.submission.source import DeclaredParameter, Submission, SubmittedSpec, declared

SMOKE_DATA = "synthetic:people=6,motions=3,cameras=1"
_CROWD = "synthetic:people=12,motions=8,cameras=1"  # enough to tell whether digits name people
LIMITS = Limits(seconds=120.0)
_MOST_CLIPS = 20_000  # of synthetic people: who checks it makes them all
_CLIPS = 8  # clips that are anonymized again and again
_LATER = 400 * 24 * 3600.0  # seconds: code that waits for a date shows it
_REPEATS = 12
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
    "answer": "return float32 clips of the shape of batch.clips, or what the base class says",
    "ended": "find out what ends the process: sys.exit, or a crash of a library",
    "error": "run the template's test in the folder: `pytest`",
}

_LOADED = {  # by the manifest's tables
    "code": "let [code] name a frozen dataclass of the kind that is stated; `bench submit new` writes one",
    "weights": "write the folder anew, with `bench anonymize --save-weights`, or of an attacker `bench submit export`",
    "data": "write the clips with `bench anonymize --format store`",
    "scores": "name an anonymizer as `bench list anonymizers` does, and what it is to hide as target",
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        name: Short name of the check, as in tables.
        what: What is wrong.
        remedy: What would be right.
        grave: Whether it must be mended; otherwise it is to be known.
    """

    name: str
    what: str
    remedy: str
    grave: bool = True


@dataclass
class Report:
    """What a check found.

    Args:
        manifest: What the submission states; None if that could not be read.
        findings: What is wrong.
        passed: Names of the checks that held.
        smoke: Rows of the smoke evaluation: attacker and normalised leakage.
    """

    manifest: Manifest | None = None
    findings: list[Finding] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    smoke: dict[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not any(finding.grave for finding in self.findings)

    def add(self, name: str, problems: Sequence[tuple[str, str]]) -> None:
        """Notes the outcome of one check: (what, remedy) of each problem; none is a pass."""
        self.findings += [Finding(name, *problem) for problem in problems]
        if not problems:
            self.passed.append(name)


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
    try:
        with step(f"load {manifest.name}"):
            spec = submission.spec(level or "", LIMITS)
    except (UserError, ValueError, RecursionError, MemoryError) as error:
        remedy = next(remedy for table, remedy in _LOADED.items() if getattr(manifest, table) is not None)
        report.add("contract", [(str(error) or type(error).__name__, remedy)])
        return
    except ForeignError as error:
        report.add(*_foreign(error))
        return
    report.add("load", [])
    try:
        lab = _Lab.open(results, step)
        if isinstance(spec.value, ForeignAnonymizer):
            _check_anonymizer(submission, spec, lab, results, report, step)
        elif isinstance(spec.value, ForeignAttacker):
            _check_attacker(spec, lab, report, step)
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
        report.add(*_foreign(error))
    except (UserError, ValueError, RecursionError, MemoryError) as error:  # the last two: files made to exhaust their reader
        report.add("contract", [(str(error) or type(error).__name__, _REMEDIES["answer"])])


def _foreign(error: ForeignError) -> tuple[str, list[tuple[str, str]]]:
    """Name of the check that an error in submitted code fails, and what is wrong."""
    return {"error": "code"}.get(error.kind, error.kind), [(str(error), _REMEDIES.get(error.kind, _REMEDIES["error"]))]


def _can_be_tried(manifest: Manifest, spec: SubmittedSpec, lab: "_Lab") -> bool:
    """Whether synthetic people are what it is made for: nothing that is bound to the clips of others, or to another layout."""
    if manifest.scores or (manifest.data and not manifest.dataset.startswith("synthetic")):
        return False
    return not isinstance(spec.value, SubmittedNetworks) or spec.value.reads(lab.clips)


def _name(manifest: Manifest, makes: str) -> list[tuple[str, str]]:
    registry = ANONYMIZERS if makes == "anonymizer" else ATTACKERS
    if manifest.name not in registry.names():
        return []
    whose = registry[manifest.name].provider
    what = f"a built-in {makes}" if whose == "builtin" else f"an {makes} of {whose}, which is installed here"
    return [(f"{manifest.name} is the name of {what}", "choose another name")]


def _data(manifest: Manifest) -> list[tuple[str, str]]:
    try:
        data = parse_spec(manifest.dataset, DATASETS)
        choose_protocol(data, manifest.protocol or None)
    except UserError as error:
        return [(str(error), "name a data set and a protocol of `bench list datasets`")]
    if isinstance(data.value, Synthetic) and len(data.value) > _MOST_CLIPS:
        return [(f"{data} has {len(data.value)} clips", f"name one of {_MOST_CLIPS} at most")]
    return []


@dataclass(frozen=True)
class _Lab:
    """Synthetic people to try code on.

    Args:
        bench: Bench with a tiny budget.
        clips: A few of its clips, of which no target tests one.
    """

    bench: Bench
    clips: ClipSet

    @classmethod
    def open(cls, results: Path, step: Callable[[str], Any]) -> "_Lab":
        data = parse_spec(SMOKE_DATA, DATASETS)
        store = open_or_prepare(data, results)
        stages = StageStore(results / "stages")
        bench = Bench(store, choose_protocol(data, None), smoke_preset(), stages, torch.device("cpu"), step)
        part = anonymizer_part(bench.parts)
        some = part[np.linspace(0, len(part) - 1, _CLIPS).round().astype(int)]
        return cls(bench, bench.clips(bench.raw).subset(some))

    def examples(self) -> Examples:
        part = anonymizer_part(self.bench.parts)
        parts = {target: whole.restricted(part) for target, whole in self.bench.parts.items() if target != "linkage"}
        return Examples(self.bench.clips(self.bench.raw).subset(part), parts, self.bench.preset, 0)


def _check_anonymizer(
    submission: Submission, spec: SubmittedSpec, lab: _Lab, results: Path, report: Report, step: Callable[[str], Any]
) -> None:
    """Contract, determinism, independence of batch and clock, effect of parameters, hidden identity."""
    foreign: Foreign = spec.value.foreign
    with step("fit and release synthetic clips"):
        state = spec.value.fit(lab.examples()).state
        first = _release(spec.value, state, lab.clips)
    report.add("contract", [])
    with step("release them again, otherwise"):
        report.add("determinism", _same(spec, state, lab, first))
        report.add("batch independence", _alone(spec.value, state, lab, first))
        with _own_session(replace(spec.value, foreign=replace(foreign, clock=_LATER))) as later:
            different = _differ(first, _release(later, state, lab.clips))
        report.add("clock", [("it releases other clips at another date", "do not look at the clock")] if different else [])
    with step("change its parameters"):
        report.add("parameters", _parameters(submission, spec, lab, state, first))
    with step("look for hidden identity"):
        report.add("hidden identity", _hidden(spec, state, results))


def _check_attacker(spec: SubmittedSpec, lab: _Lab, report: Report, step: Callable[[str], Any]) -> None:
    """Contract, determinism in a fresh process, independence of the clips beside."""
    bench, attacker = lab.bench, spec.value
    part = bench.part(attacker.target)
    clips, preset = bench.clips(bench.raw), bench.preset
    found = []
    for _ in range(2):
        with step("learn from synthetic clips and name others"), TemporaryDirectory(prefix="bench-") as name:
            attacker.fit(clips, part, preset, Path(name), seed=0)
            found.append(attacker.scores(clips, part.test, part, preset, Path(name)))
            half = attacker.scores(clips, part.test[::2], part, preset, Path(name))
        close(attacker.foreign)
    report.add("contract", [] if np.isfinite(found[0]).all() else [("some scores are not finite", "return probabilities")])
    same = np.array_equal(found[0], found[1])
    report.add(
        "determinism", [] if same else [("another process learns something else", "draw from generators made of seed only")]
    )
    apart = np.allclose(found[0][::2], half, atol=1e-5)
    remedy = "name each clip by itself"
    report.add("batch independence", [] if apart else [("scores depend on the other clips that are asked about", remedy)])


def _noted(foreign: Foreign) -> list[tuple[str, str]]:
    """Forbidden acts that the worker noticed."""
    return [(line, _FORBIDDEN.get(line.partition(":")[0], "take it out")) for line in noted(foreign)]


def _release(value: ForeignAnonymizer, state: Mapping[str, Tensor], clips: ClipSet, batch_size: int = 64) -> Tensor:
    return anonymize(value, state, clips, seed=0, draw="holder/0", batch_size=batch_size)


def _differ(one: Tensor, other: Tensor) -> bool:
    return not torch.equal(one, other)


@contextlib.contextmanager
def _own_session(value: ForeignAnonymizer) -> Iterator[ForeignAnonymizer]:
    """The same method, and an end to its worker afterwards: another one than that of the evaluation."""
    try:
        yield value
    finally:
        close(value.foreign)


def _same(spec: SubmittedSpec, state: Mapping[str, Tensor], lab: _Lab, first: Tensor) -> list[tuple[str, str]]:
    """Again in the same process, many times, and in a fresh one."""
    for _ in range(_REPEATS):
        if _differ(first, _release(spec.value, state, lab.clips)):
            return [("the same clips come out otherwise the next time", "draw from batch.generators() or batch.per_frame() only")]
    close(spec.value.foreign)
    if _differ(first, _release(spec.value, state, lab.clips)):
        return [("another process releases other clips", "draw from batch.generators() only, and keep nothing between calls")]
    if spec.value.learns:
        again = spec.value.fit(lab.examples()).state
        if any(name not in again or not torch.equal(tensor, again[name]) for name, tensor in state.items()):
            return [("fit learns something else the next time", "draw from examples.generator() only")]
    return []


def _alone(value: ForeignAnonymizer, state: Mapping[str, Tensor], lab: _Lab, first: Tensor) -> list[tuple[str, str]]:
    """Each clip by itself, and all in another order with others beside them."""
    clips = lab.clips
    remedy = "treat each clip by itself: no statistics over the batch, no padding that counts"
    for size in (1, 3):
        if _differ(first, _release(value, state, clips, size)):
            return [(f"clips come out otherwise in batches of {size} than in one of {len(clips)}", remedy)]
    order = np.arange(len(clips))[::-1].copy()
    turned = _release(value, state, clips.subset(order))
    if _differ(first, turned):  # rows lie at the same places: the subset shares them
        return [("clips come out otherwise in another order", remedy)]
    return []


def _parameters(
    submission: Submission, spec: SubmittedSpec, lab: _Lab, state: Mapping[str, Tensor], first: Tensor
) -> list[tuple[str, str]]:
    """Every declared parameter changes the release."""
    stated = declared(spec.value.foreign)
    problems = []
    for one in stated.parameters:
        value = stated.values.get(one.name)
        other = _other_value(one, value)
        if other is None:
            continue
        run = spec.value.foreign
        changed = replace(spec.value, foreign=submission.foreign(run.level, run.limits, changed={one.name: other}))
        with _own_session(changed) as method:
            learnt = method.fit(lab.examples()).state if method.learns else state
            if not _differ(first, _release(method, learnt, lab.clips)):
                what = f"{one.name}={other} releases the same clips as {one.name}={value}"
                problems.append((what, "remove the parameter, or use it"))
    return problems


def _other_value(parameter: DeclaredParameter, value: Any) -> Any:
    """Another allowed value of a parameter; None if there is none that can be guessed."""
    if parameter.choices:
        return next((choice for choice in parameter.choices if choice != value), None)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        low, high = parameter.minimum, parameter.maximum
        tries = [value * 2 if value else 1, value + 1, value / 2, low, high]
        kept = [type(value)(one) for one in tries if one is not None and math.isfinite(one)]
        inside = [v for v in kept if (low is None or v >= low) and (high is None or v <= high) and v != value]
        return inside[0] if inside else None
    return None


def _hidden(spec: SubmittedSpec, state: Mapping[str, Tensor], results: Path) -> list[tuple[str, str]]:
    """Whether the bits that rounding takes away name the person."""
    store = open_or_prepare(parse_spec(_CROWD, DATASETS), results)
    exact = replace(spec.value, rounds=False)
    return _told_by_digits(_release(exact, state, ClipSet.from_store(store)), store)


def _hidden_in_weights(spec: SubmittedSpec, results: Path) -> list[tuple[str, str]]:
    """The same for a known method; one of another layout cannot be tried on these people, and is rounded as well."""
    loaded = FittedAnonymizer.load(Path(spec.value.folder))
    if loaded.layout != open_or_prepare(parse_spec(_CROWD, DATASETS), results).layout.name:
        return []
    try:
        return _hidden(spec, loaded.state, results)
    except (KeyError, IndexError, RuntimeError) as error:  # of a known method on tensors that are not what it learns
        raise UserError(f"{loaded.spec} cannot use these weights ({type(error).__name__}: {error})") from error


def _hidden_in_clips(submission: Submission, results: Path) -> list[tuple[str, str]]:
    """The same for clips, with the names of the people whom they are to hide."""
    source = open_or_prepare(parse_spec(submission.manifest.dataset, DATASETS), results)
    sent = ClipStore.open(submission.folder / submission.manifest.data.folder)
    places = {name: i for i, name in enumerate(sent.labels["clip"])}
    order = [places[name] for name in source.labels["clip"]]  # rows of the clips, in the order of the source's
    rows = np.concatenate([sent.rows[first : first + frames * bodies] for first, frames, bodies in sent.index[order]])
    return _told_by_digits(torch.from_numpy(rows), source)


def _told_by_digits(rows: Tensor, store: ClipStore) -> list[tuple[str, str]]:
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


def _clips_fit(submission: Submission, results: Path) -> list[tuple[str, str]]:
    manifest = submission.manifest
    data = parse_spec(manifest.dataset, DATASETS)
    try:
        source = open_or_prepare(data, results)
        problems = check_clips(submission.folder / manifest.data.folder, source)
    except UserError as error:
        problems = [str(error)]
    return [(problem, f"make them with `bench anonymize --dataset {manifest.dataset} --format store`") for problem in problems]


def _scores_fit(submission: Submission, results: Path) -> list[tuple[str, str]]:
    manifest = submission.manifest
    data = parse_spec(manifest.dataset, DATASETS)
    try:
        found = read_scores(submission.folder / manifest.scores.file)
        store = open_or_prepare(data, results)
        part = instantiate(choose_protocol(data, manifest.protocol or None), manifest.scores.target, store.labels, str(data))
        pick_scores(found, store.labels["clip"].to_numpy()[part.test], part.classes)
    except UserError as error:
        remedy = "write it with numpy.savez(file, clip=..., classes=..., scores=...), for every test clip and class of the target"
        return [(str(error), remedy)]
    return []


def _smoke(submission: Submission, spec: SubmittedSpec, results: Path, report: Report) -> list[tuple[str, str]]:
    """A tiny evaluation from end to end, in a results folder of its own: what it measures is for no board."""
    from bench.devices import choose_devices
    from bench.executors import Where
    from bench.runner import run_plans
    from bench.summary import measure_all

    anonymizer, results = submission.makes == "anonymizer", results / "checks"
    plan = make_plan(
        dataset=submission.manifest.dataset if submission.manifest.data else SMOKE_DATA,
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
