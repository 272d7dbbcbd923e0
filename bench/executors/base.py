"""What an executor is given, and what every worker does, wherever it is."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

import torch

from bench.data.store import ClipStore
from bench.execution import make_deterministic
from bench.executors.limits import Limits, mind_memory
from bench.jobs import Job, Unit
from bench.pipeline import Bench
from bench.presets import Preset
from bench.protocols import Protocol
from bench.records import make_record
from bench.stages import StageStore
from bench.status import Reporter
from bench.threads import limit_threads
from bench.time_limit import limited
from bench.workshop import Step


@dataclass(frozen=True)
class Task:
    """A piece of work.

    Args:
        key: Equal for equal work.
        bench: Which bench of the recipe it is for.
        work: A stage, or a job whose stages are all there and whose record is to be written.
    """

    key: str
    bench: int
    work: Unit | Job


@dataclass(frozen=True)
class Done:
    """How a task ended.

    Args:
        task: The task.
        error: What went wrong, in one line; "" if nothing did.
        trace: Where it went wrong, for the author of a plugin.
        said: A line for each step that was taken.
    """

    task: Task
    error: str = ""
    trace: str = ""
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """All that a worker needs to know; it travels to other processes and machines.

    Args:
        benches: Data, protocol and preset of each bench.
        results: Folder for stages, records and status, the same for all workers.
        run: Name of the run.
    """

    benches: tuple[tuple[ClipStore, Protocol, Preset], ...]
    results: Path
    run: str

    def bench(self, number: int, stages: type[StageStore], device: torch.device, step: Step) -> Bench:
        """One of the benches."""
        store, protocol, preset = self.benches[number]
        return Bench(store, protocol, preset, stages(self.results / "stages"), device, step)


def in_words(error: BaseException) -> str:
    """Kind of an error and what it says, if it can say anything."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # of a plugin's own kind
        return f"{type(error).__name__}: it cannot say what went wrong"


class Executor(Interface):
    """Does tasks. `slots` of them at a time, in any order."""

    slots: int

    def submit(self, task: Task) -> None:
        """Starts a task; there must be a free slot."""

    def wait(self) -> Done:
        """The next task that ended; blocks until one does."""

    def close(self) -> None:
        """Ends all workers, whatever they are at."""


class Worker:
    """Does one task after the other on one device.

    Args:
        recipe: What it needs to know.
        device: Where it computes.
        threads: Threads of torch on the CPU.
        limits: What a task may use before the process is ended; None in a process that must not be.
    """

    def __init__(self, recipe: Recipe, device: torch.device, threads: int = 1, limits: Limits | None = None):
        limit_threads(threads)
        make_deterministic(device)
        self._seconds = limits.seconds if limits else None
        if limits and limits.memory_mb is not None:
            mind_memory(limits.memory_mb)
        self._recipe, self._device = recipe, device
        self._reporter = Reporter(recipe.results / "status", recipe.run)
        self._benches: dict[int, Bench] = {}

    def do(self, task: Task) -> Done:
        """Does a task; what goes wrong in it is told, not raised, but for Ctrl-C."""
        error = trace = ""
        try:
            with limited(self._seconds):
                self._do(task)
        except (Exception, SystemExit) as problem:  # whatever a plugin raises must not cost the other pairs
            error, trace = in_words(problem), traceback.format_exc()
        finally:
            self._reporter.close()
        said, self._reporter.finished = tuple(self._reporter.finished), []
        return Done(task, error, trace, said)

    def _do(self, task: Task) -> None:
        if task.bench not in self._benches:
            self._benches[task.bench] = self._recipe.bench(task.bench, StageStore, self._device, self._reporter.step)
        bench = self._benches[task.bench]
        if isinstance(task.work, Unit):
            getattr(bench, task.work.method)(*task.work.arguments)
        else:
            make_record(self._recipe.results / "records", bench, task.work)
