"""What lies in a results folder: whether it is whole, and what of it nobody needs."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.store import ClipStore
from bench.files import UserError, digest, read_json
from bench.records import IDENTITY, Record, broken_seal, records
from bench.stages import CHECKPOINT, content_of
from bench.workshop import rows_digest

_WRITTEN = ("records", "measured", "runs", "status")  # where single files are written


@dataclass(frozen=True)
class Stage:
    """A finished stage, as its `stage.json` states it."""

    path: Path
    state: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.state["key"]

    @cached_property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


@dataclass(frozen=True)
class Freed:
    """What was removed, or would be.

    Args:
        stages: Finished stages on which no record rests.
        left: Folders and files that killed processes left behind.
        size: Bytes of both.
        kept: Interrupted trainings that stay, since they can go on.
    """

    stages: int
    left: int
    size: int
    kept: int


class Inventory:
    """Everything in a results folder.

    Args:
        results: The folder.
    """

    def __init__(self, results: Path):
        self.results = results
        self.stages: dict[str, Stage] = {}
        self._unreadable: list[tuple[Path, str]] = []
        for path in sorted(results.glob("stages/*/[!.]*/stage.json")):
            try:
                self.stages[path.parent.name] = _read_stage(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._unreadable.append((path.parent, f"its stage.json cannot be read ({error}); the next run computes it again"))
        self.records = list(records(results / "records"))
        self._by_content: dict[str, set[str]] = {}
        for key, stage in self.stages.items():
            for content in (stage.state["content"], stage.state["info"].get("rows")):
                if content:
                    self._by_content.setdefault(content, set()).add(key)

    def with_content(self, content: str) -> set[str]:
        """Keys of the stages whose output, or whose clips, have this digest."""
        return self._by_content.get(content, set())

    def sources(self, stage: Stage) -> dict[str, set[str]]:
        """Keys of the stages that one directly rests on, by what they are to it.

        Of clips it is only known what they look like: all stages that gave these very clips are named. What an anonymizer learnt
        is that of the same anonymizer.
        """
        inputs, found = stage.state["inputs"], {}
        for field, value in inputs.items():
            if isinstance(value, str) and value in self.stages:
                found[field] = {value}
            elif isinstance(value, str) and (keys := self.with_content(value)):
                same = {key for key in keys if self.stages[key].state["inputs"].get("anonymizer") == inputs.get("anonymizer")}
                found[field] = same if field == "fitted" else keys
        if isinstance(start := inputs.get("start"), Mapping):
            found["start"] = {key for key, one in self.stages.items() if one.state["inputs"] == start}
        return {field: keys - {stage.key} for field, keys in found.items() if keys - {stage.key}}

    def needed(self) -> set[str]:
        """Keys of the stages that some record rests on, directly or through others."""
        found: set[str] = set()
        ahead: set[str] = set()
        for record in self.records:
            for of in record.data["stages"].values():
                ahead |= {of["key"]} & set(self.stages) if "key" in of else self.with_content(of["content"])
        while ahead:
            found |= ahead
            sources = (keys for key in ahead for keys in self.sources(self.stages[key]).values())
            ahead = set().union(*sources) - found
        return found

    @cached_property
    def unsealed(self) -> int:
        """How many records were made before manifests stated digests of the other files: only their stages vouch for them."""
        return sum(_seal(record) == {} for record in self.records)

    def damage(self) -> Iterator[tuple[Path, str]]:
        """Whatever is not as it was written: the path, and what is wrong with it."""
        yield from self._unreadable
        for stage in self.stages.values():
            yield from ((stage.path, wrong) for wrong in self._stage_damage(stage))
        whole = {record.path for record in self.records}
        for path in sorted((self.results / "records").rglob("*.json")):
            if path not in whole and not path.name.endswith(".manifest.json") and (wrong := _unread(path)):
                yield path, wrong
        for record in self.records:
            yield from ((record.path, wrong) for wrong in _record_damage(record, self.stages))
        for meta in sorted((self.results / "data").glob("*/meta.json")):
            try:
                store = ClipStore.open(meta.parent)
                if store.measured_fingerprint() != store.fingerprint:
                    yield meta.parent, "its clips or labels differ from its fingerprint; prepare it again"
            except (UserError, OSError) as error:
                yield meta.parent, str(error)

    def _stage_damage(self, stage: Stage) -> Iterator[str]:
        state = stage.state
        try:
            if digest({"stage": state["name"], "version": state["version"], "inputs": state["inputs"]}) != stage.path.name:
                yield "it lies under a wrong address; remove the folder"
            if content_of(stage.path) != state["content"]:
                yield "its files differ from what was computed; remove the folder, and it is computed again"
            elif "rows" in state["info"] and self._rows(stage) not in (None, state["info"]["rows"]):
                yield "the digest that it states of its clips is not theirs; remove the folder, and it is computed again"
        except (OSError, ValueError) as error:
            yield f"it cannot be read: {getattr(error, 'strerror', None) or error}"

    def _rows(self, stage: Stage) -> str | None:
        """Digest of a stage's clips; None if the normalised clips are not whole, which tell where in the rows a clip begins."""
        ahead, seen = [stage.key], set()
        while ahead:
            seen.add(key := ahead.pop())
            clips = self.stages[key].path / "clips"
            if clips.is_dir():
                if key != stage.key and content_of(self.stages[key].path) != self.stages[key].state["content"]:
                    return None
                own = stage.path / "clips" if key == stage.key else stage.path
                return rows_digest(*(np.load(of, mmap_mode="r") for of in (own / "frames.npy", clips / "index.npy")))
            ahead += self.with_content(self.stages[key].state["inputs"].get("clips", "")) - seen
        return None

    def free(self, *, really: bool, interrupted: bool = False) -> Freed:
        """Removes stages that no record needs, and what killed processes left behind. The caller must be `alone` in the folder.

        Args:
            really: Whether to remove them, or only to count.
            interrupted: Whether trainings that were interrupted, and can go on from their checkpoints, are removed as well.
        """
        needed = self.needed()
        stages = [stage.path for key, stage in self.stages.items() if key not in needed]
        attempts = [path for of in ("stages/*/.*", ".audit-*") for path in self.results.glob(of) if path.is_dir()]
        kept = [] if interrupted else [path for path in attempts if any(path.rglob(f"*{CHECKPOINT}"))]
        files = [*(path for folder in _WRITTEN for path in (self.results / folder).rglob(".*.tmp")), *self._without_record()]
        doomed = [*stages, *(path for path in attempts if path not in kept), *files]
        size = sum(_size(file) for path in doomed for file in (path, *path.rglob("*")))
        if really:
            for path in doomed:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            for lock in self.results.glob("stages/*/*.lock"):
                lock.unlink(missing_ok=True)
        return Freed(len(stages), len(doomed) - len(stages), size, len(kept))

    def drop(self, doomed: Iterable[Record]) -> None:
        """Removes records. The caller must be `alone` in the folder."""
        for record in doomed:  # first the file without which the others are nothing
            record.path.unlink()
            record.path.with_suffix(".npz").unlink(missing_ok=True)
            record.path.with_name(f"{record.path.stem}.manifest.json").unlink(missing_ok=True)

    def _without_record(self) -> list[Path]:
        """Predictions and manifests whose writer was killed before it wrote the record itself."""
        folder = self.results / "records"
        beside = [path for ending in ("*.npz", "*.manifest.json") for path in folder.rglob(ending) if path.name[0] != "."]
        return [path for path in beside if not path.with_name(f"{path.name.partition('.')[0]}.json").exists()]


