"""What one task may use, and how its process is ended when it uses more: a plugin that hangs or leaks costs its own pairs."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY = 0.5  # seconds between two looks at a worker's memory
OUT_OF_MEMORY = 113  # exit status of a worker that used more than it may
_SHARE = 0.9  # of the memory that is free when a run begins


@dataclass(frozen=True)
class Limits:
    """What one task may use.

    Args:
        seconds: Longest time, not counting what it waits for another run that makes the same stage; a training that is cut off
            goes on from its checkpoint when it is run again.
        memory_mb: Most memory of its process, shared pages not counted; None for an equal share of what is free (local executor),
            or for what Ray allows.
    """

    seconds: float = 24 * 3600.0
    memory_mb: float | None = None

    @property
    def too_long(self) -> str:
        """What is told of a task whose time was over."""
        return f"TimeoutError: it took longer than {self.seconds:g} s (--time-limit)"


def mind_memory(most_mb: float) -> None:
    """Watches this process from now on, and ends it with `OUT_OF_MEMORY` when it uses more."""

    def watch() -> None:
        process = psutil.Process()
        while True:
            memory = process.memory_info()
            if (memory.rss - getattr(memory, "shared", 0)) / 1e6 > most_mb:
                os._exit(OUT_OF_MEMORY)
            time.sleep(_EVERY)

    threading.Thread(target=watch, daemon=True).start()


def fair_share_mb(slots: int) -> float:
    """What each of several workers may use, so that the system need not end one by its own choice, perhaps the run itself."""
    return _SHARE * _free_bytes() / slots / 1e6


def _free_bytes(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Memory that is free on this machine, or to the control groups (v2) of a container or batch job that this process is in."""
    free = float(psutil.virtual_memory().available)
    if not own.is_file():
        return free
    inner = own.read_text().strip().rpartition("::")[2].lstrip("/")
    for group in (groups / inner, *(groups / inner).parents):
        if group.is_relative_to(groups) and (group / "memory.max").is_file():
            most = (group / "memory.max").read_text().strip()
            used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["anon"]
            if most != "max":
                free = min(free, float(most) - float(used))
    return max(free, 0.0)
