"""Runs plans: finds which stages are missing, has them made in an order that lets others go on, and collects the records.

The graph of stages is not written down anywhere: each job is asked what it still lacks, by going through its steps with a store
that computes nothing. So whatever two jobs share is done once, also where that shows only in the content of a release.
"""

import heapq
import itertools
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.executors import Done, Recipe, Task, Where, make_executor
from bench.jobs import Job
from bench.occupied import at_work
from bench.plan import Plan
from bench.progress import Display
from bench.records import Record, read_record, record_path
from bench.stages import FinishedStages, MissingStageError
from bench.status import Reporter

_LOST = "RuntimeError: {} was made, but cannot be found: is the results folder the same for all workers?"


@dataclass
class Result:
    """What a run did.

    Args:
        records: One for each job that ended well, in the order of the jobs.
        computed: How many of them were not there before.
        failed: For each job that failed, its names and what went wrong.
        name: Name of the run.
        log: File with the traces of what failed; None if nothing did, or it could not be written.
    """

    records: list[Record] = field(default_factory=list)
    computed: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    log: Path | None = None
    name: str = ""


@dataclass
class _Pending:
    """A job whose record is not there yet.

    Args:
        place: Its place among the jobs of the run.
        bench: Number of its bench.
        path: Of its record; unknown of a job that cannot say what it is.
        lacks: Keys of the tasks that it waits for.
        error: Why there will be no record; "" as long as there may.
    """

    place: int
    bench: int
    job: Job
    path: Path = Path()
    lacks: set[str] = field(default_factory=set)
    error: str = ""


