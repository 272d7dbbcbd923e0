"""Fixtures shared by all tests."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several at a time, and what they start: a thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch, which others import after this file, reads it once

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def bench_data() -> Path:
    """Folder of the real data sets; skips where there is none (their terms forbid shipping them)."""
    folder = Path(os.environ.get("BENCH_DATA") or _SHARED / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder; name one with BENCH_DATA")
    return folder


@pytest.fixture(scope="session")
def golden(bench_data: Path) -> Path:
    """Folder of reference outputs of the authors' own networks, beside the real data."""
    folder = bench_data.parent / "golden"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs: {folder} is not a folder")
    return folder


@pytest.fixture
def within() -> Callable:
    """`with within(n):` fails if the block ever holds more than n bytes beyond what it began with."""

    @contextmanager
    def measured(limit: float) -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < limit
        finally:
            tracemalloc.stop()

    return measured
