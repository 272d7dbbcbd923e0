"""A limit on the time of a task, kept by the system: it ends the process, whatever that is at, also inside a library."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDED_BY = signal.SIGALRM  # what a process dies of whose time is over


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Ends this process by `ENDED_BY` if the block takes longer, not counting what is `suspended`; None for no limit."""
    if seconds is None:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def suspended() -> Iterator[None]:
    """Time that does not count: what is spent waiting for others."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, left)
