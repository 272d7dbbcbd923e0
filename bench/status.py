"""What runs right now, told through small files, so that another terminal, or another machine on the same disk, sees it.

Below `status/` of the results folder a run keeps `RUN.json` and each of its workers `RUN.HOST-PID.json`. Both are removed when
their process ends; those of a process that was killed are removed by the next reader on its machine.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.files import read_json, write_json
from bench.training import Progress

_SILENCE = 24 * 3600  # seconds after which a process of another machine is taken for dead
_EVERY = 0.5  # seconds between two reports that are written


@dataclass(frozen=True)
class Status:
    """A sign of life of one process.

    Args:
        run: The run that it belongs to; a run's own status has this as its name.
        host, pid: Where it runs.
        text: What it does: a stage, or of a run the command.
        done, total: How far that is: epochs or clips, or of a run the pairs that were missing; total 0 if unknown.
        note: One line more, such as the loss.
        started, updated: When that began, and when this was written (seconds since the epoch).
        memory_mb: Memory of its own (resident, without shared pages).
    """

    run: str
    host: str
    pid: int
    text: str
    done: int
    total: int
    note: str
    started: float
    updated: float
    memory_mb: float

    @property
    def alive(self) -> bool:
        """Whether the process is there, as far as can be known from here; of another machine, whether it was heard of today."""
        if self.host == socket.gethostname():
            return psutil.pid_exists(self.pid)
        return time.time() - self.updated < _SILENCE

    @property
    def left(self) -> float | None:
        """Seconds until it is done at its mean pace; None if that cannot be known yet."""
        if not self.done or not self.total:
            return None
        return (self.updated - self.started) / self.done * (self.total - self.done)


class Reporter:
    """Writes one process' status.

    Args:
        folder: `status/` of the results folder.
        run: Name of the run.
        worker: Whether this is one of its workers, rather than the run itself.
    """

    def __init__(self, folder: Path, run: str, *, worker: bool = True):
        self._host, self._pid, self._run = socket.gethostname(), os.getpid(), run
        self._path = folder / (f"{run}.{self._host}-{self._pid}.json" if worker else f"{run}.json")
        self._process = psutil.Process()
        self._written = 0.0
        self.finished: list[str] = []  # one line for each step that ended well, until somebody takes them

    def write(self, text: str, started: float, done: int, total: int, note: str = "", *, now: bool = False) -> None:
        """Tells what is going on, but not more than twice a second unless `now`."""
        if not now and time.monotonic() - self._written < _EVERY:
            return
        memory = self._process.memory_info()
        own = (memory.rss - getattr(memory, "shared", 0)) / 1e6
        status = Status(self._run, self._host, self._pid, text, done, total, note, started, time.time(), round(own, 1))
        with contextlib.suppress(OSError):  # a full disk must not end the work itself
            write_json(self._path, asdict(status), lasting=False)
        self._written = time.monotonic()

    @contextmanager
    def step(self, text: str) -> Iterator[Progress]:
        """One piece of work; yields the function that reports (done, total, note)."""
        started, begun, last = time.time(), time.perf_counter(), ""

        def report(done: int, total: int, note: str = "") -> None:
            nonlocal last
            last = note
            self.write(text, started, done, total, note)

        self.write(text, started, 0, 0, now=True)
        yield report
        self.finished.append(f"{text}: {time.perf_counter() - begun:.1f} s{f', {last}' if last else ''}")

    def close(self) -> None:
        """Nothing is going on any more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_status(folder: Path, run: str | None = None) -> tuple[dict[str, Status], list[Status]]:
    """The runs by name, and all workers, that are alive; the files of dead ones are removed.

    Args:
        folder: `status/` of a results folder.
        run: Only this run and its workers.
    """
    runs, workers = {}, []
    for path in sorted(folder.glob(f"{run}.*json" if run else "*.json")):
        try:
            status = Status(**read_json(path))
        except (OSError, ValueError, TypeError):  # it ended just now, or is no status
            continue
        if not status.alive:
            path.unlink(missing_ok=True)
        elif path.stem == status.run:
            runs[status.run] = status
        else:
            workers.append(status)
    return runs, workers
