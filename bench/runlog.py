"""One file for each invocation that ended: what was asked for, and which records it gave. Not needed by any of these."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.files import read_json, write_json


@dataclass(frozen=True)
class RunLog:
    """An invocation.

    Args:
        name: Name of the run; of its file as well.
        command: As it was typed.
        experiment: Digest of what was asked for: equal for equal questions.
        ended: Seconds since the epoch.
        records: Keys of its records.
        failed: How many pairs failed.
    """

    name: str
    command: str
    experiment: str
    ended: float
    records: tuple[str, ...]
    failed: int

    def write(self, results: Path) -> None:
        write_json(results / "runs" / f"{self.name}.json", asdict(self))


def make_log(name: str, command: str, experiment: str, records: tuple[str, ...], failed: int) -> RunLog:
    """The log of a run that ends now."""
    return RunLog(name, command, experiment, round(time.time(), 3), records, failed)


def run_logs(results: Path) -> Iterator[RunLog]:
    """All of them, oldest first."""
    found = [RunLog(**read_json(path)) for path in (results / "runs").glob("*.json")]
    yield from sorted(found, key=lambda log: log.ended)
