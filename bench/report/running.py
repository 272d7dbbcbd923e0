"""What runs on a results folder right now, for `bench status`."""

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.status import Status, read_status


def print_running(folder: Path, console: Console) -> None:
    """Prints every run with its workers.

    Args:
        folder: `status/` of a results folder.
        console: Where to print.
    """
    runs, workers = read_status(folder)
    if not runs and not workers:
        console.print("nothing runs here")
        return
    for name in dict.fromkeys([*runs, *(worker.run for worker in workers)]):
        run = runs.get(name)
        title = f"{run.text}\n{_run_line(run)}" if run else f"workers of a run that ended: {name}"
        console.print(title, highlight=False, markup=False, soft_wrap=True)
        table = Table("worker", "does", "how far", "pace", "left", "memory", "note", box=None)
        for worker in workers:
            if worker.run == name:
                table.add_row(f"{worker.host} {worker.pid}", *_columns(worker))
        if table.row_count:
            console.print(table)


def _run_line(run: Status) -> str:
    left = f", {duration(run.left)} left at this pace" if run.left is not None else ""
    failed = f", {run.note}" if run.note else ""
    done = f"{run.done} of the {run.total} pairs that were missing are through{failed}"
    return f"{done}, for {duration(time.time() - run.started)}{left}, on {run.host} ({run.pid})"


def _columns(worker: Status) -> list[str]:
    spent = worker.updated - worker.started
    pace = f"{worker.done / spent:.2g}/s" if worker.done and spent > 0 else ""
    left = duration(worker.left) if worker.left is not None else ""
    how_far = f"{worker.done} of {worker.total}" if worker.total else f"for {duration(time.time() - worker.started)}"
    return [worker.text, how_far, pace, left, worker.memory, worker.note]


def duration(seconds: float) -> str:
    """Seconds as people say them: "40 s", "3 min 20 s", "5 h 10 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
