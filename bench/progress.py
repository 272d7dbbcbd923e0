"""Progress for people: a live line on a terminal, one plain line a finished step elsewhere. All of it goes to standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.training import Progress as Report


class Display:
    """Shows what runs, how far it is and how long it will take.

    Args:
        total: Number of pairs of the whole run; 0 if there are none to count.
    """

    def __init__(self, total: int = 0):
        self._console = Console(file=sys.stderr)
        self._live = self._console.is_terminal
        self._total = total
        self._done = 0

    def __enter__(self) -> "Display":
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        timing = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self._progress = Progress(*columns, *timing, console=self._console, transient=True, disable=not self._live)
        self._progress.start()
        self._pairs = self._progress.add_task("pairs", total=self._total, note="", visible=self._total > 0)
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, text: str, *, quiet: bool = False) -> Iterator[Report]:
        """One piece of work; yields the function that reports (done, total, note). A quiet one is not told when it ends."""
        task = self._progress.add_task(text, total=None, note="")
        started, last = time.perf_counter(), ""

        def report(done: int, total: int, note: str = "") -> None:
            nonlocal last
            last = note
            self._progress.update(task, completed=done, total=total, note=note)

        try:
            yield report
            if not quiet:
                self.say(f"{text}: {time.perf_counter() - started:.1f} s{f', {last}' if last else ''}")
        finally:
            self._progress.remove_task(task)

    def pair_done(self, text: str) -> None:
        """Counts a finished pair."""
        self._done += 1
        self._progress.update(self._pairs, completed=self._done)
        self.say(f"[{self._done}/{self._total}] {text}")

    def say(self, text: str) -> None:
        """Prints a line above the live ones."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
