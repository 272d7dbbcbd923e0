"""In processes of this machine: a plugin that hangs, or takes its process with it, costs its own task and no other."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace

import torch
from pebble import ProcessExpired, ProcessPool

from bench import time_limit
from bench.executors.base import Done, Recipe, Task, Worker
from bench.executors.limits import OUT_OF_MEMORY, Limits, fair_share_mb


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
        self._shared = limits.memory_mb is None
        self._limits = replace(limits, memory_mb=fair_share_mb(self.slots)) if self._shared else limits
        context = multiprocessing.get_context("spawn")
        self._free = [
            ProcessPool(1, context=context, initializer=_start, initargs=(recipe, device, threads, self._limits))
            for device in devices
        ][::-1]
        self._pools = list(self._free)
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()

    def submit(self, task: Task) -> None:
        pool = self._free.pop()
        future = pool.submit(_do, None, task)  # it minds its time itself
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
        except ProcessExpired as expired:
            if expired.exitcode == -time_limit.ENDED_BY:
                return Done(task, self._limits.too_long)
            if expired.exitcode == OUT_OF_MEMORY:
                more = ", its share of what was free: fewer --workers have more each" if self._shared else ""
                return Done(
                    task, f"MemoryError: its process used more than {self._limits.memory_mb:.0f} MB (--memory-limit){more}"
                )
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


def _start(recipe: Recipe, device: torch.device, threads: int, limits: Limits) -> None:
    """Sets up a worker: it ends with its parent, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _worker
    _worker = Worker(recipe, device, threads, limits)


def _do(task: Task) -> Done:
    return _worker.do(task)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
