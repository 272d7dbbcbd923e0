"""Progress for people: a live line on a terminal, one plain line a finished step elsewhere. All of it goes to standard error."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.status import read_status
from bench.training import Progress as Report

_EVERY = 0.5  # seconds between two looks at the workers


class Display:
    """Shows what runs, how far it is and how long it will take.

    Args:
        total: Number of pairs of the whole run; 0 if there are none to count.
        status: Folder of status files, if there are workers to be shown.
        run: Name of the run whose workers are shown.
    """

    def __init__(self, total: int = 0, status: Path | None = None, run: str = ""):
        self._console = Console(file=sys.stderr)
        self._status, self._run = status, run
        self._ended = threading.Event()
        self._live = self._console.is_terminal
        self._total = total
        self._done = 0

    def __enter__(self) -> "Display":
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        timing = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self._progress = Progress(*columns, *timing, console=self._console, transient=True, disable=not self._live)
        self._progress.start()
        self._pairs = self._progress.add_task("pairs", total=self._total, note="", visible=self._total > 0)
        if self._live and self._status:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._progress.stop()

    def _watch(self) -> None:
        """Shows what the workers say of themselves, a line each."""
        shown: dict[int, tuple[str, TaskID]] = {}
        while not self._ended.wait(_EVERY):
            workers = {status.pid: status for status in read_status(self._status, self._run)[1]}
            for pid, (text, task) in list(shown.items()):
                if pid not in workers or workers[pid].text != text:
                    self._progress.remove_task(task)
                    del shown[pid]
            for pid, status in workers.items():
                if pid not in shown:
                    shown[pid] = status.text, self._progress.add_task(status.text, total=None, note="")
                note = f"{status.note}  {status.memory}"
                self._progress.update(shown[pid][1], completed=status.done, total=status.total or None, note=note)

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

    def pairs_done(self, count: int, text: str) -> None:
        """Counts finished pairs."""
        self._done += count
        self._progress.update(self._pairs, completed=self._done)
        self.say(f"[{self._done}/{self._total}] {text}")

    def say(self, text: str) -> None:
        """Prints a line above the live ones."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
