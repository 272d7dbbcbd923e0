"""The ragged clip store: all frames of all clips end to end, memory-mapped, with a table of labels beside them.

One folder:

    frames.npy    (R, 3, V) float32, metres. A clip of T frames and M bodies owns T * M consecutive rows, frame by frame,
                  and within a frame body by body. A body that is absent in a frame is exactly zero.
    index.npy     (N, 3) int64: first row, frames and bodies of each clip.
    labels.csv    one row a clip: `clip` (unique name), `action`, `subject`, `performance`, and whatever else is known
                  (`camera`, `setup`, `replication`, `gender`, ...). An empty cell is missing.
    meta.json     data set, layout, frame rate, licence, citation, reader version, skipped files, people's heights, fingerprint.

Nothing is padded on disk. The fingerprint is a digest of rows, index, labels and layout: two stores with equal fingerprints
hold the same data.
"""

import csv
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bench.files import UserError, atomic_folder, read_json, resumable_folder, write_json
from bench.skeleton import Layout, get_layout, layout_names

SCHEMA = 1
_ROWS_AT_A_TIME = 100_000
HEIGHT_CLASS, HEIGHT_CLASSES = "height_class", ("short", "medium", "tall")
_MEASURED = 16  # frames of a clip in which height is measured
REQUIRED_LABELS = ("clip", "action", "subject", "performance")


class StoreError(UserError):
    """A clip store is missing, damaged or of another schema."""


class ClipError(StoreError, ValueError):
    """A clip cannot be written: its shape, numbers, labels or name are wrong."""


