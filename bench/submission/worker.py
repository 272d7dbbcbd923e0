"""The process that runs foreign code: it loads one class, and answers requests with arrays until its input ends.

It is started by `bench.submission.session` at one of the levels of `bench.submission.isolation`. What it is given holds no names
of clips and no labels of what is tested. What it notices of forbidden acts (an audit hook) serves to name them: it is the level
that stops them.
"""

import ctypes
import errno
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from bench.anonymizer import Anonymizer, ClipBatch, Examples
from bench.attacker import Attacker
from bench.data.clips import ClipSet
from bench.presets import Preset, TrainingConfig
from bench.protocols import Part
from bench.skeleton import get_layout
from bench.specs import describe_parameters
from bench.submission.channel import MessageError, receive, send
from bench.submission.clock import shift_clock
from bench.submission.promises import broken

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto", "socket.gethostbyname")
_PROCESSES = ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "subprocess.Popen", "os.spawn")
_LINKS = ("os.symlink", "os.link")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MOST_NOTED = 20
_MOST_OPEN = 1024  # files, pipes and sockets of one process
_LARGEST = 2**36  # bytes of a request: what the evaluator sends is to be trusted


class Notes:
    """Forbidden acts that were tried, in words; the first of each."""

    def __init__(self, folder: Path):
        self.found: list[str] = []
        own = [sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev"]
        packages = Path(__file__).resolve().parents[2]
        own += [str(packages / name) for name in ("bench", "anonymizers", "attackers")]
        self._scratch = tuple(dict.fromkeys(("/tmp", os.environ.get("HOME", "/tmp"), "/dev/null", "/dev/shm")))
        self._readable = (*own, str(folder), *self._scratch, *(entry for entry in sys.path if "site-packages" in entry))

    def hook(self, event: str, arguments: tuple) -> None:
        """For `sys.addaudithook`."""
        if event in _NETWORK:
            self._note("network", f"{event} {arguments[-1]!r}"[:120])
        elif event in _PROCESSES:
            self._note("processes", event)
        elif event in _LINKS:
            self._note("links", f"{arguments[0]!r} to {arguments[1]!r}"[:120])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            writes = any(c in str(arguments[1] or "") for c in "wax+") or bool((arguments[2] or 0) & _WRITES)
            allowed = self._scratch if writes else self._readable
            if not any(path == top or path.startswith(f"{top.rstrip('/')}/") for top in allowed):
                self._note("write outside" if writes else "read outside", path[:120])

    def _note(self, kind: str, what: str) -> None:
        text = f"{kind}: {what}"
        if text not in self.found and len(self.found) < _MOST_NOTED:
            self.found.append(text)


class Worker:
    """One loaded class and what it was given.

    Args:
        value: Instance of the submitted class.
    """

    def __init__(self, value: Anonymizer | Attacker):
        self.value = value
        self._state: dict[str, Tensor] = {}

    def describe(self, asked: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict, dict]:
        kind = "anonymizer" if isinstance(self.value, Anonymizer) else "attacker"
        names = ("stochastic", "learns", "uses", "causal") if kind == "anonymizer" else ("target", "control")
        stated = {name: getattr(self.value, name) for name in (*names, "code_version")}
        values = {field.name: getattr(self.value, field.name) for field in fields(self.value)}
        return {"kind": kind, **stated, "values": values, "parameters": describe_parameters(type(self.value))}, {}

    def promises(self, asked: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict, dict]:
        """What does not hold of the isolation; asked where only code of this package is loaded."""
        return {"broken": broken()}, {}

    def fit(self, asked: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict, dict]:
        clips, preset = _clips(asked, tensors), _preset(asked["preset"])
        parts = {name: _part(stated, tensors, name) for name, stated in asked["parts"].items()}
        sizes = {name: asked[name] for name in ("release_frames", "release_clips")}
        fitted = self.value.fit(Examples(clips, parts, preset, asked["seed"], **sizes))
        return {"info": dict(fitted.info)}, dict(fitted.state)

    def state(self, asked: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict, dict]:
        self._state = dict(tensors)
        return {}, {}

    def transform(self, asked: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict, dict]:
        seeds = tuple(tensors["seeds"].tolist())
        batch = ClipBatch(tensors["clips"], tensors["lengths"], seeds, get_layout(asked["layout"]), asked["frame_rate"])
        with torch.no_grad():
            out = self.value.transform(batch, self._state)
        if not isinstance(out, Tensor) or out.dtype != torch.float32:
            raise TypeError(f"transform must return float32 clips, got {getattr(out, 'dtype', type(out).__name__)}")
        return {}, {"clips": out}

    def learn(self, asked: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict, dict]:
        clips, part = _clips(asked, tensors), _part(asked["part"], tensors, "part")
        with TemporaryDirectory(dir="/tmp") as name:
            folder = Path(name)
            info = self.value.fit(clips, part, _preset(asked["preset"]), folder, seed=asked["seed"])
            files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
            found = {name: _bytes(path) for name, path in files.items()}
        return {"info": dict(info or {})}, found

    def score(self, asked: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict, dict]:
        clips, part = _clips(asked, tensors), _part(asked["part"], tensors, "part")
        with TemporaryDirectory(dir="/tmp") as scratch:
            folder = Path(scratch)
            for name in asked["files"]:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tensors[f"file/{name}"].numpy().tobytes())
            scores = self.value.scores(clips, np.arange(len(clips)), part, _preset(asked["preset"]), folder)
        return {}, {"scores": torch.from_numpy(np.ascontiguousarray(scores, dtype=np.float32))}


