"""By Ray, on one machine or many: an actor for each slot. The results folder must lie on a disk that all of them see."""

import os

import torch

from bench.executors.base import Done, Recipe, Task, Worker
from bench.files import UserError


class RayExecutor:
    """Tasks done by actors of a Ray cluster.

    Args:
        recipe: What the workers need.
        device: Device of each actor; one with a GPU asks Ray for a share of one.
        slots: Number of actors; None for one a GPU, or a core, of the whole cluster.
        address: Of a running cluster; None starts one on this machine.

    Raises:
        UserError: if Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, recipe: Recipe, device: torch.device, slots: int | None, address: str | None):
        try:
            import ray
        except ImportError:
            raise UserError("Ray is not installed; pip install 'skeleton-privacy-bench[ray]', or use --executor local") from None
        self._ray = ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
        unit = "GPU" if device.type == "cuda" else "CPU"
        most = max(1, int(ray.cluster_resources().get(unit, 1)))  # an actor that finds no room would wait for ever
        self.slots = min(slots or most, most)
        share = {f"num_{unit.lower()}s": 1}
        self._make = lambda: ray.remote(**share)(Worker).remote(recipe, device)
        self._free = [None] * self.slots
        self._running: dict = {}

    def submit(self, task: Task) -> None:
        actor = self._free.pop() or self._make()
        self._running[actor.do.remote(task)] = actor, task

    def wait(self) -> Done:
        ready, _ = self._ray.wait(list(self._running))
        actor, task = self._running.pop(ready[0])
        try:
            done = self._ray.get(ready[0])
        except self._ray.exceptions.RayError as error:  # the actor died: the next task gets a new one
            self._free.append(None)
            return Done(task, f"{type(error).__name__}: its process ended: {' '.join(str(error).split())}")
        self._free.append(actor)
        return done

    def close(self) -> None:
        self._ray.shutdown()
