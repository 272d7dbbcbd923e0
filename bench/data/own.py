"""One's own data: an npz with one array a clip, and a table of labels.

A folder with two files:

    clips.npz    one array for each clip, under its name: (T, V, 3) for one body or (T, M, V, 3) for several, metres; a body
                 that is absent in a frame is zero throughout.
    labels.csv   one row a clip: `clip` (name of its array), `action` and `subject`, `performance` (equal for clips that show
                 one performance, e.g. by several cameras; by default each clip is its own), and whatever else is known, such
                 as `gender`, `camera`, `setup`, `replication`. `action`, `subject`, `camera`, `setup` and `replication` are
                 whole numbers, all else is text. An empty cell is missing; `clip`, `action` and `subject` must not be empty.
"""

import csv
import io
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.data.dataset import DataError, Dataset
from bench.data.sources import DAMAGED, read_entry, short
from bench.data.tables import FARTHEST
from bench.protocols import Protocol, Split
from bench.skeleton import get_layout, layout_names
from bench.specs import param

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_CLIPS, _LABELS = "clips.npz", "labels.csv"
_NUMBERS = ("action", "subject", "camera", "setup", "replication")
_LARGEST = 2**30  # bytes of one clip
_SMALLEST_BODY, _LARGEST_BODY = 0.02, 10.0  # metres: less than a hand, and more than a tracker's errors make of a person
_LIKELY_BODY = (0.3, 2.5)  # metres: what most clips show of a person
_OTHER_UNITS = (("decimetres", 10), ("centimetres", 100), ("millimetres", 1000))  # how many in a metre
_MEASURED = 16  # frames of a clip in which a body's extent is measured


def _halves(name: str, by: str) -> Protocol:
    """Every second person tests what is asked of unseen people; `by` parts the performances of one person."""
    unseen, same = Split(by="people", train=(1,), unseen=True), Split(by=by, train=(1,), unseen=False)
    return Protocol(name, {"action": unseen, "subject": same, "gender": unseen, "linkage": unseen})