def _bytes(path: Path) -> Tensor:
    return torch.from_numpy(np.fromfile(path, dtype=np.uint8))


def _clips(asked: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ClipSet:
    first, lengths, bodies = tensors["index"].T.contiguous()
    names = np.array([f"clip-{i}" for i in range(len(first))], dtype=object)
    layout, rate = get_layout(asked["layout"]), asked["frame_rate"]
    return ClipSet(tensors["rows"], first, lengths, bodies, names, layout, asked["num_bodies"], rate)


def _part(stated: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> Part:
    names = ("labels", "train", "validation", "test", "subjects", "performances")
    arrays = {key: tensors[f"{name}/{key}"].numpy() for key in names}
    return Part(stated["target"], tuple(stated["classes"]), **arrays)


def _preset(stated: Mapping[str, Any]) -> Preset:
    budgets = {name: TrainingConfig(**{**stated[name], "steps": tuple(stated[name]["steps"])}) for name in ("attack", "utility")}
    return Preset(**{**stated, **budgets})


def load(folder: Path, source: str, target: str, parameters: Mapping[str, Any]) -> Anonymizer | Attacker:
    """Imports the submitted class and makes it.

    Raises:
        TypeError: if it is no frozen dataclass that is an anonymizer or an attacker.
    """
    sys.path.insert(0, str(folder / source))
    module, _, name = target.partition(":")
    plugin = getattr(importlib.import_module(module), name)
    if not (isinstance(plugin, type) and issubclass(plugin, Anonymizer | Attacker) and is_dataclass(plugin)):
        raise TypeError(f"{target} is no dataclass that derives from bench.anonymizer.Anonymizer or bench.attacker.Attacker")
    return plugin(**parameters)


def _limit(limits: Mapping[str, float]) -> None:
    """Sets limits that the process itself cannot raise again."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if sys.platform == "linux" else 0
    wanted = {
        resource.RLIMIT_FSIZE: int(limits["file_mb"] * 2**20),
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _MOST_OPEN,  # what lies in pipes and sockets is nobody's memory
        resource.RLIMIT_NPROC: int(limits["processes"]),
        resource.RLIMIT_AS: int(pages * resource.getpagesize() + limits["memory_mb"] * 2**20),
    }
    for which, most in wanted.items():
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _kind(error: BaseException) -> str:
    """Which limit an error tells of."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "alloc" in type(error).__name__.lower():
        return "memory"
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
        return "file size"
    if isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN:
        return "processes"
    return "error"


def main() -> None:
    """Reads what to load, then answers requests. Standard output is the channel, so whatever prints goes to standard error."""
    _die_with_parent()
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    torch.set_num_threads(1)
    start, _ = receive(asked, _LARGEST)
    folder = Path(start["folder"])
    notes = Notes(folder)
    if start["clock"]:
        shift_clock(start["clock"])
    _limit(start["limits"])
    sys.addaudithook(notes.hook)
    worker: list[Worker] = []

    def make() -> tuple[dict, dict]:
        worker.append(Worker(load(folder, start["source"], start["target"], start["parameters"])))
        return worker[0].describe({}, {})

    _answer(answers, notes, make)
    while True:
        try:
            request, tensors = receive(asked, _LARGEST)
        except (EOFError, MessageError):
            return
        _answer(answers, notes, lambda request=request, tensors=tensors: getattr(worker[0], request["do"])(request, tensors))


def _answer(stream: IO[bytes], notes: Notes, act: Callable[[], tuple[dict, dict]]) -> None:
    try:
        value, tensors = act()
        send(stream, {**value, "noted": notes.found}, tensors)
    except BrokenPipeError:
        return
    except BaseException as error:  # whatever foreign code raises, SystemExit too, is an answer
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        send(stream, {"error": told, "kind": _kind(error), "noted": notes.found})
