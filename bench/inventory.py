"""What lies in a results folder: whether it is whole, and what of it nobody needs."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from bench.data.store import ClipStore
from bench.files import UserError, digest, read_json
from bench.records import IDENTITY, Record, records
from bench.stages import content_of


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


class Inventory:
    """Everything in a results folder.

    Args:
        results: The folder.
    """

    def __init__(self, results: Path):
        self.results = results
        self.stages = {path.parent.name: Stage(path.parent, read_json(path)) for path in results.glob("stages/*/*/stage.json")}
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

    def damage(self) -> Iterator[tuple[Path, str]]:
        """Whatever is not as it was written: the path, and what is wrong with it."""
        for stage in self.stages.values():
            yield from ((stage.path, wrong) for wrong in _stage_damage(stage))
        for record in self.records:
            yield from ((record.path, wrong) for wrong in _record_damage(record, self.stages))
        for meta in sorted((self.results / "data").glob("*/meta.json")):
            store = ClipStore.open(meta.parent)
            if store.measured_fingerprint() != store.fingerprint:
                yield meta.parent, "its clips or labels differ from its fingerprint; prepare it again"

    def free(self, *, really: bool) -> tuple[int, int]:
        """Removes stages that no record needs, and what killed processes left behind.

        Args:
            really: Whether to remove them, or only to count.

        Returns:
            Folders removed, and their bytes.
        """
        needed, count, size = self.needed(), 0, 0
        doomed = [stage.path for key, stage in self.stages.items() if key not in needed]
        doomed += [path for path in self.results.glob("stages/*/.*") if path.is_dir()]
        for path in doomed:
            with _not_in_use(path) as idle:
                if idle:
                    count, size = count + 1, size + sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                    if really:
                        shutil.rmtree(path)
        if really:
            for lock in self.results.glob("stages/*/*.lock"):
                with _not_in_use(lock.with_suffix("")) as idle:
                    if idle:
                        lock.unlink(missing_ok=True)
        return count, size


@contextlib.contextmanager
def _not_in_use(path: Path) -> Iterator[bool]:
    """Whether nobody computes the stage of this folder; nobody begins to before the block ends."""
    lock = FileLock(path.parent / f"{path.name.lstrip('.').partition('.')[0]}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)


def _stage_damage(stage: Stage) -> Iterator[str]:
    state = stage.state
    try:
        if content_of(stage.path) != state["content"]:
            yield "its files differ from what was computed; remove the folder, and it is computed again"
        if digest({"stage": state["name"], "version": state["version"], "inputs": state["inputs"]}) != stage.path.name:
            yield "it lies under a wrong address; remove the folder"
    except OSError as error:
        yield f"it cannot be read: {error.strerror}"


def _record_damage(record: Record, stages: Mapping[str, Stage]) -> Iterator[str]:
    data = record.data
    if digest({name: data[name] for name in IDENTITY}) != record.path.stem or data["key"] != record.path.stem:
        yield "what it states of itself does not fit its name; remove it, and it is measured again"
    try:
        arrays = record.predictions()
    except UserError as error:
        yield str(error)
        return
    for name, of in data["stages"].items():
        which, _, draw = name.partition("/")
        stage = stages.get(of.get("key", ""))
        if stage is None or which not in arrays:
            continue
        expected = arrays[which] if which.endswith("_reference") else arrays[which][int(draw or 0)]
        if stage.state["content"] != of["content"]:
            yield f"{name}: it rests on another output than the one that lies there now"
        elif not np.array_equal(np.load(stage.path / "scores.npy", allow_pickle=False), expected):
            yield f"{name}: its predictions differ from those of the stage"
