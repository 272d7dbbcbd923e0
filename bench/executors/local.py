"""In processes of this machine: a plugin that hangs, or takes its process with it, costs its own task and no other."""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from typing import NoReturn

import torch
from pebble import ProcessExpired, ProcessPool

from bench import time_limit
from bench.executors.base import Done, Recipe, Task, Worker, in_words
from bench.executors.limits import OUT_OF_MEMORY, Limits, fair_share_mb


class _Slot:
    """One process at a time, started when it is first needed.

    Args:
        make: Makes the pool that holds it.

    Attributes:
        tasks: How many tasks this process has begun.
    """

    def __init__(self, make: Callable[[], ProcessPool]):
        self._make = make
        self._pool = make()
        self.tasks = 0

    def submit(self, task: Task) -> Future:
        """Starts a task, in a new process if the last one ended while it had nothing to do, for which pebble gives a pool up."""
        self.tasks += 1
        try:
            return self._pool.submit(_do, None, task)  # it minds its time itself
        except RuntimeError:
            self.stop()
            self.join()
            self._pool, self.tasks = self._make(), 1
            return self._pool.submit(_do, None, task)

    def stop(self) -> None:
        self._pool.stop()

    def join(self) -> None:
        self._pool.join()


class LocalExecutor:
    """A process for each slot.

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
        starts = [(recipe, device, threads, self._limits) for device in devices]
        self._all = [_Slot(partial(ProcessPool, 1, context=context, initializer=_start, initargs=start)) for start in starts]
        self._free = self._all[::-1]
        self._ended: queue.SimpleQueue[tuple[_Slot, Task, Future]] = queue.SimpleQueue()
        self._again: set[str] = set()  # keys of tasks that were begun a second time

    def submit(self, task: Task) -> None:
        self._begin(self._free.pop(), task)

    def wait(self) -> Done:
        while True:
            slot, task, future = self._ended.get()
            error, first = None if future.cancelled() else future.exception(), slot.tasks == 1
            if isinstance(error, ProcessExpired | BrokenProcessPool):
                slot.tasks = 0  # the next task gets a new process, as the first one there
            if task.key in self._again or not _is_anothers_fault(error, first=first):
                self._free.append(slot)
                return self._outcome(task, future)
            self._again.add(task.key)
            self._begin(slot, task)

    def close(self) -> None:
        for slot in self._all:  # all at once, and then their ends are waited for
            slot.stop()
        for slot in self._all:
            slot.join()

    def _begin(self, slot: _Slot, task: Task) -> None:
        slot.submit(task).add_done_callback(lambda future: self._ended.put((slot, task, future)))

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
        except BaseException as error:  # the answer could not be sent, or cannot be read
            return Done(task, in_words(error))


def _is_anothers_fault(error: BaseException | None, *, first: bool) -> bool:
    """Whether a process ended that had ended before this task, or that an earlier one may have left without memory."""
    if isinstance(error, ProcessExpired):
        return not first and error.exitcode in (OUT_OF_MEMORY, -signal.SIGKILL)
    return isinstance(error, BrokenProcessPool)


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
    _never_end_well()
    global _worker
    _worker = Worker(recipe, device, threads, limits)


def _do(task: Task) -> Done:
    try:
        return _worker.do(task)
    except BaseException as error:  # a plugin's own KeyboardInterrupt: that of the keyboard does not reach this process
        return Done(task, in_words(error), traceback.format_exc())


def _never_end_well() -> None:
    """A plugin that ends this process with status 0 ends it with 1: of a good end pebble thinks that nothing was asked of it."""
    end, own = os._exit, os.getpid()

    def ended(status: int) -> NoReturn:
        end(1 if status == 0 and os.getpid() == own else status)

    os._exit = ended


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
