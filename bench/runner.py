"""A whole grid: plans the jobs, evaluates each, keeps going when one fails, and collects what was measured."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from bench.data.prepare import open_or_prepare
from bench.data.store import ClipStore
from bench.executors import WorkerDiedError, train_all, use_one_thread, worker_count
from bench.files import UserError
from bench.jobs import Job, Training
from bench.pipeline import Bench, Step, attacker_backbone
from bench.presets import Preset
from bench.progress import Display
from bench.protocols import ACTION, LINKAGE, SUBJECT, Protocol, ProtocolError, fold_of, instantiate
from bench.records import Record, read_record, record_path, write_record
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS
from bench.specs import Spec, SpecError, parse_spec, parse_specs
from bench.stages import StageStore
from bench.summary import CONTROLS, NUISANCE, SHUFFLED
from bench.threat import RANKING, THREATS, parse_threats

DEFAULT_ATTACKERS = "shiftgcn-reid,bones-lda,bones-lda:target=gender"


@dataclass(frozen=True)
class Plan:
    """A grid that is known to be possible.

    Args:
        jobs: What to evaluate, in order.
        left_out: Attackers of `all`, or of the default ones, that this data set has no labels for, with the reason.
    """

    store: ClipStore
    protocol: Protocol
    preset: Preset
    jobs: tuple[Job, ...]
    left_out: tuple[str, ...]


@dataclass
class Result:
    """What a run did.

    Args:
        records: One for each job that ended well, in the order of the jobs.
        computed: How many of them were not there before.
        failed: For each job that failed, its names and what went wrong.
    """

    records: list[Record] = field(default_factory=list)
    computed: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def extend(self, other: "Result") -> None:
        """Takes over what another run did."""
        self.records += other.records
        self.computed += other.computed
        self.failed += other.failed


def make_plan(
    *,
    dataset: str,
    protocol: str | None,
    siblings: Sequence[str | None] = (),
    anonymizers: str,
    attackers: str | None,
    threats: str,
    preset: Preset,
    seeds: int,
    results: Path,
    controls: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Parses and checks everything that a user may have got wrong, before anything is computed.

    Args:
        siblings: Other protocols whose results will be pooled with this one's: an attacker must be possible under all of them.
        attackers: Comma list or `all`; None for the default ones. Of the latter two, those that the data set cannot support are
            left out; one that was named is an error.
        controls: Whether `identity` and `null` are added if they were not named.

    Raises:
        UserError: with one line that says what is wrong and what would be right.
    """
    data = parse_spec(dataset, DATASETS)
    methods = parse_specs(anonymizers, ANONYMIZERS)
    panel = parse_specs(attackers or DEFAULT_ATTACKERS, ATTACKERS)
    if attackers and attackers.strip() == "all":
        panel = [attacker for attacker in panel if not attacker.value.control]  # controls are not for every anonymizer
    for attacker in panel:
        _check_backbone(attacker)
    levels = parse_threats(threats)
    if seeds < 1:
        raise UserError(f"seeds must be at least 1, got {seeds}")
    chosen = choose_protocol(data, protocol)
    store = open_or_prepare(data, results, progress)
    instantiate(chosen, ACTION, store.labels, str(data))
    usable, left_out = [], []
    for attacker in panel:
        try:
            for one in (chosen, *(choose_protocol(data, name) for name in siblings)):
                instantiate(one, attacker.value.target, store.labels, str(data))
            usable.append(attacker)
        except ProtocolError as error:
            if attackers and attackers.strip() != "all":
                raise ProtocolError(f"attacker {attacker}: {error}") from error
            left_out.append(f"{attacker}: {error}")
    if not usable:
        raise ProtocolError(f"no attacker fits {data}: {'; '.join(left_out)}")
    if controls:
        named = {method.plugin.name for method in methods}
        methods = [*(parse_spec(name, ANONYMIZERS) for name in CONTROLS if name not in named), *methods]
    jobs = [
        Job(method, attacker, level, seed)
        for seed in range(seeds)
        for method in methods
        for attacker in usable
        for level in levels
    ]
    if controls:
        jobs += [job for job in _control_jobs(methods, usable, seeds) if job not in jobs]
    return Plan(store, chosen, preset, tuple(jobs), tuple(left_out))


def _control_jobs(methods: Sequence[Spec], attackers: Sequence[Spec], seeds: int) -> list[Job]:
    """What is known of every target without looking at the body, and without learning; on raw clips, which is enough."""
    identity = next(method for method in methods if method.plugin.name == CONTROLS[0])
    targets = dict.fromkeys(attacker.value.target for attacker in attackers if attacker.value.target != LINKAGE)
    controls = [parse_spec(f"{name}:target={target}", ATTACKERS) for target in targets for name in (NUISANCE, SHUFFLED)]
    return [Job(identity, control, THREATS[RANKING], seed) for seed in range(seeds) for control in controls]


