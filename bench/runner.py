"""A whole grid: plans the jobs, evaluates each, keeps going when one fails, and collects what was measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.data.prepare import open_or_prepare
from bench.data.store import ClipStore
from bench.files import UserError
from bench.pipeline import Bench, Job
from bench.presets import Preset
from bench.progress import Display
from bench.protocols import ACTION, Protocol, ProtocolError, instantiate
from bench.records import Record, read_record, record_path, write_record
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS
from bench.specs import Spec, parse_spec, parse_specs
from bench.stages import StageStore
from bench.threat import parse_threats

DEFAULT_ATTACKERS = "shiftgcn-reid,bones-lda,bones-lda:target=gender"


@dataclass(frozen=True)
class Plan:
    """A grid that is known to be possible.

    Args:
        jobs: What to evaluate, in order.
        left_out: Attackers of `all`, or of the default ones, that this data set has no labels for, with the reason.
    """

    dataset: Spec
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
        stages: Names of the stages computed.
    """

    records: list[Record] = field(default_factory=list)
    computed: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)


def make_plan(
    *,
    dataset: str,
    protocol: str | None,
    anonymizers: str,
    attackers: str | None,
    threats: str,
    preset: Preset,
    seeds: int,
    results: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Parses and checks everything that a user may have got wrong, before anything is computed.

    Args:
        attackers: Comma list or `all`; None for the default ones. Of the latter two, those that the data set cannot support are
            left out; one that was named is an error.

    Raises:
        UserError: with one line that says what is wrong and what would be right.
    """
    data = parse_spec(dataset, DATASETS)
    methods = parse_specs(anonymizers, ANONYMIZERS)
    panel = parse_specs(attackers or DEFAULT_ATTACKERS, ATTACKERS)
    levels = parse_threats(threats)
    if seeds < 1:
        raise UserError(f"seeds must be at least 1, got {seeds}")
    chosen = choose_protocol(data, protocol)
    store = open_or_prepare(data, results, progress)
    instantiate(chosen, ACTION, store.labels, str(data))
    usable, left_out = [], []
    for attacker in panel:
        try:
            instantiate(chosen, attacker.value.target, store.labels, str(data))
            usable.append(attacker)
        except ProtocolError as error:
            if attackers and attackers.strip() != "all":
                raise ProtocolError(f"attacker {attacker}: {error}") from error
            left_out.append(f"{attacker}: {error}")
    jobs = tuple(
        Job(method, attacker, level, seed)
        for seed in range(seeds)
        for method in methods
        for attacker in usable
        for level in levels
    )
    return Plan(data, store, chosen, preset, jobs, tuple(left_out))


def choose_protocol(dataset: Spec, name: str | None) -> Protocol:
    """A data set's protocol by its name, with or without its version; the first one by default.

    Raises:
        UserError: if the data set has no such protocol.
    """
    protocols = dataset.value.protocols
    if name is None:
        return next(iter(protocols.values()))
    for protocol in protocols.values():
        if name in (protocol.name, protocol.name.partition("/")[0]):
            return protocol
    raise UserError(f"{dataset.plugin.name} has no protocol {name!r}; it has {', '.join(p.name for p in protocols.values())}")


def run_plan(plan: Plan, results: Path, device: torch.device) -> Result:
    """Evaluates every job of a plan; a job that fails does not stop the others."""
    result = Result()
    with Display(len(plan.jobs)) as display:
        for line in plan.left_out:
            display.say(f"left out: {line}")
        stages = StageStore(results / "stages")
        bench = Bench(plan.dataset, plan.store, plan.protocol, plan.preset, stages, device, display.step)
        for job in plan.jobs:
            path = record_path(results / "records", bench, job)
            try:
                record = read_record(path)
                if record is None:
                    started = time.perf_counter()
                    outcome = bench.evaluate(job)
                    record = write_record(path, bench, job, outcome, time.perf_counter() - started)
                    result.computed += 1
                    display.pair_done(str(job))
                else:
                    display.pair_done(f"{job} (already there)")
                result.records.append(record)
            except Exception as error:  # whatever a plugin raises must not cost the other pairs
                result.failed.append(_failure(job, error))
                display.pair_done(f"{job} FAILED: {result.failed[-1]['error']}")
    result.stages = stages.computed
    return result


def _failure(job: Job, error: Exception) -> dict[str, str]:
    return {
        "anonymizer": str(job.anonymizer),
        "attacker": str(job.attacker),
        "threat": job.threat.name,
        "seed": str(job.seed),
        "error": f"{type(error).__name__}: {error}",
    }