class ClipWriter:
    """Writes a clip store, clip by clip, in flat memory. The folder appears whole on a clean exit, or not at all.

    Args:
        path: Folder to create; an existing store there is replaced.
        layout: Layout of the clips.
        meta: What else `meta.json` states (JSON values). `skipped` may be filled while writing by `skip`.
        resume: If given, work that was interrupted (not: that failed) goes on where it ended at the next attempt with the same
            text, which must stand for everything that decides on the clips and their order. Until it is found again, every clip
            must be offered in the same order; those for which `has` is true are not written twice.
    """

    def __init__(self, path: Path, layout: Layout, meta: Mapping[str, Any], resume: str | None = None):
        self._folder = atomic_folder(Path(path)) if resume is None else resumable_folder(Path(path), resume)
        self._files = ExitStack()
        self._resumes = resume is not None
        self._layout = layout
        self._meta = dict(meta)
        self._index: list[tuple[int, int, int]] = []
        self._labels: list[Mapping[str, Any]] = []
        self._names: set[str] = set()
        self._skipped: list[dict[str, str]] = []
        self._heights: dict[Any, list[float]] = {}
        self._earlier: set[str] = set()  # names that an interrupted attempt has dealt with, until they are offered again
        self.resumed = 0  # how many these were
        self._rows = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> "ClipWriter":
        self._path = self._folder.__enter__()
        try:
            frames = self._path / "frames.npy"
            self._file = self._files.enter_context(frames.open("r+b" if frames.exists() else "w+b"))
            self._write_header()
            if self._resumes:
                self._go_on()
            self._file.truncate()
        except Exception as failure:  # nobody else would remove what cannot be gone on with
            with suppress(OSError):  # there may be no room for what is buffered
                self._files.close()
            self._folder.__exit__(type(failure), failure, failure.__traceback__)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            with suppress(OSError):
                self._files.close()
            self._folder.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._files.close()
        self._folder.__exit__(kind, error, trace)

    def __len__(self) -> int:
        return len(self._index)

    def has(self, name: str) -> bool:
        """Whether an interrupted attempt has written or left out this clip, so that its file need not be read again.

        Asking is offering: a name that is offered a second time is not known any more, and refused like any other.
        """
        if name not in self._earlier:
            return False
        self._earlier.remove(name)
        return True

    def add(self, clip: np.ndarray, labels: Mapping[str, Any]) -> None:
        """Appends a clip (3, T, V, M) in metres; trailing bodies that are absent throughout are dropped.

        Raises:
            ClipError: if the shape does not fit the layout, a coordinate is not finite, no body is present, a required
                label is missing or the clip's name is already taken.
        """
        missing = [column for column in REQUIRED_LABELS if labels.get(column) in (None, "")]
        if missing:
            raise ClipError(f"clip {labels.get('clip')!r}: no value for {', '.join(missing)}")
        name = str(labels["clip"])
        if self.has(name):
            return
        if name in self._names:
            raise ClipError(f"clip {name!r} was already written")
        if clip.ndim != 4 or clip.shape[0] != 3 or clip.shape[2] != self._layout.num_joints or not clip.shape[1]:
            raise ClipError(f"clip {name!r}: expected shape (3, T, {self._layout.num_joints}, M), got {clip.shape}")
        if not np.isfinite(clip).all():
            raise ClipError(f"clip {name!r}: {int((~np.isfinite(clip)).sum())} coordinates are not finite")
        present = np.flatnonzero(clip.any(axis=(0, 1, 2)))
        if not present.size:
            raise ClipError(f"clip {name!r}: no body is present")
        bodies = int(present[-1]) + 1
        rows = np.ascontiguousarray(clip[..., :bodies].transpose(1, 3, 0, 2), dtype="<f4")  # (T, M, 3, V)
        data = rows.tobytes()
        self._file.write(data)
        self._append(data, clip.shape[1], bodies, labels)
        self._note({"labels": dict(labels), "frames": clip.shape[1], "bodies": bodies, "check": zlib.crc32(data)})

    def add_shown(self, clip: np.ndarray, labels: Mapping[str, Any]) -> None:
        """As `add`, but a clip in which nobody is seen is left out."""
        if clip.any():
            self.add(clip, labels)
        else:
            self.skip(str(labels["clip"]), "all coordinates are zero: no body")

    def _append(self, data: bytes, frames: int, bodies: int, labels: Mapping[str, Any]) -> None:
        self._hash.update(data)
        self._index.append((self._rows, frames, bodies))
        self._rows += frames * bodies
        self._labels.append(dict(labels))
        self._names.add(str(labels["clip"]))
        body = np.frombuffer(data, dtype="<f4").reshape(frames, bodies, 3, -1)[:, 0]
        alone = labels.get("actors", 1) == 1  # of two, the labels do not say who is who
        if alone and (tall := standing_height(body, self._layout)) > 0:
            self._heights.setdefault(labels["subject"], []).append(tall)

    def skip(self, name: str, reason: str) -> None:
        """Notes a file or clip that is left out, and by which rule."""
        if not self.has(name):
            self._skipped.append({"clip": name, "reason": reason})
            self._note({"skipped": name, "reason": reason})

    def _note(self, entry: Mapping[str, Any]) -> None:
        """Writes down what was done, after what was done: a journal that is ahead of the frames would be a lie."""
        if self._resumes:
            self._file.flush()
            self._journal.write(json.dumps(entry) + "\n")
            self._journal.flush()

    def _go_on(self) -> None:
        """Takes over what an interrupted attempt wrote, up to the first entry of its journal that is cut or does not fit."""
        path = self._path / "journal.jsonl"
        size = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            start = self._file.tell()
            try:
                self._take_over(line)
            except (ValueError, KeyError, TypeError):
                self._file.seek(start)
                break
            size += len(line)
        self.resumed = len(self._earlier)
        self._journal = self._files.enter_context(path.open("a", encoding="utf-8"))
        self._journal.truncate(size)

    def _take_over(self, line: bytes) -> None:
        """One entry of the journal.

        Raises:
            ValueError, KeyError, TypeError: if it is cut, or does not fit the frames.
        """
        if not line.endswith(b"\n"):
            raise ValueError("cut")
        entry = json.loads(line)
        if "skipped" in entry:
            self._skipped.append({"clip": entry["skipped"], "reason": entry["reason"]})
            self._earlier.add(entry["skipped"])
            return
        labels, frames, bodies = dict(entry["labels"]), entry["frames"], entry["bodies"]
        if type(frames) is not int or type(bodies) is not int or min(frames, bodies) < 1:
            raise ValueError("no frames")
        size = 4 * 3 * self._layout.num_joints * frames * bodies
        if size > os.fstat(self._file.fileno()).st_size:
            raise ValueError("more than there is")
        data = self._file.read(size)
        if zlib.crc32(data) != entry["check"] or any(labels.get(column) in (None, "") for column in REQUIRED_LABELS):
            raise ValueError("does not fit the frames")
        self._append(data, frames, bodies, labels)
        self._earlier.add(str(labels["clip"]))

    def _write_header(self) -> None:
        # numpy pads the header so that a larger first axis fits later in the same number of bytes.
        shape = (self._rows, 3, self._layout.num_joints)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})

    def _finish(self) -> None:
        if not self._index:
            raise StoreError(f"no clip could be read ({len(self._skipped)} skipped)")
        self._file.seek(0)
        self._write_header()
        if self._resumes:
            self._journal.close()
            (self._path / "journal.jsonl").unlink()
        index = np.asarray(self._index, dtype="<i8")
        np.save(self._path / "index.npy", index)
        text = _labels_csv(self._labels)
        (self._path / "labels.csv").write_text(text, encoding="utf-8", newline="")
        for part in (index.tobytes(), text.encode(), self._layout.name.encode()):
            self._hash.update(part)
        meta = {
            **self._meta,
            "schema": SCHEMA,
            "layout": self._layout.name,
            "units": "metres",
            "skipped": self._skipped,
            "clips": len(index),
            "frames": int(index[:, 1].sum()),
            "heights": {str(subject): round(float(np.median(found)), 4) for subject, found in sorted(self._heights.items())},
            "fingerprint": self._hash.hexdigest()[:16],
        }
        write_json(self._path / "meta.json", meta)


