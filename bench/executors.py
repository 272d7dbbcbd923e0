"""Where models are trained: in this process one after the other, or in several processes beside each other.

A small network does not gain from several cores; several networks do. On a CPU each process therefore computes with one thread:
no two of them get in each other's way, and a record does not depend on how many there were.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.queues import Queue

import torch

from bench.jobs import Training
from bench.pipeline import Bench
from bench.progress import Display
from bench.training import Progress


class WorkerDiedError(RuntimeError):
    """A worker process ended without an answer, e.g. for want of memory."""


def use_one_thread(device: torch.device) -> None:
    """Starts a job: one thread for what runs on the CPU."""
    if device.type == "cpu":
        torch.set_num_threads(1)


def worker_count(device: torch.device, asked: int | None, trainings: int) -> int:
    """Processes to train in: one a core on a CPU, one on a GPU, never more than there is to do."""
    most = asked or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return max(1, min(most if asked or device.type == "cpu" else 1, trainings))


def train_all(make_bench: Callable[..., Bench], trainings: Sequence[Training], workers: int, display: Display) -> None:
    """Trains every model in `workers` processes; a model that fails is left for the job that needs it to report.

    Args:
        make_bench: Makes a `Bench` from a step function; sent to the workers, so it must be picklable.
        trainings: What to train, each once.
        workers: Number of processes.
        display: Shows what the workers do.

    Raises:
        WorkerDiedError: if a worker dies.
    """
    context = multiprocessing.get_context("spawn")
    messages: Queue = context.Queue()
    shown = threading.Thread(target=_show, args=(messages, display), daemon=True)
    shown.start()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(make_bench, messages))
    try:
        futures = [pool.submit(_train, training) for training in trainings]
        for future in as_completed(futures):
            future.result()
    except BrokenProcessPool as error:
        raise WorkerDiedError("a worker process died, perhaps for want of memory (fewer --workers need less)") from error
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        messages.put(None)
        shown.join(timeout=5)


_bench: Bench


def _start_worker(make_bench: Callable[..., Bench], messages: Queue) -> None:
    """Sets up a worker: ends with its parent, leaves Ctrl-C to it, and tells it what is going on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    @contextmanager
    def step(text: str) -> Iterator[Progress]:
        def report(done: int, total: int, note: str = "") -> None:
            messages.put((os.getpid(), "report", (done, total, note)))

        messages.put((os.getpid(), "start", text))
        ended = "failed"
        try:
            yield report
            ended = "done"
        finally:
            messages.put((os.getpid(), ended, None))

    global _bench
    _bench = make_bench(step)
    use_one_thread(_bench.device)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(training: Training) -> None:
    with suppress(Exception):  # the job that needs this model trains it again, and its error is reported there
        _bench.train(training)


def _show(messages: Queue, display: Display) -> None:
    """Passes on what the workers say, until None comes."""
    steps: dict[int, ExitStack] = {}
    reports: dict[int, Progress] = {}
    while (message := messages.get()) is not None:
        worker, kind, content = message
        if kind == "start":
            steps[worker] = ExitStack()
            reports[worker] = steps[worker].enter_context(display.step(content))
        elif kind == "report":
            reports[worker](*content)
        elif kind == "done":
            steps.pop(worker).close()
        else:
            error = RuntimeError("failed")  # keeps the step from being shown as done; the job reports the real one
            steps.pop(worker).__exit__(type(error), error, None)
