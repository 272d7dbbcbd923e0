"""Chooses the device once, and says what is there."""

import torch

from bench.execution import processes
from bench.files import UserError


def choose_devices(name: str) -> tuple[torch.device, ...]:
    """As `choose_device`; "cuda" and "auto" stand for all GPUs that there are.

    Where several processes share a training, each device that is returned is the first of as many GPUs, which are left to them.

    Raises:
        UserError: if a GPU is asked for that is not there.
    """
    chosen, each = choose_device(name), processes()
    if chosen.type == "cpu":
        return (chosen,)
    count = torch.cuda.device_count()
    first = [chosen.index] if chosen.index is not None else list(range(0, count - each + 1, each))
    if not first or first[-1] + each > count:
        raise UserError(f"BENCH_PROCESSES={each} needs as many GPUs from {chosen} on; there are cuda:0 to cuda:{count - 1}")
    return tuple(torch.device("cuda", i) for i in first)


def cluster_devices(name: str) -> tuple[torch.device, ...]:
    """What to ask of a cluster whose machines may have what this one lacks; empty for "auto".

    Raises:
        UserError: if it is no device, or a certain GPU: the cluster chooses which.
    """
    if name == "auto":
        return ()
    if name not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not for Ray, which gives each worker a GPU of its own; use auto, cpu or cuda")
    return (torch.device(name),)


def choose_device(name: str) -> torch.device:
    """The device to compute on.

    Args:
        name: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        UserError: if a GPU is asked for that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device named {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not count:
            built = "this build of torch has no CUDA" if not torch.backends.cuda.is_built() else "torch finds no GPU"
            raise UserError(f"device {name!r} is not there ({built}); use --device cpu or --device auto")
        if (device.index or 0) >= count:
            raise UserError(f"device {name!r} is not there; this machine has cuda:0 to cuda:{count - 1}")
    return device