class Run:
    """One run of one or several plans.

    Args:
        plans: What to evaluate.
        results: Folder for stages and records.
        where: Where to compute.
    """

    def __init__(self, plans: Sequence[Plan], results: Path, where: Where):
        self.name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns() // 1_000_000:x}"
        self.results = results
        self._where = where
        benches = tuple((plan.store, plan.protocol, plan.preset) for plan in plans)
        self._recipe = Recipe(benches, results.resolve(), self.name)
        self._benches = [self._recipe.bench(i, FinishedStages, torch.device("cpu"), _silent) for i in range(len(plans))]
        self._left_out = [line for plan in plans for line in plan.left_out]
        self._jobs = [(i, job) for i, plan in enumerate(plans) for job in plan.jobs]
        self._found: dict[int, Record] = {}
        self._ready: list[tuple[int, int, Task]] = []  # a heap: what the first jobs need comes first, so pairs end one by one
        self._waiting: dict[str, list[_Pending]] = {}  # by the key of a task that is ready or running
        self._count = itertools.count()
        self._made: set[str] = set()
        self._broken: dict[str, str] = {}  # what went wrong, by the key of the task
        self._failed: list[_Pending] = []
        self._traces: dict[tuple[str, str], None] = {}  # an error and where it was raised, each pair once

    def run(self, command: str = "") -> Result:
        """Evaluates every job; one that fails does not stop the others.

        Args:
            command: What the user asked for, for `bench status`.
        """
        reporter = Reporter(self.results / "status", self.name, worker=False)
        started = time.time()
        with Display(len(self._jobs), self.results / "status", self.name) as display:
            for line in self._left_out:
                display.say(f"left out: {line}")
            pending = self._read_records(display)
            already = len(self._found)
            if already:
                display.pairs_done(already, f"{already} of {len(self._jobs)} pairs are there already")

            def tell(*, now: bool = True) -> None:
                failed = f"{len(self._failed)} of them failed" if self._failed else ""
                through = len(self._found) - already + len(self._failed)
                reporter.write(command, started, through, len(pending), failed, now=now)

            tell()
            try:
                if pending:
                    self._work(pending, display, tell)
            finally:
                reporter.close()
        return self._result(len(pending))

    def _read_records(self, display: Display) -> list[_Pending]:
        """Takes the records that are there; returns the jobs that have none, those that have failed already among them."""
        pending = []
        for place, (number, job) in enumerate(self._jobs):
            one = _Pending(place, number, job)
            try:
                one.path = record_path(self.results / "records", self._benches[number], job)
                record = read_record(one.path)
            except Exception as error:  # of a plugin that cannot say what it is
                record = None
                self._fail_by(one, error, display)
            if record is None:
                pending.append(one)
            else:
                self._found[place] = record
        return pending

    def _work(self, pending: Sequence[_Pending], display: Display, tell: Callable[..., None]) -> None:
        for one in pending:
            if not one.error:
                self._consider(one, display)
        tell(now=False)  # some may have failed
        executor = make_executor(self._where, self._recipe)
        try:
            running = 0
            while self._ready or running:
                while self._ready and running < executor.slots:
                    task = heapq.heappop(self._ready)[-1]
                    if all(one.error for one in self._waiting[task.key]):  # every pair that it was for has failed meanwhile
                        del self._waiting[task.key]
                        continue
                    executor.submit(task)
                    running += 1
                if not running:
                    break
                done = executor.wait()
                running -= 1
                self._take(done, display)
                tell(now=False)
        finally:
            executor.close()

    def _consider(self, one: _Pending, display: Display) -> None:
        """Finds out what a job still lacks, and orders it."""
        bench = self._benches[one.bench]
        try:
            bench.prepare(one.job)
            wanted = {one.path.stem: Task(one.path.stem, one.bench, one.job)}
        except MissingStageError as missing:
            wanted = {key: Task(key, one.bench, unit) for key, unit in missing.stages.items()}
        except Exception as error:  # whatever a plugin raises must not cost the other pairs
            self._fail_by(one, error, display)
            return
        if known := next((self._broken[key] for key in wanted if key in self._broken), ""):
            self._fail(one, known, display)
            return
        if lost := self._made & set(wanted):  # or it would be made again and again
            self._fail(one, _LOST.format(wanted[min(lost)].work), display)
            return
        one.lacks = set(wanted)
        for key, task in wanted.items():
            if key not in self._waiting:
                self._waiting[key] = []
                heapq.heappush(self._ready, (one.place, next(self._count), task))
            self._waiting[key].append(one)

    def _take(self, done: Done, display: Display) -> None:
        """Notes how a task ended, and lets those go on that waited for it."""
        for line in done.said:
            display.say(line)
        if done.trace:
            self._traces[done.error, done.trace] = None
        if done.error:
            self._broken[done.task.key] = done.error
        else:
            self._made.add(done.task.key)
        for one in self._waiting.pop(done.task.key):
            if one.error:
                continue  # another stage of this job has failed before
            if done.error:
                self._fail(one, done.error, display)
                continue
            one.lacks.discard(done.task.key)
            if isinstance(done.task.work, Job):
                record = read_record(one.path)
                if record is None:
                    self._fail(one, _LOST.format(f"the record {one.path.stem}"), display)
                else:
                    self._found[one.place] = record
                    display.pairs_done(1, str(one.job))
            elif not one.lacks:
                self._consider(one, display)

    def _fail_by(self, one: _Pending, error: Exception, display: Display) -> None:
        """Ends a job for what was just raised in this process."""
        told = f"{type(error).__name__}: {error}"
        self._traces[told, traceback.format_exc()] = None
        self._fail(one, told, display)

    def _fail(self, one: _Pending, error: str, display: Display) -> None:
        one.error = " ".join(error.split())  # in one line, whatever a plugin wrote
        self._failed.append(one)
        display.pairs_done(1, f"{one.job} FAILED: {one.error}")

    def _result(self, missing: int) -> Result:
        records = [self._found[place] for place in sorted(self._found)]
        failed = [_described(one) for one in sorted(self._failed, key=lambda one: one.place)]
        return Result(records, missing - len(failed), failed, self._write_traces(), self.name)

    def _write_traces(self) -> Path | None:
        """The traces of what failed, each once, for whoever mends a plugin."""
        if not self._traces:
            return None
        path = self.results / "failures" / f"{self.name}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(f"{error}\n{trace}" for error, trace in self._traces), encoding="utf-8")
        except OSError:  # a full disk: what failed is told all the same
            path.unlink(missing_ok=True)
            return None
        return path


def run_plans(plans: Sequence[Plan], results: Path, where: Where, command: str = "") -> Result:
    """Evaluates every job of some plans; a job that fails does not stop the others.

    Args:
        plans: What to do.
        results: Folder for stages and records.
        where: Where to compute.
        command: What the user asked for, for `bench status`.
    """
    with _ended_like_ctrl_c(), at_work(results):
        return Run(plans, results, where).run(command)


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Batch systems end a job with SIGTERM: it stops as for Ctrl-C, with its workers and its status."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _silent(text: str):
    raise AssertionError("a bench that only looks takes no step")


def _described(one: _Pending) -> dict[str, str]:
    job = one.job
    names = {"anonymizer": str(job.anonymizer), "attacker": str(job.attacker), "threat": job.threat.name, "seed": str(job.seed)}
    return {**names, "error": one.error}
