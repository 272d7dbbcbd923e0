"""Chooses an executor, its devices and its number of slots."""

from dataclasses import dataclass, field

import torch

from bench.executors.base import Executor, Recipe, Worker
from bench.executors.limits import Limits
from bench.executors.local import LocalExecutor
from bench.executors.ray import RayExecutor
from bench.executors.serial import SerialExecutor
from bench.files import UserError
from bench.threads import cores

EXECUTORS = ("serial", "local", "ray")


@dataclass(frozen=True)
class Where:
    """Where work is to be done.

    Args:
        executor: One of `EXECUTORS`.
        devices: Devices to use; with several GPUs, slots are dealt out to them in turn. Empty for Ray to use the GPUs of
            its cluster if there are any.
        workers: Slots; by default one a core on a CPU, one a GPU otherwise.
        address: Of a Ray cluster.
        limits: What one task may use; of no meaning to `serial`, whose process is the user's.
    """

    executor: str = "local"
    devices: tuple[torch.device, ...] = (torch.device("cpu"),)
    workers: int | None = None
    address: str | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def slots(self) -> int:
        """Tasks that are done at a time; by Ray, as many as this machine would do, until its cluster is known."""
        if self.executor == "serial":
            return 1
        return self.workers or self._gpus or cores()

    @property
    def threads(self) -> int:
        """Threads of torch in each worker on this machine: they share its cores where they only bring clips to a GPU."""
        return max(1, cores() // self.slots) if self._gpus else 1

    @property
    def _gpus(self) -> int:
        return sum(device.type == "cuda" for device in self.devices)


def make_executor(where: Where, recipe: Recipe) -> Executor:
    """The executor that was asked for.

    Raises:
        UserError: if there is none of that name, or it cannot be had.
    """
    if where.executor == "serial":
        return SerialExecutor(Worker(recipe, where.devices[0], where.threads))
    if where.executor == "local":
        devices = [where.devices[i % len(where.devices)] for i in range(where.slots)]
        return LocalExecutor(recipe, devices, where.threads, where.limits)
    if where.executor == "ray":
        kind = where.devices[0].type if where.devices else None
        return RayExecutor(recipe, kind, where.workers, where.address, where.limits)
    raise UserError(f"no executor named {where.executor!r}; there are {', '.join(EXECUTORS)}")
