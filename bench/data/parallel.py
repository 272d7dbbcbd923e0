"""Reads many files on all cores, in order and with a bounded number in memory."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bench.data.dataset import DataError
from bench.data.sources import Member

T = TypeVar("T")
_WORTH = 400  # files from which on it pays to start processes
_CHUNK = 16  # files of one message
_AHEAD = 4  # messages under way for each process
_BYTES = 2**27  # of all files under way, or of one if that is larger


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
        yield from (_guarded(parse, member) for member in members)
        return
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        under_way: deque[Future] = deque()
        sizes: deque[int] = deque()  # bytes of each
        try:
            for chunk, size in _chunks(members):
                while under_way and (len(under_way) >= _AHEAD * cores or sum(sizes) + size > _BYTES):
                    sizes.popleft()
                    yield from _results(under_way.popleft())
                under_way.append(pool.submit(_parse_chunk, parse, [_for_another_process(member) for member in chunk]))
                sizes.append(size)
            while under_way:
                yield from _results(under_way.popleft())
        except BrokenProcessPool as error:
            raise DataError("a process that reads files ended; there may not be enough memory for them") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _chunks(members: Sequence[Member]) -> Iterator[tuple[list[Member], int]]:
    """Members in order, some at a time, with their bytes: few of large ones."""
    chunk: list[Member] = []
    size = 0
    for member in members:
        if chunk and (len(chunk) == _CHUNK or size + member.size > _BYTES // _AHEAD):
            yield chunk, size
            chunk, size = [], 0
        chunk.append(member)
        size += member.size
    if chunk:
        yield chunk, size


def _guarded(parse: Callable[[Member], T], member: Member) -> T:
    """What `parse` makes of a file.

    Raises:
        DataError: also if there is not enough memory for it.
    """
    try:
        return parse(member)
    except MemoryError:
        raise member.error("there is not enough memory for what it asks for") from None


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
            found.append((_guarded(parse, member), None))
        except Exception as error:  # it is raised when the file's turn comes
            found.append((None, error))
            break
    return found


def _results(future: Future) -> Iterable[Any]:
    for result, error in future.result():
        if error is not None:
            raise error
        yield result
