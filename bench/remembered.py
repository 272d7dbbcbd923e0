"""What was measured of records, kept beside them: tables of many pairs are printed again without resampling anything.

A file is named by what was measured and by the code that measured it, so nothing stale is ever read; all of them may be deleted.
"""

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from bench import metrics
from bench.files import atomic_file, digest, file_digest
from bench.measure import measure
from bench.measured import Measured
from bench.metrics.uncertainty import Estimate, Sample
from bench.records import Record

_PLAIN = ("each", "people", "plain", "linked", "spread")
_ESTIMATES = ("leakage", "of_ten", "action_reference", "action_raw", "action_retrained", "retention")
_NAMED = ("named", "use")
_DRAWS = ("leakage", "of_ten", "retention")  # the others' resamples nobody asks for


def measured_or_remembered(records: Sequence[Record], results: Path | None) -> Measured:
    """What `measure` gives, from the results folder if it was asked for before; None measures always."""
    if results is None:
        return measure(records)
    path = results / "measured" / f"{digest([_code(), [record.contents for record in records]])}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, BadZipFile):  # absent, or damaged
        return _read(path, records)
    measured = measure(records)
    with contextlib.suppress(OSError):  # it can be measured again
        _write(path, measured)
    return measured


@cache
def _code() -> str:
    """Digest of the source of whatever a measurement depends on."""
    here = Path(__file__).parent
    files = [*Path(metrics.__file__).parent.glob("*.py"), *(here / f"{name}.py" for name in ("measure", "measured", "records"))]
    return digest(sorted(file_digest(file) for file in files))


def _write(path: Path, measured: Measured) -> None:
    known = {
        **{name: getattr(measured, name) for name in _PLAIN},
        **{name: _described(getattr(measured, name)) for name in _ESTIMATES},
        **{name: {key: _described(value) for key, value in getattr(measured, name).items()} for name in _NAMED},
    }
    arrays = {name: getattr(measured, name).draws for name in _DRAWS}
    with atomic_file(path, lasting=False) as temporary, temporary.open("wb") as file:
        np.savez(file, known=np.frombuffer(json.dumps(known).encode(), dtype=np.uint8), **arrays)


def _read(path: Path, records: Sequence[Record]) -> Measured:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        known, draws = json.loads(arrays["known"].tobytes()), {name: arrays[name] for name in _DRAWS}
    found = {name: _estimate(known[name]) for name in _ESTIMATES}
    return Measured(
        records=tuple(records),
        **{name: known[name] for name in _PLAIN},
        **{name: {key: _estimate(value) for key, value in known[name].items()} for name in _NAMED},
        **{name: replace(value, draws=draws.get(name, value.draws)) for name, value in found.items()},
    )


def _described(value: Estimate) -> list[Any]:
    return [value.value, value.low, value.high, list(value.sample.sizes), list(value.bounds)]


def _estimate(described: Sequence[Any]) -> Estimate:
    value, low, high, sizes, bounds = described
    return Estimate(value, low, high, np.empty(0), Sample(tuple(sizes)), tuple(bounds))
