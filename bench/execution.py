"""How work is done, as opposed to what is done: never part of an address, but stated beside what was made.

Two switches are read from the environment, so that workers started in whatever way have them too:

    BENCH_COMPILE=BACKEND   trainings of classifiers and verifiers run through `torch.compile` with this backend: "inductor"
                            makes kernels, "eager" only traces. Off by default: on a GPU it has not been timed, and on a
                            CPU an SGN trained 1.15 times as fast, while a Shift-GCN took longer to compile than to train.
    BENCH_PROCESSES=N       each training of a classifier or verifier is dealt out to N processes, on a GPU each
                            (`bench.distributed`).

`tests/test_gpu.py` runs all of it but several processes on GPUs of their own.
"""

import os
import platform
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from bench.files import UserError

_COMPILE = "BENCH_COMPILE"
_PROCESSES = "BENCH_PROCESSES"
T = TypeVar("T")


def precision_of(device: torch.device, asked: str) -> str:
    """Type of the products of a training that asks for "float32", "bfloat16" or "auto": bfloat16 on a GPU only."""
    if asked == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return asked


def fused(device: torch.device) -> bool:
    """Whether an optimiser updates all parameters in one kernel: on a GPU, where a launch for each costs more than the work.

    Its last digits differ from those of the plain one, so that a CPU keeps the plain one.
    """
    return device.type == "cuda"


def compile_backend() -> str | None:
    """The backend of `torch.compile` that is asked for; None if there is none.

    Raises:
        UserError: if torch knows no such backend.
    """
    name = os.environ.get(_COMPILE)
    if not name:
        return None
    known = torch.compiler.list_backends(exclude_tags=None)
    if name not in known:
        raise UserError(f"{_COMPILE}={name}: torch has no such backend; there are {', '.join(known)}")
    return name


def compiled(model: nn.Module) -> nn.Module:
    """The same network, compiled if that is asked for; it shares parameters and buffers with `model`, whose names they keep."""
    backend = compile_backend()
    return torch.compile(model, backend=backend) if backend else model


def processes() -> int:
    """How many processes share a training; 1 unless more are asked for.

    Raises:
        UserError: if that is no number of processes.
    """
    asked = os.environ.get(_PROCESSES) or "1"
    if not asked.isdecimal() or int(asked) < 1:
        raise UserError(f"{_PROCESSES}={asked}: expected a whole number of at least 1")
    return int(asked)


def make_deterministic(device: torch.device) -> None:
    """Has a GPU sum in one order, so that the same work gives the same bits on the same kind of it; a CPU does so anyway.

    An operation without a deterministic version warns and goes on. What a budget calls float32 is that in convolutions too, for
    which cuDNN would otherwise keep ten bits of each factor (TF32). Acts on this process alone, and before it first uses the GPU.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with a workspace of fixed size only
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads what it did not write
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False


class Pieces:
    """Does something with many clips in pieces, which become smaller whenever the device has too little memory for them.

    Args:
        size: Clips of a piece; less once they were too many.
        least: Fewest clips of a piece, such as two where batch normalisation sees nothing but one number a clip.
    """

    def __init__(self, size: int, least: int = 1):
        self.size = size
        self._least = least

    def slices(self, count: int) -> list[slice]:
        """`count` clips in as few pieces as it takes, their lengths alike."""
        number = max(1, min(-(-count // self.size), count // self._least))
        ends = [count * i // number for i in range(number + 1)]
        return [slice(*ends[i : i + 2]) for i in range(number)]

    def __call__(self, function: Callable[[int], T], count: int) -> T:
        """What `function` makes of `count` clips, given how many it may take at a time; it is called again with fewer.

        Raises:
            torch.OutOfMemoryError: if there is not enough for the fewest.
        """
        while True:
            try:
                return function(self.size)
            except torch.OutOfMemoryError:
                if min(self.size, count) <= self._least:
                    raise
            self.size = max(-(-min(self.size, count) // 2), self._least)  # outside the handler, which holds on to what was there
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def map(self, function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        """`function` of tensors of equal length, or of as many of their elements at a time as there is memory for."""

        def run(size: int) -> Tensor:
            found = [function(*piece) for piece in zip(*(part.split(size) for part in parts), strict=True)]
            return found[0] if len(found) == 1 else torch.cat(found)

        return self(run, len(parts[0]))


def describe(device: torch.device, precision: str) -> dict[str, str]:
    """Where and how something is made, as far as its last digits may depend on that.

    Args:
        device: Where.
        precision: As a budget asks for it.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    backend, shared = compile_backend(), processes()
    return {
        "device": name,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "precision": precision_of(device, precision),
        "torch": torch.__version__,
        **({"compile": backend} if backend else {}),
        **({"processes": str(shared)} if shared > 1 else {}),
    }