def standing_height(body: np.ndarray, layout: Layout) -> float:
    """Median length, in metres, of the way from the head down to the ankles along the bones; 0 if it cannot be measured.

    It does not hang on posture. What is above the head's joint and below the ankles is missing. The mean of both legs counts.

    Args:
        body: (T, 3, V); a joint at the origin is absent. Of longer clips, some frames spread over them are looked at.
        layout: Layout of the joints.
    """
    frames = body[:: max(1, len(body) // _MEASURED)].astype(np.float64)
    bones: list[tuple[int, int, float]] = []
    for name, share in (("head", 1.0), ("left ankle", 0.5), ("right ankle", 0.5)):
        joint = layout.index(name)
        while joint != layout.root:
            bones.append((joint, layout.parents[joint], share))
            joint = layout.parents[joint]
    children, parents, shares = (np.array(column) for column in zip(*bones, strict=True))
    there = frames.any(axis=1)  # (T, V)
    seen = there | ~there.any(axis=0)  # a joint that is at the origin throughout is not absent: the clip is centred on it
    whole = seen[:, children].all(axis=1) & seen[:, parents].all(axis=1) & there.any(axis=1)
    if not whole.any():
        return 0.0
    lengths = np.linalg.norm(frames[whole][:, :, children] - frames[whole][:, :, parents], axis=1)  # (T', B)
    return float(np.median(lengths, axis=0) @ shares)


def _labels_csv(labels: Sequence[Mapping[str, Any]]) -> str:
    extra = {column: None for row in labels for column in row if column not in REQUIRED_LABELS}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*REQUIRED_LABELS, *extra], lineterminator="\n")
    writer.writeheader()
    writer.writerows(labels)
    return text.getvalue()