def _size(file: Path) -> int:
    """Bytes of a file; 0 of a folder, and of what somebody who makes a table has put in its place meanwhile."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0


def _read_stage(path: Path) -> Stage:
    """The stage that a `stage.json` describes.

    Raises:
        OSError, ValueError, KeyError, TypeError: if it is damaged.
    """
    state = read_json(path)
    if missing := {"name", "key", "version", "inputs", "content", "info", "seconds"} - set(state):
        raise KeyError(*missing)
    if not all(isinstance(state[name], dict) for name in ("inputs", "info")):
        raise TypeError("its inputs or what it states is no mapping")
    return Stage(path.parent, state)


def _unread(path: Path) -> str:
    """Why a record was not read; "" if it is only of another schema."""
    try:
        read_json(path)["schema"]
        whole = path.with_suffix(".npz").exists()
        wrong = broken_seal(path) if whole else "its predictions are missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong = f"it cannot be read ({type(error).__name__}: {error})"
    return f"{wrong}; the next run measures it again" if wrong else ""


def _seal(record: Record) -> Mapping[str, str]:
    """Digests of a record's other files, as its manifest states them; empty if it was made before they were stated."""
    try:
        return record.manifest().get("sha256", {})
    except UserError:
        return {"manifest": ""}  # it cannot state any


def _record_damage(record: Record, stages: Mapping[str, Stage]) -> Iterator[str]:
    if "manifest" in _seal(record):
        yield "its manifest is missing or damaged; remove the record, and it is measured again"
        return
    try:
        yield from _contradictions(record, stages)
    except OSError as error:
        yield f"it cannot be read: {error.strerror or error}"
    except UserError as error:
        yield str(error)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        yield f"it is no record ({type(error).__name__}: {error}); remove it, and it is measured again"


def _contradictions(record: Record, stages: Mapping[str, Stage]) -> Iterator[str]:
    """What a record says of itself and does not fit its name, or its stages as far as they are there."""
    data, arrays = record.data, record.predictions()
    if digest({name: data[name] for name in IDENTITY}) != record.path.stem or data["key"] != record.path.stem:
        yield "what it states of itself does not fit its name; remove it, and it is measured again"
    for name, of in data["stages"].items():
        which, _, draw = name.partition("/")
        stage = stages.get(of.get("key", ""))
        if stage is None or which not in arrays:
            continue
        expected = arrays[which] if which.endswith("_reference") else arrays[which][int(draw or 0)]
        if stage.state["content"] != of["content"]:
            yield f"{name}: it rests on another output than the one that lies there now"
        elif (scores := _scores(stage)) is not None and not np.array_equal(scores, expected):
            yield f"{name}: its predictions differ from those of the stage"


def _scores(stage: Stage) -> np.ndarray | None:
    """What an attacker said; None if the file is damaged, which is the stage's damage and not the record's."""
    try:
        return np.load(stage.path / "scores.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
