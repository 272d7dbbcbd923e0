"""Reads many files on all cores, in order and with a bounded number in memory."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bench.data.sources import Member

T = TypeVar("T")
_WORTH = 400  # files from which on it pays to start processes
_CHUNK = 16  # files of one message
_AHEAD = 4  # messages under way for each process


def read_each(parse: Callable[[Member], T], members: Sequence[Member]) -> Iterator[T]:
    """What `parse` makes of each file, in order.

    If there are many, they are parsed by one process a core, which also opens them where they do not lie in an archive.

    Args:
        parse: A function of a module: other processes import it by its name.
        members: Files.

    Raises:
        DataError: whatever `parse` raises, at the file's turn.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(members) < _WORTH or cores == 1:
        yield from map(parse, members)
        return
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        under_way: deque[Future] = deque()
        try:
            for start in range(0, len(members), _CHUNK):
                chunk = [_for_another_process(member) for member in members[start : start + _CHUNK]]
                under_way.append(pool.submit(_parse_chunk, parse, chunk))
                if len(under_way) >= _AHEAD * cores:
                    yield from _results(under_way.popleft())
            while under_way:
                yield from _results(under_way.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Held:
    """The content of a file that was read."""

    data: bytes

    def __call__(self) -> bytes:
        return self.data


def _for_another_process(member: Member) -> Member:
    """The member itself if it is a plain file; else with what it holds, which is read here: an archive is open only here."""
    opens_itself = getattr(member.content, "__func__", None) is Path.read_bytes
    return member if opens_itself else replace(member, content=_Held(member.read()))


def _parse_chunk(parse: Callable[[Member], Any], chunk: Sequence[Member]) -> list[tuple[Any, Exception | None]]:
    """Each result, or what went wrong with it; after an error nothing more is read."""
    found: list[tuple[Any, Exception | None]] = []
    for member in chunk:
        try:
            found.append((parse(member), None))
        except Exception as error:  # it is raised when the file's turn comes
            found.append((None, error))
            break
    return found


def _results(future: Future) -> Iterable[Any]:
    for result, error in future.result():
        if error is not None:
            raise error
        yield result
