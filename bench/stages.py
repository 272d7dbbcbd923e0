"""Content-addressed stages: each output is computed once, whole or absent, whoever asks for it and however often a run dies.

A stage's key is the digest of everything that determines its output: its name and code version, its own settings, and the
*content* digests of what it reads. So an anonymizer that changes nothing shares every later stage with the raw clips, and a
change of code that leaves an output as it was costs nothing downstream. Paths, hosts and worker counts are never part of it.
"""

import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.checkpoint import counting
from bench.files import digest, file_digest, json_text, put_in_place, read_json
from bench.time_limit import suspended

_STATE = "stage.json"
CHECKPOINT = ".checkpoint"  # ending of files from which an interrupted computation goes on


@dataclass(frozen=True)
class Output:
    """A finished stage.

    Args:
        path: Folder with its files.
        key: Address.
        content: Digest of its files' bytes.
        info: JSON values that the stage returned.
        seconds: Time it took when it was computed.
        peak_memory_mb: Largest memory of the process that computed it, until then.
        made_on: Where and how (`bench.execution.describe`); empty where nobody knows.
    """

    path: Path
    key: str
    content: str
    info: Mapping[str, Any]
    seconds: float
    peak_memory_mb: float
    made_on: Mapping[str, str] = field(default_factory=dict)


class MissingStageError(LookupError):
    """Stages that are asked for are not there, where none may be computed.

    Args:
        stages: Key of each, and the unit of work that makes it, once somebody knows.
    """

    def __init__(self, stages: Mapping[str, Any]):
        super().__init__(f"not there yet: {', '.join(stages)}")
        self.stages = dict(stages)


class StageStore:
    """Finished stages below one folder.

    Args:
        root: Folder of the store; made when first needed.

    Attributes:
        made_on: Where and how stages are computed, to be stated beside them; no part of any address.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.made_on: Mapping[str, str] = {}

    def run(
        self, name: str, version: int, inputs: Mapping[str, Any], compute: Callable[[Path], Mapping[str, Any] | None]
    ) -> Output:
        """Returns the stage's output, computing it only if it is not there yet.

        Args:
            name: Name of the stage, e.g. "train".
            version: Raised whenever the stage's code would give another output for the same inputs.
            inputs: Everything else that determines the output, as JSON values.
            compute: Writes files into the folder it is given and may return JSON values for `info`. Files whose names end in
                `CHECKPOINT` are no output: they are there again when a computation that did not come to its end is done again.
        """
        key, path = self._address(name, version, inputs)
        if (done := self._read(path, key)) is not None:
            return done
        path.parent.mkdir(parents=True, exist_ok=True)
        with suspended():
            lock = FileLock(path.parent / f"{key}.lock").acquire()  # released by the system if the process dies
        with lock:
            if (done := self._read(path, key)) is not None:  # another process finished it meanwhile
                return done
            for left_over in path.parent.glob(f".{key}.*.old"):  # of a process that was killed; we hold its lock
                shutil.rmtree(left_over, ignore_errors=True)
            started = time.perf_counter()
            with _partial_folder(path) as folder, counting() as earlier:
                info = dict(compute(folder) or {})
                state = {
                    "name": name,
                    "key": key,
                    "version": version,
                    "inputs": inputs,
                    "content": content_of(folder),
                    "info": info,
                    "seconds": round(sum(earlier) + time.perf_counter() - started, 3),
                    "peak_memory_mb": _peak_memory_mb(),
                    "made_on": dict(self.made_on),
                }
                (folder / _STATE).write_text(json_text(state), encoding="utf-8")  # the folder appears whole
        (path.parent / f"{key}.lock").unlink(missing_ok=True)
        done = self._read(path, key)
        assert done is not None
        return done

    def _address(self, name: str, version: int, inputs: Mapping[str, Any]) -> tuple[str, Path]:
        key = digest({"stage": name, "version": version, "inputs": inputs})
        return key, self.root / name / key

    @staticmethod
    def _read(path: Path, key: str) -> Output | None:
        """The stage as it lies there; None if it is absent, or damaged: then it is computed again, in its place."""
        try:
            state = read_json(path / _STATE)
            told = (state[name] for name in ("content", "info", "seconds", "peak_memory_mb"))
            return Output(path, key, *told, state.get("made_on", {}))  # stages of before do not say
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            warnings.warn(f"{path / _STATE} is damaged: the stage is computed again", stacklevel=2)
            return None


class FinishedStages(StageStore):
    """The same stages, to look at only: what is not there yet is not computed but told."""

    def __init__(self, root: Path):
        super().__init__(root)
        self._seen: dict[str, Output] = {}

    def run(
        self, name: str, version: int, inputs: Mapping[str, Any], compute: Callable[[Path], Mapping[str, Any] | None]
    ) -> Output:
        """As `StageStore.run`.

        Raises:
            MissingStageError: if the stage is not there.
        """
        key, path = self._address(name, version, inputs)
        if key not in self._seen:
            done = self._read(path, key)
            if done is None:
                raise MissingStageError({key: None})
            self._seen[key] = done
        return self._seen[key]


def content_of(folder: Path) -> str:
    """Digest of the names and bytes of a stage's files; checkpoints are none of them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / _STATE and _is_no_checkpoint(file))
    return digest({str(file.relative_to(folder)): file_digest(file) for file in files})


@contextmanager
def _partial_folder(path: Path) -> Iterator[Path]:
    """Yields a folder beside `path` and renames it at the end; the caller must hold a lock.

    It holds the checkpoints of earlier attempts, in their subfolders, and nothing else. They stay whatever an attempt ended with:
    a full disk and too little memory have many names, and whoever writes a checkpoint makes sure that it is whole and fits.
    """
    partial = path.parent / f".{path.name}.partial"
    partial.mkdir(exist_ok=True)
    _clear(partial, _is_no_checkpoint)
    try:
        yield partial
        put_in_place(partial, path)
        _clear(path, lambda file: not _is_no_checkpoint(file))  # now, and not before: nothing is lost that was not yet in place
    except Exception:
        with suppress(OSError):
            _clear(partial, _is_no_checkpoint)
            partial.rmdir()  # unless it holds some
        raise


def _is_no_checkpoint(file: Path) -> bool:
    return not file.name.endswith(CHECKPOINT)


def _clear(folder: Path, doomed: Callable[[Path], bool]) -> None:
    """Removes the files that are doomed, and the subfolders that are empty without them."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        if path.is_dir():
            with suppress(OSError):
                path.rmdir()
        elif doomed(path):
            path.unlink()


def _peak_memory_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