def _check_backbone(attacker: Spec) -> None:
    """Finds a neural attacker's network now rather than when it is needed."""
    try:
        attacker_backbone(attacker)
    except (LookupError, ImportError) as error:
        raise SpecError(f"attacker {attacker}: {error}") from error


def choose_protocol(dataset: Spec, name: str | None) -> Protocol:
    """A data set's protocol by its name, with or without its version; the first one by default.

    Raises:
        UserError: if the data set has no such protocol.
    """
    protocols = dataset.value.protocols
    default = next(iter(protocols.values()))
    if name is None:
        return default
    if fold := fold_of(name):
        return default.fold(*fold)
    for protocol in protocols.values():
        if name in (protocol.name, protocol.name.partition("/")[0]):
            return protocol
    raise UserError(
        f"{dataset.plugin.name} has no protocol {name!r}; it has {', '.join(p.name for p in protocols.values())}, folds over "
        "people (5-fold, or one of them, 5-fold-2) and loso"
    )


def protocol_names(dataset: str, name: str | None, results: Path) -> list[str | None]:
    """The protocols that a name stands for: all folds for "5-fold", one fold a person for "loso", else itself.

    Raises:
        UserError: if the data set is not there, or has fewer people than folds.
    """
    folds = re.fullmatch(r"(\d+)-fold|loso", name or "")
    if folds is None:
        return [name]
    people = open_or_prepare(parse_spec(dataset, DATASETS), results).labels[SUBJECT].nunique()
    count = int(folds[1] or people)
    if not 2 <= count <= people:
        raise UserError(f"{name}: {dataset} has {people} people; it takes two folds, and a person in each")
    return [f"{count}-fold-{number}" for number in range(1, count + 1)]


def make_bench(step: Step, *, plan: Plan, results: Path, device: torch.device) -> Bench:
    """The bench of a plan; for workers, a partial of this function is what travels."""
    return Bench(plan.store, plan.protocol, plan.preset, StageStore(results / "stages"), device, step)


def run_plan(plan: Plan, results: Path, device: torch.device, workers: int | None = None) -> Result:
    """Evaluates every job of a plan; a job that fails does not stop the others.

    Args:
        plan: What to do.
        results: Folder for stages and records.
        device: Where to compute.
        workers: Processes to train in; by default one a core on a CPU, one on a GPU.
    """
    result = Result()
    use_one_thread(device)
    with Display(len(plan.jobs)) as display:
        for line in plan.left_out:
            display.say(f"left out: {line}")
        bench = make_bench(display.step, plan=plan, results=results, device=device)
        missing = [job for job in plan.jobs if read_record(record_path(results / "records", bench, job)) is None]
        trainings = _trainings(bench, missing)
        count = worker_count(device, workers, len(trainings))
        if count > 1:
            try:
                train_all(partial(make_bench, plan=plan, results=results, device=device), trainings, count, display)
            except WorkerDiedError as error:
                display.say(f"{error}; going on in one process")
        for job in plan.jobs:
            path = record_path(results / "records", bench, job)
            try:
                record = read_record(path)
                if record is None:
                    record = write_record(path, bench, job, bench.evaluate(job))
                    result.computed += 1
                    display.pair_done(str(job))
                else:
                    display.pair_done(f"{job} (already there)")
                result.records.append(record)
            except Exception as error:  # whatever a plugin raises must not cost the other pairs
                result.failed.append(_failure(job, error))
                display.pair_done(f"{job} FAILED: {result.failed[-1]['error']}")
    return result


def _trainings(bench: Bench, jobs: Sequence[Job]) -> list[Training]:
    """The distinct models that jobs rest on and that are not there yet; a job that fails here reports it when its turn comes."""
    found: dict[tuple, Training] = {}
    for job in jobs:
        with contextlib.suppress(Exception):
            for training in (*bench.attack_trainings(job), *bench.utility_trainings(job)):
                for needed in (training.start, training):
                    if needed and not bench.is_trained(needed):
                        found[needed.key] = needed
    return sorted(found.values(), key=lambda training: training.start is not None)  # a worker should not have to wait for another


def _failure(job: Job, error: Exception) -> dict[str, str]:
    return {
        "anonymizer": str(job.anonymizer),
        "attacker": str(job.attacker),
        "threat": job.threat.name,
        "seed": str(job.seed),
        "error": f"{type(error).__name__}: {error}",
    }
