"""In processes of this machine: a plugin that hangs, or takes its process with it, costs its own task and no other."""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, TimeoutError
from dataclasses import dataclass

import psutil
import torch
from pebble import ProcessExpired, ProcessPool

from bench.executors.base import Done, Recipe, Task, Worker

_EVERY = 0.5  # seconds between two looks at a worker's memory
_OUT_OF_MEMORY = 113  # exit status of a worker that used more than it may


@dataclass(frozen=True)
class Limits:
    """What one task may use.

    Args:
        seconds: Longest time; a training that is cut off goes on from its checkpoint when it is run again.
        memory_mb: Most memory of its process, shared pages not counted; None for no limit.
    """

    seconds: float = 24 * 3600.0
    memory_mb: float | None = None


class LocalExecutor:
    """A process for each slot, started when it is first needed.

    Args:
        recipe: What the workers need.
        devices: Device of each slot.
        threads: Threads of torch in each.
        limits: What one task may use.
    """

    def __init__(self, recipe: Recipe, devices: Sequence[torch.device], threads: int, limits: Limits):
        self.slots = len(devices)
        self._limits = limits
        context = multiprocessing.get_context("spawn")
        how = (threads, limits.memory_mb)
        self._free = [
            ProcessPool(1, context=context, initializer=_start, initargs=(recipe, device, *how)) for device in devices
        ][::-1]
        self._pools = list(self._free)
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()

    def submit(self, task: Task) -> None:
        pool = self._free.pop()
        future = pool.submit(_do, self._limits.seconds, task)
        future.add_done_callback(lambda future: self._ended(pool, task, future))

    def wait(self) -> Done:
        return self._done.get()

    def close(self) -> None:
        for pool in self._pools:
            pool.stop()
        for pool in self._pools:
            pool.join()

    def _ended(self, pool: ProcessPool, task: Task, future: Future) -> None:
        self._free.append(pool)
        self._done.put(self._outcome(task, future))

    def _outcome(self, task: Task, future: Future) -> Done:
        try:
            return future.result()
        except TimeoutError:
            return Done(task, f"TimeoutError: it took longer than {self._limits.seconds:g} s (--time-limit)")
        except ProcessExpired as expired:
            if expired.exitcode == _OUT_OF_MEMORY:
                return Done(task, f"MemoryError: its process used more than {self._limits.memory_mb:g} MB (--memory-limit)")
            return Done(task, f"ProcessExpired: its process ended, {_ending(expired.exitcode)}")
        except CancelledError:
            return Done(task, "CancelledError: the run was stopped")
        except Exception as error:  # the answer could not be sent
            return Done(task, f"{type(error).__name__}: {error}")


def _ending(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (", perhaps for want of memory (fewer --workers need less)" if name == "SIGKILL" else "")
    return f"exit status {status}"


_worker: Worker


def _start(recipe: Recipe, device: torch.device, threads: int, memory_mb: float | None) -> None:
    """Sets up a worker: it ends with its parent, leaves Ctrl-C to it, and minds its memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if memory_mb is not None:
        threading.Thread(target=_mind_memory, args=(memory_mb,), daemon=True).start()
    global _worker
    _worker = Worker(recipe, device, threads)


def _do(task: Task) -> Done:
    return _worker.do(task)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _mind_memory(most_mb: float) -> None:
    process = psutil.Process()
    while True:
        memory = process.memory_info()
        if (memory.rss - getattr(memory, "shared", 0)) / 1e6 > most_mb:
            os._exit(_OUT_OF_MEMORY)
        time.sleep(_EVERY)