@dataclass(frozen=True)
class OwnData(Dataset):
    """Your own clips: a folder with `clips.npz` and `labels.csv`, see the README.

    People are unseen for actions and attributes (every second one tests); re-identification tests every second performance of
    each action by each person, with `--protocol xaction` performances of every second action, and with `xsetup-reid` those of a
    person's later set-ups. What learns from clips, such as `adversarial`, learns from those that no target tests: under `xaction`
    from half of the actions.
    """

    joints: str = param("ntu", "layout of the joints, see `bench list layouts`", choices=tuple(layout_names()))
    rate: float = param(30.0, "frames per second", minimum=0.1, maximum=1000.0)

    licence: ClassVar[str] = "your own data"
    citation: ClassVar[str] = "your own data"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "halves": _halves("halves/1", "occasions"),
        "xaction": _halves("xaction/1", "actions"),
        "xsetup-reid": _halves("xsetup-reid/1", "session"),
    }

    @property
    def layout(self) -> str:
        return self.joints

    @property
    def frame_rate(self) -> float:
        return self.rate

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads the folder; see `Dataset.read`.

        Raises:
            DataError: also if a clip has no labels, or labels no clip, or bodies have no size that people have in metres.
        """
        folder = Path(source)
        rows = read_labels(folder / _LABELS)
        try:
            archive = zipfile.ZipFile(folder / _CLIPS)
        except DAMAGED as error:
            raise DataError(f"{folder / _CLIPS} cannot be read ({short(error)}); numpy.savez writes such files") from error
        with archive:
            there = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            for kind, names in (("labels", there.keys() - rows.keys()), ("clip", rows.keys() - there.keys())):
                if names:
                    raise DataError(
                        f"{folder}: {min(names)} has no {kind} ({len(names)} such); {_CLIPS} and {_LABELS} must agree"
                    )
            extents = []
            for done, (name, labels) in enumerate(rows.items(), 1):
                clip = self._clip(archive, there[name], f"{name} of {folder / _CLIPS}")
                extents.append(body_extent(clip))
                writer.add_shown(clip, labels)
                progress(done, len(rows))
        _check_unit(extents, folder / _CLIPS)

    def _clip(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: str) -> np.ndarray:
        """One clip as (3, T, V, M); nothing is unpickled, and no more is unpacked than a clip can need."""
        if entry.file_size > _LARGEST:
            raise DataError(f"{place}: {entry.file_size} bytes unpacked, expected at most {_LARGEST}")
        try:
            array = np.lib.format.read_array(io.BytesIO(read_entry(archive, entry)), allow_pickle=False)
        except DAMAGED as error:
            raise DataError(f"{place}: no array of numbers ({short(error)})") from error
        joints = get_layout(self.joints).num_joints
        if array.ndim == 3:
            array = array[:, None]
        if array.dtype.kind not in "fiu" or array.ndim != 4 or array.shape[2:] != (joints, 3) or not array.size:
            raise DataError(
                f"{place}: shape {array.shape} of {array.dtype}, expected (T, {joints}, 3) or (T, M, {joints}, 3) of numbers"
            )
        if not (np.abs(array) < FARTHEST).all():  # NaN is far, too
            raise DataError(f"{place}: a coordinate is not a place in metres")
        return array.astype(np.float32).transpose(3, 0, 2, 1)


def body_extent(clip: np.ndarray) -> float:
    """Largest extent of body 0 along an axis, in the median frame; not a number if no frame shows two of its joints.

    Args:
        clip: (3, T, V, M); a joint at the origin is absent. Of longer clips, some frames spread over them are looked at.
    """
    frames = clip[:, :: max(1, clip.shape[1] // _MEASURED), :, 0].astype(np.float64)  # (3, T', V)
    there = frames.any(axis=0)
    frames, there = frames[:, there.sum(axis=1) > 1], there[there.sum(axis=1) > 1]
    if not len(there):
        return float("nan")
    sides = np.where(there, frames, -np.inf).max(axis=2) - np.where(there, frames, np.inf).min(axis=2)  # (3, T')
    return float(np.median(sides.max(axis=0)))


def _check_unit(extents: Sequence[float], place: Path) -> None:
    """Looks at all clips together: single ones may show a tracker's mistakes, or little of a body.

    Raises:
        DataError: if the median of those that could be measured is no body in metres.
    """
    measured = [extent for extent in extents if not math.isnan(extent)]
    if not measured or _SMALLEST_BODY <= (typical := float(np.median(measured))) <= _LARGEST_BODY:
        return
    low, high = _LIKELY_BODY
    likely = [f"these look like {unit}: divide by {count}" for unit, count in _OTHER_UNITS if low <= typical / count <= high]
    raise DataError(
        f"{place}: the body of the median clip would be {typical:.4g} m across, "
        f"expected {_SMALLEST_BODY:g} to {_LARGEST_BODY:g}; {'; '.join(['coordinates are in metres', *likely[:1]])}"
    )


def read_labels(path: Path) -> dict[str, dict[str, Any]]:
    """Clip name to its labels, in the order of the table.

    Raises:
        DataError: if a column or value is missing or of another form, or a clip is named twice.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        table = list(reader)
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there; --source takes a folder with {_CLIPS} and {_LABELS}, see the README") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    missing = [column for column in ("clip", "action", "subject") if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}")
    rows: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(table, 2):
        if None in row or None in row.values():
            raise DataError(f"{path}, line {number}: not as many cells as there are columns")
        found = {name: value.strip() for name, value in row.items()}
        for column in _NUMBERS:
            if found.get(column):
                try:
                    found[column] = int(found[column])
                except ValueError:
                    raise DataError(f"{path}, line {number}: {column} {found[column]!r} is no whole number") from None
        for column in ("clip", "action", "subject"):
            if found[column] == "":
                raise DataError(f"{path}, line {number}: no {column}")
        if found["clip"] in rows:
            raise DataError(f"{path}, line {number}: clip {found['clip']} is there twice")
        rows[found["clip"]] = {**found, "performance": found.get("performance") or found["clip"]}
    if not rows:
        raise DataError(f"{path} names no clip")
    return rows
