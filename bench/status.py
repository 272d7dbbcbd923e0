"""What runs right now, told through small files, so that another terminal, or another machine on the same disk, sees it.

Below `status/` of the results folder a run keeps `RUN.json` and each of its workers `RUN.HOST-PID.json`. Both are removed when
their process ends; those of a process that was killed are removed by the next reader on its machine.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch

from bench.files import read_json, write_json
from bench.training import Progress

_SILENCE = 24 * 3600  # seconds after which a process of another machine is taken for dead
_EVERY = 0.5  # seconds between two reports that are written
_CLOCK = 1.0  # seconds by which two readings of the system's clocks may differ


@dataclass(frozen=True)
class Status:
    """A sign of life of one process.

    Args:
        run: The run that it belongs to; a run's own status has this as its name.
        host, pid: Where it runs.
        text: What it does: a stage, or of a run the command.
        done, total: How far that is: epochs or clips, or of a run the pairs that were missing, failed ones among those that are
            done; total 0 if unknown.
        note: One line more, such as the loss.
        started, updated: When that began, and when this was written (seconds since the epoch).
        memory_mb: Memory of its own (resident, without shared pages).
        gpu_memory_mb: Memory that it holds of GPUs.
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
    gpu_memory_mb: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether the process is there, as far as can be known from here; of another machine, whether it was heard of today."""
        if self.host != socket.gethostname():
            return time.time() - self.updated < _SILENCE
        try:
            process = psutil.Process(self.pid)
            born, ended = process.create_time(), process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        return not ended and born < self.updated + _CLOCK  # one that began later has got the number of one that ended

    @property
    def memory(self) -> str:
        """What it holds: "1.2 GB", or "1.2 GB + 3.4 GB GPU"."""
        gpu = f" + {self.gpu_memory_mb / 1000:.1f} GB GPU" if self.gpu_memory_mb else ""
        return f"{self.memory_mb / 1000:.1f} GB{gpu}"

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
        self._written = -_EVERY
        self._latest: tuple[str, float, int, int, str] | None = None  # what is to be told at the next opportunity
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        self.finished: list[str] = []  # one line for each step that ended well, until somebody takes them

    def write(self, text: str, started: float, done: int, total: int, note: str = "", *, now: bool = False) -> None:
        """Tells what is going on: the latest of it, but not more than twice a second unless `now`."""
        with self._lock:
            self._latest = text, started, done, total, note
            wait = self._written + _EVERY - time.monotonic()
            if now or wait <= 0:
                self._tell()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._tell)
                self._timer.daemon = True
                self._timer.start()

    def _tell(self) -> None:
        """Writes the latest that there is to tell, if it was not written yet."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._latest is None:
                return
            text, started, done, total, note = self._latest
            self._latest = None
            memory = self._process.memory_info()
            own = (memory.rss - getattr(memory, "shared", 0)) / 1e6
            held = round(_gpu_memory_mb(), 1)
            status = Status(self._run, self._host, self._pid, text, done, total, note, started, time.time(), round(own, 1), held)
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
        with self._lock:
            self._latest = None
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def _gpu_memory_mb() -> float:
    """Memory that torch holds for this process, on all its GPUs together."""
    if not torch.cuda.is_initialized():
        return 0.0
    return sum(torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count())) / 1e6


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
