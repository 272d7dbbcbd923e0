"""Who is at work in a results folder: any number of runs, or one who clears it up.

Both are locks of the system on one file, gone when their process ends, however it ends. A run holds its own from before it looks
what is there until it ends: nothing that it counts on is taken away under its hands.
"""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.files import UserError

_NAME = ".occupied"


def is_results(folder: Path) -> bool:
    """Whether somebody worked in it: a folder of results, not of anything else."""
    return (folder / _NAME).exists()


@contextmanager
def at_work(results: Path) -> Iterator[None]:
    """The folder is not cleared up before the block ends; waits while somebody does it."""
    results.mkdir(parents=True, exist_ok=True)
    with (results / _NAME).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def looking(results: Path) -> Iterator[None]:
    """As `at_work`, for who only reads: a folder that cannot be written is cleared up by nobody."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(at_work(results))
        yield


@contextmanager
def alone(results: Path) -> Iterator[None]:
    """Nobody begins to work in the folder before the block ends.

    Raises:
        UserError: if somebody is at work there.
    """
    with (results / _NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"somebody is at work on {results} (bench status says who); wait for them") from error
        yield
