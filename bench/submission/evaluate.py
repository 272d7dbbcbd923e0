"""`bench submit evaluate`: trains every attacker at every level on a submission, and says what became of its claims."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from bench.anonymizer import anonymize, secretly
from bench.executors import Where
from bench.files import UserError, digest
from bench.grid import Grid
from bench.jobs import Release
from bench.measured import Measured
from bench.pipeline import Bench
from bench.plan import Plan, choose_protocol, make_plan
from bench.presets import Preset, get_preset
from bench.protocols import ACTION, SUBJECT, anonymizer_part
from bench.records import Record, newest, records
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS
from bench.runner import Result, run_plans
from bench.specs import Spec, SpecError, parse_spec, parse_specs
from bench.stages import FinishedStages, MissingStageError
from bench.submission.check import Report, check
from bench.submission.faces import two_faced
from bench.submission.isolation import IsolationError, Limits
from bench.submission.manifest import Claim, Manifest, read_manifest
from bench.submission.session import ForeignError, close_all
from bench.submission.source import Submission, received, with_secret
from bench.submission.states import (
    CHECKED,
    EVALUATING,
    FLAGGED,
    LISTED,
    REJECTED,
    WITHDRAWN,
    Entry,
    entries,
    find,
    on_the_board,
    receive,
    refuse_takeover,
    submitted_as,
    supersede,
)
from bench.summary import FLAGS, measure_all, submitted
from bench.threat import RANKING, Learning, parse_threats


@dataclass(frozen=True)
class Budget:
    """How a submission is evaluated; nothing of it is the submission's to choose but data set, and seeds where it takes part.

    Args:
        dataset, protocol: Instead of the manifest's.
        preset: Budget of all trainings.
        attackers: Panel for an anonymizer: comma list or `all`.
        anonymizers: What an attacker is tried on; None for all that were measured before on the same data, or the usual ones.
        threats: Levels of knowledge.
        seeds: Number of seeds; None for those of the manifest, as many as others have.
        supersedes: Whether it may take the place of a listed submission of other authors, or of a higher version.
        trust: Whether code of other submissions may run below the level `namespace`, if it was evaluated so.
    """

    dataset: str | None = None
    protocol: str | None = None
    preset: str = "quick"
    attackers: str = "all"
    anonymizers: str | None = None
    threats: str = "all"
    seeds: int | None = None
    supersedes: bool = False
    trust: bool = False


@dataclass
class Evaluation:
    """What came of it.

    Args:
        entry: The submission's state.
        report: What the check found.
        result: What the run did; None if it was not begun.
        measured: Rows of the table.
        claims: Each claim with what was measured; None where it was not.
    """

    entry: Entry
    report: Report
    result: Result | None = None
    measured: list[Measured] = field(default_factory=list)
    claims: list[tuple[Claim, float | None]] = field(default_factory=list)
    digest: str = ""


_SPOTS = 12  # real clips that are released once more
_OF_CODE = ("ForeignError:", "ValueError:", "TimeoutError:")  # how failures of isolated code begin; others are the machine's
_OF_THE_MACHINE = ("OSError:", "PermissionError:", "MemoryError:", "OutOfMemoryError:", "ProcessExpired:", "CancelledError:")
_USUAL = "identity,null,gauss:std=0.05,mean-skeleton"


def evaluate(
    folder: Path, level: str | None, budget: Budget, results: Path, where: Where, step: Callable[[str], Any], command: str
) -> Evaluation:
    """Receives, checks and evaluates a submission.

    Args:
        level: Level of isolation for its code; None only for submissions without.

    Raises:
        UserError: if it cannot be received, or the budget is wrong.
    """
    results = results.resolve()
    _refuse(read_manifest(folder), budget)
    entry = receive(folder, results, supersedes=budget.supersedes)
    report = check(entry.files, level, results, step)
    if not report.good:
        why = "; ".join(f"{finding.name}: {finding.what}" for finding in report.findings if finding.grave)
        return Evaluation(entry.moved(REJECTED, why), report)
    entry = entry.moved(CHECKED) if entry.state not in (LISTED, FLAGGED, EVALUATING) else entry
    manifest = read_manifest(entry.files)
    submission = Submission(entry.files, manifest)
    try:
        spec = with_secret(submission.spec(level or "", Limits()), results)
    except (ForeignError, UserError, ValueError) as error:  # what was checked a moment ago may behave otherwise now
        return Evaluation(entry.moved(REJECTED, f"it cannot be loaded: {error}"), report)
    plan = _plan(submission, spec, budget, results)
    close_all()  # whatever was only loaded; it could go on working
    entry = entry.moved(EVALUATING)
    result = run_plans([plan], results, where, command)
    try:
        problem = _own_failure(plan, submission, result, results) or _spot_check(plan, submission, results)
    except (ForeignError, ValueError) as error:
        problem = f"a few clips, released by themselves, end in: {error}"
    finally:
        close_all()
    if not problem and not result.records:
        problem = f"nothing could be measured: {_told(result.failed[0])}"
    if problem:
        return Evaluation(entry.moved(REJECTED, problem), report, result)
    noted = ["two-faced"] if _two_faced(plan, submission, results) else []
    entry = entry.moved(EVALUATING, noted=sorted({*noted, *entry.data.get("noted", [])}))
    measured = measure_all(result.records, results)
    claims = [(claim, _measured_claim(claim, manifest, measured)) for claim in manifest.claims]
    flags = _flags(manifest, _beside_all_others(measured, result, results), claims)
    try:
        if not budget.supersedes:
            refuse_takeover(entry, results)  # others may have been listed in these hours
    except UserError as error:
        return Evaluation(entry.moved(REJECTED, str(error)), report, result, measured, claims)
    keys = {key for record in result.records for key in record.keys}
    known = {
        "isolation": level if manifest.runs_code else "no code",
        "hardware": {name: result.records[0].manifest()[name] for name in ("device", "platform")},
        "records": sorted({*entry.data.get("records", []), *keys}),
    }
    entry = entry.moved(FLAGGED if flags else LISTED, ", ".join(flags), **known)
    supersede(entry, results, newer=budget.supersedes)
    return Evaluation(entry, report, result, measured, claims, digest([entry.data["identity"], asdict(budget)]))


def _refuse(manifest: Manifest, budget: Budget) -> None:
    """Tells what is wrong with a command before the submission is received; what is wrong with a manifest, the check tells.

    Raises:
        UserError: if something is unknown, or does not go with what is submitted.
    """
    if manifest.scores and (budget.attackers, budget.anonymizers, budget.threats) != ("all", None, "all"):
        raise UserError(f"scores stand for a {RANKING} attacker of one release: leave out --attacker, --anonymizer, --threat")
    if manifest.kind == "attacker" and budget.attackers != "all":
        raise UserError("--attacker is the panel that an anonymizer meets; say with --anonymizer what an attacker is tried on")
    if manifest.kind != "attacker" and budget.anonymizers is not None:
        raise UserError("--anonymizer is what an attacker is tried on; say with --attacker what an anonymizer meets")
    get_preset(budget.preset)
    parse_threats(budget.threats)
    parse_specs(budget.attackers, ATTACKERS)
    parse_specs(budget.anonymizers or _USUAL, ANONYMIZERS)
    try:
        data = parse_spec(budget.dataset or manifest.dataset, DATASETS)
    except SpecError:
        if budget.dataset:
            raise
        return
    choose_protocol(data, budget.protocol)


def _plan(submission: Submission, spec: Spec, budget: Budget, results: Path) -> Plan:
    manifest, preset = submission.manifest, get_preset(budget.preset)
    dataset = budget.dataset or manifest.dataset
    shared = {
        "dataset": dataset,
        "protocol": budget.protocol or (manifest.protocol if dataset == manifest.dataset else "") or None,
        "threats": RANKING if manifest.scores else budget.threats,
        "preset": preset,
        "seeds": (0,) if manifest.scores else _seeds(manifest, dataset, preset, results, budget),
        "results": results,
    }
    if submission.makes == "anonymizer":
        methods = [*(parse_spec(name, ANONYMIZERS) for name in ("identity", "null")), spec]
        plan = make_plan(anonymizers=methods, attackers=budget.attackers, **shared)
        if budget.attackers == "all" and (strangers := _attackers_before(plan, results, budget)):
            more = make_plan(anonymizers=methods, attackers=strangers, controls=False, **shared)
            plan = replace(plan, jobs=plan.jobs + more.jobs)
        return _with_own_seeds(plan, spec)
    if manifest.scores:
        return make_plan(anonymizers=manifest.scores.anonymizer, attackers=[spec], controls=False, **shared)
    methods = budget.anonymizers or measured_before(dataset, preset.name, results, budget)
    plan = make_plan(anonymizers=methods, attackers=[spec], controls=not spec.value.control, **shared)
    return _with_own_seeds(plan, spec)


def _with_own_seeds(plan: Plan, spec: Spec) -> Plan:
    """The plan with its first seed 0 and so on wherever the submission takes no part.

    Controls and raw clips stand in one row with those of everybody else: who may choose their seeds could choose such by which a
    control fails, and so cost all others their ranks.
    """
    ours = {seed: number for number, seed in enumerate(dict.fromkeys(job.seed for job in plan.jobs))}
    jobs = (job if spec in (job.anonymizer, job.attacker) else replace(job, seed=ours[job.seed]) for job in plan.jobs)
    return replace(plan, jobs=tuple(jobs))


def _seeds(manifest: Manifest, dataset: str, preset: Preset, results: Path, budget: Budget) -> Sequence[int]:
    """The manifest's, as many as the preset has or raw clips were measured with before, and others if it has fewer.

    Their number is not the submission's to choose: methods that were measured with fewer seeds than raw clips have no rank. Nor
    that of any other submission: those of raw clips are counted that attackers of this package met.
    """
    if budget.seeds is not None:
        return range(budget.seeds)
    raw = (r for r in _records(dataset, preset.name, results) if r.data["names"]["anonymizer"] == "identity")
    before = {r.data["seed"] for r in raw if not submitted(r.data["attacker"])}
    others = (seed for seed in itertools.count() if seed not in manifest.seeds)
    return tuple(itertools.islice(itertools.chain(manifest.seeds, others), max(preset.seeds, len(before))))


def _records(dataset: str, preset: str, results: Path) -> list[Record]:
    """What was measured on a data set before."""
    found, _ = newest(records(results / "records"), on_the_board(results))
    return [r for r in found if r.data["dataset"] == dataset and r.data["preset"]["name"] == preset]


def measured_before(dataset: str, preset: str, results: Path, budget: Budget) -> str | list[Spec]:
    """The anonymizers that have records on a data set: whoever meets one of them as an attacker must meet all.

    Submitted ones come from what was received; a plugin that is no longer installed is left out.
    """
    here = _records(dataset, preset, results)
    names = dict.fromkeys((r.data["names"]["anonymizer"], submitted_as(r.data["anonymizer"])) for r in here)
    methods: list[Spec] = []
    for name, known_as in names:
        with suppress(SpecError):
            found = _received(known_as, results, budget) if known_as else parse_spec(name, ANONYMIZERS)
            methods += [found] if found else []
    return methods or _USUAL


def _attackers_before(plan: Plan, results: Path, budget: Budget) -> list[Spec]:
    """The submitted attackers that raw clips were measured with: a method that lacks one of them has no rank.

    One that asks for what this protocol cannot test is left out, whatever it declared before.
    """
    here = [
        r
        for r in _records(plan.store.meta["dataset"], plan.preset.name, results)
        if r.data["protocol"]["name"] == plan.protocol.name and not r.data["control"]
    ]
    known = dict.fromkeys(submitted_as(r.data["attacker"]) for r in here)
    found = [spec for spec in (_received(one, results, budget) for one in known if one) if spec]
    asked = {job.target for job in plan.jobs}
    return [spec for spec in found if spec.value.target in asked]


def _received(known_as: str, results: Path, budget: Budget) -> Spec | None:
    """What was submitted before, as it was evaluated; None if it is off the board, or cannot be loaded any more."""
    entry = next((entry for entry in entries(results) if entry.data["identity"] == known_as), None)
    if entry is None or not entry.shown:
        return None
    try:
        return received(entry, entry.data.get("isolation", ""), results, trust=budget.trust)  # the level of its records
    except IsolationError:
        raise
    except (ForeignError, UserError, ValueError):
        return None  # a method that cannot be run must not keep others from being measured


def _own_failure(plan: Plan, submission: Submission, result: Result, results: Path) -> str:
    """What the submission itself failed in; "" if every pair that failed did so by somebody else's code.

    A pair fails by its anonymizer if there is no release, unless that attacker fails on raw clips as well, and by its attacker
    if there is one.

    Raises:
        UserError: if one of its pairs failed by this machine, for want of room or of memory: that says nothing of it.
    """
    failing = {failed["attacker"] for failed in result.failed if failed["anonymizer"] == "identity"}
    stages = FinishedStages(results / "stages")
    bench = Bench(plan.store, plan.protocol, plan.preset, stages, torch.device("cpu"), nullcontext)
    jobs = {(str(job.anonymizer), str(job.attacker), job.threat.name, str(job.seed)): job for job in plan.jobs}
    for failed in result.failed:
        job = jobs[failed["anonymizer"], failed["attacker"], failed["threat"], failed["seed"]]
        provider = submission.manifest.provider
        if provider not in (job.anonymizer.plugin.provider, job.attacker.plugin.provider):
            continue
        runs_code = submission.manifest.runs_code
        if not failed["error"].startswith(_OF_CODE) if runs_code else failed["error"].startswith(_OF_THE_MACHINE):
            raise UserError(f"the evaluation came to no end ({_told(failed)}); the same command goes on from there")
        try:
            bench.releases(job)
            if job.threat.inverts or job.threat.learnings != (Learning.RAW,):
                bench.own_release(job)
            by = "attacker"
        except MissingStageError:
            by = "anonymizer"
        if by == "anonymizer" and failed["attacker"] in failing:
            continue  # a release for which nobody was left is not made
        if by == submission.makes:
            return f"evaluation failed: {_told(failed)}"
    return ""


def _told(failed: Mapping[str, str]) -> str:
    return f"{failed['anonymizer']} x {failed['attacker']}: {failed['error']}"


def _spot_check(plan: Plan, submission: Submission, results: Path) -> str:
    """Whether some real clips of all its releases, each made by itself in a fresh worker, are those that were evaluated.

    Code may tell synthetic clips from real ones, and behave while it is checked. Returns "" if they are.
    """
    if submission.makes == "attacker" or not submission.manifest.runs_code:
        return ""
    bench = _finished(plan, results)
    test = bench.part(ACTION).test
    some = bench.clips(bench.raw).subset(test[np.linspace(0, len(test) - 1, _SPOTS).round().astype(int)])
    for own, release in _own_releases(plan, submission, bench):
        evaluated = bench.clips(release)
        state = load_file(bench.fit(own.spec, own.seed).path / "state.safetensors")
        close_all()
        alone = anonymize(own.spec.value, state, some, seed=own.seed, draw=own.whole_draw, batch_size=1)
        for i in range(len(some)):
            first = int(some.first[i])
            rows = slice(first, first + int(some.lengths[i]) * int(some.bodies[i]))
            if not torch.equal(alone[rows], evaluated.rows[rows]):
                return f"clip {some.names[i]}, released by itself, is not the clip that was evaluated"
    return ""


def _two_faced(plan: Plan, submission: Submission, results: Path) -> bool:
    """Whether an anonymizer releases clips that it, or its authors, may have been fitted to otherwise than those tested."""
    if submission.makes == "attacker":
        return False
    bench = _finished(plan, results)
    known = np.zeros(len(bench.clip_names), dtype=bool)
    known[anonymizer_part(bench.parts)] = True
    raw, people = bench.clips(bench.raw), bench.labels[SUBJECT].to_numpy()
    releases = (bench.clips(release) for _, release in _own_releases(plan, submission, bench))
    return any(two_faced(raw, released, known, people) for released in releases)


def _finished(plan: Plan, results: Path) -> Bench:
    """Where the finished stages of a plan can be read."""
    stages = FinishedStages(results / "stages")
    return Bench(plan.store, plan.protocol, plan.preset, stages, torch.device("cpu"), nullcontext)


@dataclass(frozen=True)
class _Own:
    """A release that a submitted anonymizer made: its seed, its draw, and the submitted attacker that it was drawn for."""

    spec: Spec
    seed: int
    draw: str
    reader: Spec | None = None

    @property
    def whole_draw(self) -> str:
        return secretly(self.draw, self.reader.value.secret if self.reader else "")


def _own_releases(plan: Plan, submission: Submission, bench: Bench) -> list[tuple[_Own, Release]]:
    """All releases that the submitted anonymizer made, those from which attackers learn among them."""
    wanted: dict[tuple[int, str, str], _Own] = {}
    for job in plan.jobs:
        if job.anonymizer.plugin.provider == submission.manifest.provider:
            reader = job.attacker if job.attacker.value.secret else None
            own = [_Own(job.anonymizer, job.seed, f"holder/{draw}", reader) for draw in range(bench.draws(job))]
            own.append(_Own(job.anonymizer, job.seed, "attacker/0"))
            wanted |= {(one.seed, one.draw, str(one.reader)): one for one in own}
    found = []
    for own in wanted.values():
        with suppress(MissingStageError):  # of a pair that failed by somebody else's code
            found.append((own, bench.release(own.spec, own.seed, own.draw, *([own.reader] if own.reader else []))))
    return found


def _measured_claim(claim: Claim, manifest: Manifest, measured: Sequence[Measured]) -> float | None:
    """What was measured of what is claimed; None if it was not."""
    rows = [m for m in measured if m.first["dataset"] == claim.dataset]
    own = [m for m in rows if manifest.provider in (m.first["anonymizer"]["provider"], m.first["attacker"]["provider"])]
    if claim.metric == "utility_retention":
        return own[0].retention.value if own else None
    if claim.attacker:
        return next(
            (m.normalised.value for m in own if m.first["names"]["attacker"] == claim.attacker and m.first["threat"] == RANKING),
            None,
        )
    return next((p.leakage.value for p in Grid.of(rows).points if p.anonymizer == manifest.name), None)


def _beside_all_others(measured: Sequence[Measured], result: Result, results: Path) -> list[Measured]:
    """What was measured as the board will show it: in one table with all that was measured before."""
    first, shown = result.records[0].data, on_the_board(results)
    now = {code for record in result.records for code in _codes(record)}
    replaced = {which for which, *_ in now}
    before = (r for r in _records(first["dataset"], first["preset"]["name"], results) if shown(r.data))
    before = (r for r in before if all(code in now for code in _codes(r) if code[0] in replaced))  # not at another level
    everything = measure_all({r.path: r for r in (*before, *result.records)}.values(), results)
    return [m for m in everything if m.group in {own.group for own in measured}]


def _codes(record: Record) -> list[tuple[str, str | None, str | None]]:
    """Submissions that take part in a record, each with the level and the secret that it ran with."""
    stated = (record.data[side]["parameters"] for side in ("anonymizer", "attacker"))
    return [(of["submission"], of.get("isolation"), of.get("secret")) for of in stated if "submission" in of]


def _flags(manifest: Manifest, measured: Sequence[Measured], claims: Sequence[tuple[Claim, float | None]]) -> list[str]:
    """Why it is listed with flags: those that withhold its rank, and claims that were not reproduced."""
    attacks = [m for m in measured if m.first["attacker"]["provider"] == manifest.provider]
    flags = [flag for flag in ("weak-attacker", "unproven", "control-failed") if any(flag in m.flags for m in attacks)]
    for group in dict.fromkeys(m.group for m in measured):
        points = Grid.of([m for m in measured if m.group == group]).points
        flags += [flag for point in points if point.anonymizer == manifest.name for flag in point.withheld]
    if any(value is not None and abs(value - claim.value) > claim.tolerance for claim, value in claims):
        flags.append("claim-not-reproduced")
    return [flag for flag in dict.fromkeys(flags) if flag in (*FLAGS, "claim-not-reproduced")]


def needs_level(folder: Path) -> bool:
    """Whether a submission runs code.

    Raises:
        ManifestError: if its manifest does not hold.
    """
    return read_manifest(folder).runs_code


def withdraw(results: Path, name: str, why: str) -> Entry:
    """Takes the listed version of a submission off the board; the newest if none is listed.

    Raises:
        UserError: if there is none, or it is off already.
    """
    found = find(results, name)
    return next((entry for entry in reversed(found) if entry.shown), found[-1]).moved(WITHDRAWN, why)
