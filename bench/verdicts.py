"""What audits found, kept beside the records: one file for each audit, so that none is ever lost to another at the same time.

`audits/DATE-DIGEST.json` below the results holds a verdict on each record that was measured again. It is about the bytes that the
record had then: of a record that was written anew since, nothing is known.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.files import digest, file_digest, read_json, write_json
from bench.records import Record

TOLERANCE = 1e-4  # largest difference of a class probability, similarity or pose error on the same kind of hardware


@dataclass(frozen=True)
class Reproduction:
    """A record that was measured again.

    Args:
        record: Its file, below the results folder.
        content: Digest of that file and of the predictions beside it.
        date: When, in UTC.
        same: Whether the same came out, within the tolerance.
        tolerance: Largest difference that counted as the same.
    """

    record: str
    content: str
    date: str
    same: bool
    tolerance: float


def write_reproductions(measured: Sequence[tuple[Record, bool]], tolerance: float, results: Path) -> None:
    """Keeps what an audit found: each record that it measured again, and whether the same came out."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    found = [
        asdict(Reproduction(record.path.relative_to(results).as_posix(), _content(record.path), now, same, tolerance))
        for record, same in measured
    ]
    if found:
        name = f"{now.partition('.')[0].replace(':', '')}-{digest(found)}.json"
        write_json(results / "audits" / name, {"schema": 1, "records": found})


def reproductions(results: Path) -> Mapping[str, Reproduction]:
    """The last verdict on each record that lies there still as it was audited, by its key.

    What an audit of a wider tolerance than `TOLERANCE` lets pass shows nothing, nor what one of a narrower one does not.
    """
    found = []
    for path in sorted((results / "audits").glob("*.json")):
        try:
            found += [Reproduction(**one) for one in read_json(path)["records"]]
        except (OSError, ValueError, KeyError, TypeError):
            warnings.warn(f"{path} is no file of an audit's verdicts and is left out", stacklevel=2)
    telling = [one for one in found if (one.tolerance <= TOLERANCE if one.same else one.tolerance >= TOLERANCE)]
    last = {one.record: one for one in sorted(telling, key=lambda one: one.date)}
    return {Path(name).stem: one for name, one in last.items() if _content(results / name) == one.content}


def _content(path: Path) -> str:
    """Digest of a record's two files; "" if one is not there."""
    files = path, path.with_suffix(".npz")
    return digest([file_digest(file) for file in files]) if all(file.is_file() for file in files) else ""