@dataclass(frozen=True)
class ClipStore:
    """A clip store on disk, opened for reading; frames stay memory-mapped.

    Args:
        path: Folder of the store.
        meta: Content of `meta.json`.
        index: (N, 3) int64: first row, frames and bodies of each clip.
    """

    path: Path
    meta: Mapping[str, Any]
    index: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "ClipStore":
        """Opens a store and checks that its parts belong together.

        Raises:
            StoreError: if a file is missing, damaged, or written by another schema.
        """
        path = Path(path)
        try:
            meta = read_json(path / "meta.json")
            index = np.load(path / "index.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError) as error:  # of memory, a damaged header may ask for any amount
            raise StoreError(f"{path} is not a whole clip store ({error}); prepare the data again") from error
        schema = meta.get("schema") if isinstance(meta, dict) else None
        if schema != SCHEMA or meta.get("layout") not in layout_names():
            found = f"schema {schema} and layout {meta.get('layout')}" if schema == SCHEMA else f"schema {schema}"
            raise StoreError(f"{path} has {found}, this version reads schema {SCHEMA}; prepare the data again")
        store = cls(path, meta, index)
        heights = meta.get("heights", {})
        if not isinstance(heights, dict) or not all(isinstance(tall, int | float) for tall in heights.values()):
            raise StoreError(f"{path / 'meta.json'} is damaged; prepare the data again")
        counts = index.ndim == 2 and index.shape[1] == 3 and len(index) and index.dtype == np.int64 and (index[:, 1:] > 0).all()
        ends = np.cumsum(index[:, 1] * index[:, 2]) if counts else None
        if ends is None or not np.array_equal(index[:, 0], [0, *ends[:-1]]):
            raise StoreError(f"{path / 'index.npy'} is damaged; prepare the data again")
        rows = int(ends[-1])
        if store.rows.shape != (rows, 3, store.layout.num_joints) or store.rows.dtype != np.float32:
            there = f"{store.rows.dtype} of shape {store.rows.shape}"
            raise StoreError(f"{path / 'frames.npy'} holds {there}, its index asks for {rows} rows; prepare the data again")
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        return ClipStore.open, (self.path,)  # another process maps the files itself

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.clip(i) for i in range(len(self)))

    @property
    def layout(self) -> Layout:
        return get_layout(self.meta["layout"])

    @property
    def fingerprint(self) -> str:
        return self.meta["fingerprint"]

    def measured_fingerprint(self) -> str:
        """Fingerprint of what lies on the disk now."""
        found = hashlib.sha256()
        for rows in np.array_split(self.rows, max(1, len(self.rows) // _ROWS_AT_A_TIME)):
            found.update(np.ascontiguousarray(rows, dtype="<f4"))
        index = np.ascontiguousarray(self.index, dtype="<i8")
        for part in (index.tobytes(), (self.path / "labels.csv").read_bytes(), self.layout.name.encode()):
            found.update(part)
        return found.hexdigest()[:16]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) frames of each clip."""
        return self.index[:, 1]

    @property
    def num_bodies(self) -> int:
        """Largest number of bodies in a clip."""
        return int(self.index[:, 2].max())

    @cached_property
    def rows(self) -> np.ndarray:
        """(R, 3, V) float32, memory-mapped, read-only."""
        try:
            return np.load(self.path / "frames.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{self.path / 'frames.npy'} cannot be read ({error}); prepare the data again") from error

    @cached_property
    def labels(self) -> Any:
        """The table of labels (pandas): strings where a column holds text, nullable integers where it holds numbers.

        `height_class` is measured, not stated by anybody: the third of all people in which the median of `standing_height` over
        a person's clips lies. It is not there for stores without heights or with less than three people.
        """
        table = self._table.copy()
        heights = {int(subject): tall for subject, tall in self.meta.get("heights", {}).items()}
        if len(heights) >= len(HEIGHT_CLASSES):
            order = sorted(heights, key=lambda subject: (heights[subject], subject))
            third = {subject: HEIGHT_CLASSES[len(HEIGHT_CLASSES) * k // len(order)] for k, subject in enumerate(order)}
            table[HEIGHT_CLASS] = table["subject"].map(third).astype("string")
        return table

    @cached_property
    def _table(self) -> Any:
        """The table of labels as written."""
        import pandas as pd

        path = self.path / "labels.csv"
        try:
            table = pd.read_csv(path, dtype={"clip": str, "performance": str}, keep_default_na=False, na_values=[""])
            table = table.convert_dtypes()
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read ({error}); prepare the data again") from error
        if len(table) != len(self) or not set(REQUIRED_LABELS) <= set(table):
            raise StoreError(f"{path} describes {len(table)} clips, the index {len(self)}; prepare the data again")
        return table

    def label_rows(self) -> Iterator[dict[str, Any]]:
        """One mapping a clip, as `ClipWriter.add` takes them; "" where a label is missing."""
        labels = self._table
        columns = [labels[name].astype(object).where(labels[name].notna(), "") for name in labels]
        return (dict(zip(labels, row, strict=True)) for row in zip(*columns, strict=True))

    def clip(self, i: int) -> np.ndarray:
        """Clip `i` as (3, T, V, M)."""
        first, frames, bodies = self.index[i]
        rows = self.rows[first : first + frames * bodies]
        return rows.reshape(frames, bodies, 3, -1).transpose(2, 0, 3, 1)
