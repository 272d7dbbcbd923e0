"""The evaluator's side of a worker: starts it, asks it, watches what it uses, and ends it."""

import atexit
import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from bench.submission.channel import MessageError, receive, send
from bench.submission.isolation import Limits, start_of
from bench.submission.manifest import printable

_EVERY = 0.25  # seconds between two looks at what the worker uses
_START = 300.0  # seconds that loading may take; importing takes a while on a busy machine
_BASE_MB = 1500.0  # what a worker needs by itself, with torch loaded
_MOST_NOTED = 20
_SMALL = 2**16  # bytes of an answer without arrays
_TAIL = 2000  # bytes of what it printed that are kept


class ForeignError(RuntimeError):
    """Foreign code failed or was stopped.

    Args:
        kind: What it ran into: "error" (it raised), "time", "memory", "processes", "file size", "answer" or "ended".
        what: In words.
    """

    def __init__(self, kind: str, what: str):
        super().__init__(f"{kind}: {what}" if kind != "error" else what)
        self.kind = kind

    def __reduce__(self) -> tuple:
        return _remade, (self.kind, str(self))


def _remade(kind: str, text: str) -> ForeignError:
    error = ForeignError("error", text)
    error.kind = kind
    return error


class _Told(BaseModel):
    """What every answer may say besides; foreign code may have written it."""

    model_config = ConfigDict(strict=True)

    noted: list[str] = []
    error: str | None = None
    kind: str = "error"


@dataclass(frozen=True)
class Foreign:
    """Which code is to be run, and how well apart: equal ones may share a worker.

    Args:
        folder: Of the submission.
        source: Folder of its code, below.
        target: "package.module:Class".
        parameters: Names and values of its parameters.
        level: Level of isolation.
        limits: What it may use.
        clock: Seconds by which its clock is wrong.
    """

    folder: Path
    source: str
    target: str
    parameters: tuple[tuple[str, Any], ...]
    level: str
    limits: Limits
    clock: float = 0.0


class Session:
    """A running worker.

    Args:
        foreign: What it runs.

    Raises:
        ForeignError: if the class cannot be loaded.
    """

    def __init__(self, foreign: Foreign):
        self.limits = foreign.limits
        self._notes = _notes.setdefault((foreign.folder, foreign.target), [])
        start = start_of(foreign.level, foreign.folder, foreign.limits)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._said}
        try:  # a session of its own: Ctrl-C is the evaluator's alone, who ends the worker
            self._process = start.process(start_new_session=True, cwd=tempfile.gettempdir(), **streams)
        except OSError:
            self._said.close()
            raise
        self._stopped = ""  # why it was ended, "kind: what"
        self._deadline = time.monotonic() + _START
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        self.asked = False
        self.state: Mapping[str, Tensor] | None = None  # what the worker was given to transform with
        first = {"folder": start.folder, "source": foreign.source, "target": foreign.target, "clock": foreign.clock}
        limits = asdict(self.limits)
        if foreign.level == "process":  # there the system counts all that belong to the account
            limits["processes"] += _threads_of_account()
        try:
            first |= {"parameters": dict(foreign.parameters), "limits": limits}
            self.described, _ = self._exchange(first, {}, 2**20)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, do: str, value: Mapping[str, Any], tensors: Mapping[str, Tensor], largest: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Has the worker do something.

        Args:
            do: Name of a method of `bench.submission.worker.Worker`.
            largest: Most bytes of the arrays of its answer; by default the limit of an answer.

        Raises:
            ForeignError: if it fails, or is stopped for what it uses; the worker has ended then, or goes on if it raised.
        """
        self.asked = True
        self._deadline = time.monotonic() + self.limits.seconds
        return self._exchange({"do": do, **value}, tensors, int(self.limits.answer_mb * 2**20) if largest is None else largest)

    def _exchange(
        self, value: Mapping[str, Any], tensors: Mapping[str, Tensor], largest: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            send(self._process.stdin, value, tensors)
            answer, arrays = receive(self._process.stdout, largest)
        except (EOFError, OSError) as error:
            self._kill()
            kind, _, what = (self._stopped or f"ended: the process ended by itself; {self._tail()}").partition(": ")
            self.close()
            raise ForeignError(kind, what) from error
        except MessageError as error:
            self.close()
            raise ForeignError("answer", str(error)) from error
        self._deadline = float("inf")
        try:
            told = _Told.model_validate(answer)
        except ValidationError as error:
            self.close()
            raise ForeignError("answer", "the worker answers in another form than ours does: it is not ours any more") from error
        lines = (printable(line[:200]) for line in told.noted[:_MOST_NOTED])
        self._notes += [line for line in lines if line not in self._notes]
        if told.error is not None:
            raise ForeignError(printable(told.kind[:20]), printable(told.error[:500]))
        return answer, arrays

    def _watch(self) -> None:
        """Ends the worker when it takes too long or too much; the level's own limits are there besides."""
        most = (self.limits.memory_mb + _BASE_MB) * 2**20
        while not self._closed.wait(_EVERY):
            if time.monotonic() > self._deadline:
                self._stop(f"time: it took more than {self.limits.seconds:g} s")
                return
            with contextlib.suppress(psutil.Error):
                tree = [psutil.Process(self._process.pid)]
                tree += tree[0].children(recursive=True)
                if len(tree) > self.limits.processes:
                    self._stop(f"processes: it started more than {self.limits.processes}")
                    return
                used, shared = 0, {}
                for process in tree:
                    with contextlib.suppress(psutil.Error):
                        used += _own_memory(process)
                        shared |= _memory_files(process.pid)
                if used + sum(shared.values()) > most:
                    self._stop(f"memory: it took more than {self.limits.memory_mb:g} MB")
                    return

    def _stop(self, why: str) -> None:
        self._stopped = why
        self._kill()

    def _kill(self) -> None:
        """Ends the worker and whatever it started; at the level `namespace` the kernel does so with its first process."""
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self._process.kill()

    def close(self) -> None:
        """Ends the worker."""
        self._closed.set()
        if self._said.closed:
            return
        self._kill()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait()
        self._said.close()

    def _tail(self) -> str:
        """The last lines that it printed, or how it ended."""
        self._process.wait()
        self._said.seek(0, 2)
        self._said.seek(max(0, self._said.tell() - _TAIL))
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return printable(lines[-1][:300]) if lines else f"exit status {self._process.returncode}"


