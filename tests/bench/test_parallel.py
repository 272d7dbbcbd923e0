"""Reading on all cores gives what reading one by one gives, in order, and names the file that is damaged."""

import os
from dataclasses import replace

import numpy as np
import pytest

from bench.data import parallel
from bench.data.dataset import DataError
from bench.data.ntu_files import read_clip
from bench.data.ntu_format import skeleton_text
from bench.data.sources import Member


def member(i, data=None):
    rng = np.random.default_rng(i)
    text = skeleton_text((rng.normal(size=(3, 4 + i % 3, 25, 1)) * 0.1 + 3).astype(np.float32)).encode()
    return Member(f"f{i}", f"/data/f{i}", "copy it again", lambda: text if data is None else data)


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(parallel, "_WORTH", 2)
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(parallel, "_CHUNK", 3)
    monkeypatch.setattr(parallel, "_AHEAD", 1)


def test_results_come_in_order(processes):
    members = [member(i) for i in range(20)]
    found = list(parallel.read_each(read_clip, members))
    assert all(np.array_equal(clip, read_clip(one)) for clip, one in zip(found, members, strict=True))


def test_a_damaged_file_is_named_at_its_turn(processes):
    members = [member(i, b"3\r\nnothing" if i == 10 else None) for i in range(20)]
    seen = []
    with pytest.raises(DataError, match="/data/f10"):
        for clip in parallel.read_each(read_clip, members):
            seen.append(clip)
    assert len(seen) == 10


def ends(member):
    os._exit(1)


def starves(member):
    raise MemoryError


def test_a_process_that_ends_is_noticed(processes):
    with pytest.raises(DataError, match="a process that reads files ended; there may not be enough memory"):
        list(parallel.read_each(ends, [member(i) for i in range(4)]))


@pytest.mark.parametrize("count", [1, 4])
def test_too_little_memory_is_blamed_on_the_file(processes, count):
    with pytest.raises(DataError, match=r"^/data/f0: there is not enough memory for what it asks for; copy it again"):
        list(parallel.read_each(starves, [member(i) for i in range(count)]))


def test_large_files_travel_in_small_company(monkeypatch):
    monkeypatch.setattr(parallel, "_BYTES", 400)
    members = [replace(member(i), size=size) for i, size in enumerate([60, 50, 1, 1, 500, 1])]
    chunks = [([one.name for one in chunk], size) for chunk, size in parallel._chunks(members)]
    assert chunks == [(["f0"], 60), (["f1", "f2", "f3"], 52), (["f4"], 500), (["f5"], 1)]


def test_few_files_are_read_here(monkeypatch):
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", None)
    assert len(list(parallel.read_each(read_clip, [member(0), member(1)]))) == 2
