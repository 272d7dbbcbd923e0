"""How many threads a process computes with: sums come out the same to the bit only if that is the same everywhere."""

import os

import torch
from threadpoolctl import threadpool_limits

# What libraries that are loaded later read: BLAS of several makers, and OpenMP, which scikit-learn uses as well.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(torch_threads: int = 1) -> None:
    """One thread for numpy, scipy and scikit-learn in this process from now on, whatever the machine, and some for torch.

    A small network does not gain from several cores; several networks do, and no two of them get in each other's way. A matrix
    product over several threads sums in another order, so that its last bits would depend on the machine.

    Args:
        torch_threads: Threads of torch on the CPU: one where it computes there, more where it only brings clips to a GPU.
    """
    for name in _VARIABLES:
        os.environ[name] = "1"
    threadpool_limits(1)  # of what is loaded already
    torch.set_num_threads(torch_threads)