def _own_memory(process: psutil.Process) -> int:
    """Bytes of a process, of pages that it shares with others its part: or each fork would count its parent's memory again."""
    try:
        return process.memory_full_info().pss
    except (psutil.AccessDenied, AttributeError):  # not told, or another system
        return process.memory_info().rss


def _memory_files(pid: int) -> dict[int, int]:
    """Bytes of the open files of a process that lie in memory and nowhere else, by their numbers; mapped ones count twice."""
    found = {}
    with contextlib.suppress(OSError):
        for place in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(place).startswith("/memfd:"):
                    state = place.stat()
                    found[state.st_ino] = state.st_blocks * 512
    return found


def _threads_of_account() -> int:
    own = psutil.Process().uids().real
    found = psutil.process_iter(["uids", "num_threads"])
    return sum(p.info["num_threads"] or 0 for p in found if p.info["uids"] and p.info["uids"].real == own)


_MOST_OPEN = 3  # each holds memory
_open: dict[Foreign, Session] = {}
_notes: dict[tuple[Path, str], list[str]] = {}  # forbidden acts that workers noticed, by what they ran


def shared_session(foreign: Foreign) -> Session:
    """The worker of this process for some code; started when first needed, and again after it ended."""
    session = _open.get(foreign)
    if session is None or not session.alive:
        _make_room()
        session = _open[foreign] = Session(foreign)
    return session


@contextlib.contextmanager
def fresh_session(foreign: Foreign) -> Iterator[Session]:
    """A worker that has seen nothing yet, and its end: what it saw is forgotten."""
    with _unasked(foreign) as session:
        yield session


def session_for(foreign: Foreign, state: Mapping[str, Tensor]) -> Session:
    """The worker that transforms with a state, for all batches of one release; another state begins with a fresh one."""
    session = _open.get(foreign)
    if session is None or not session.alive or session.state is not state:
        session = _unasked(foreign)
        _make_room()
        _open[foreign] = session
        session.state = state
        if state:
            session.ask("state", {}, state, _SMALL)
    return session


def _unasked(foreign: Foreign) -> Session:
    """A worker that was loaded and asked for nothing; the caller's to end."""
    session = _open.pop(foreign, None)
    if session is not None and (session.asked or not session.alive):
        session.close()
        session = None
    return session or Session(foreign)


def _make_room() -> None:
    if len(_open) >= _MOST_OPEN:
        close_all()


def close(foreign: Foreign) -> None:
    """Ends the shared worker for some code, if there is one."""
    if foreign in _open:
        _open.pop(foreign).close()


def noted(foreign: Foreign) -> list[str]:
    """Forbidden acts of some code, whatever its parameters, that workers of this process noticed: "kind: what"."""
    return list(_notes.get((foreign.folder, foreign.target), []))


def close_all() -> None:
    """Ends all shared workers of this process."""
    while _open:
        _open.popitem()[1].close()


atexit.register(close_all)
