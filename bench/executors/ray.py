"""By Ray, on one machine or many: an actor for each slot. The results folder must lie on a disk that all of them see."""

import os
import time

import torch

from bench.executors.base import Done, Recipe, Task, Worker
from bench.executors.limits import Limits
from bench.files import UserError

_LONG = 300  # characters of what Ray says of a process that ended


class RayExecutor:
    """Tasks done by actors of a Ray cluster.

    Args:
        recipe: What the workers need.
        kind: "cuda" for a GPU of its own for each actor, "cpu" for a core; None for GPUs if the cluster has any.
        slots: Number of actors; None for one a GPU, or a core, of the whole cluster.
        address: Of a running cluster; None starts one on this machine.
        limits: What one task may use.

    Raises:
        UserError: if Ray is not installed, the cluster cannot be reached, or it has no GPU where one is asked for.
    """

    def __init__(self, recipe: Recipe, kind: str | None, slots: int | None, address: str | None, limits: Limits):
        try:
            import ray
        except ImportError:
            raise UserError("Ray is not installed; pip install 'skeleton-privacy-bench[ray]', or use --executor local") from None
        self._ray, self._limits = ray, limits
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
        found = ray.cluster_resources()
        gpus, cpus = int(found.get("GPU", 0)), int(found.get("CPU", 1))
        if kind == "cuda" and not gpus:
            ray.shutdown()
            raise UserError(f"the Ray cluster at {address or 'this machine'} has no GPU; use --device cpu or --device auto")
        if kind == "cuda" or (kind is None and gpus):
            # Ray shows an actor none but the GPU that it was given, whichever that is: it is the first one there.
            most, share, device, threads = gpus, {"num_gpus": 1}, torch.device("cuda", 0), max(1, cpus // gpus)
        else:
            most, share, device, threads = max(1, cpus), {"num_cpus": 1}, torch.device("cpu"), 1
        self.slots = min(slots or most, most)  # an actor that finds no room would wait for ever
        self._make = lambda: ray.remote(**share)(Worker).remote(recipe, device, threads, limits)
        self._free = [None] * self.slots
        self._running: dict = {}
        self._again: set[str] = set()  # keys of tasks that were begun a second time

    def submit(self, task: Task) -> None:
        used = self._free.pop()
        actor = used or self._make()
        self._running[actor.do.remote(task)] = actor, task, time.monotonic(), used is not None

    def wait(self) -> Done:
        while True:
            ready, _ = self._ray.wait(list(self._running))
            actor, task, begun, used = self._running.pop(ready[0])
            seconds = time.monotonic() - begun
            try:
                done = self._ray.get(ready[0])
            except self._ray.exceptions.RayError as error:  # the actor died: the next task gets a new one
                self._free.append(None)
                if used and task.key not in self._again and seconds < self._limits.seconds:
                    self._again.add(task.key)  # what earlier tasks left behind in that process may have ended it
                    self.submit(task)
                    continue
                return Done(task, self._ending(error, seconds))
            self._free.append(actor)
            return done

    def _ending(self, error: Exception, seconds: float) -> str:
        """Why an actor died, as far as that can be known: Ray does not say how its process ended."""
        most = self._limits.memory_mb
        memory = "" if most is None else f", perhaps because it used more than {most:.0f} MB (--memory-limit)"
        told = f"{type(error).__name__}: its process ended{memory}: {' '.join(str(error).split())[:_LONG]}"
        # Not for sure: what it waited for another run that made the same stage does not count, and is not known here.
        return f"{self._limits.too_long}, or {told}" if seconds >= self._limits.seconds else told

    def close(self) -> None:
        self._ray.shutdown()
