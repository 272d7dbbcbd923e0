"""NTU RGB+D in the forms into which other projects convert it: what they name and what they hold, clip by clip.

Every clip keeps its name, so its labels are those of the `.skeleton` file; the action that a form states is compared with them.

* `2s-agcn`: `*_data_joint.npy`, (N, 3, 300, 25, 2), normalised and padded cyclically, with `*_label.pkl` beside each: (names,
  actions). The padding is taken off again.
* `ctr-gcn`: `NTU60_CS.npz`, `NTU60_CV.npz`, `NTU120_CSub.npz` or `NTU120_CSet.npz` with (N, 300, 150), moved to the first frame's
  spine. It names no clip: the list `skes_available_name.txt` of that project is needed beside it.
* `pyskl`: `ntu60_3danno.pkl` or `ntu120_3danno.pkl`: one annotation a clip, in camera space.
"""

import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.dataset import DataError
from bench.data.ntu_files import CLIP, JOINTS, clip_labels
from bench.data.pickles import as_array, read_pickle
from bench.data.sources import DAMAGED, open_entry, short
from bench.data.tables import FARTHEST

FORMS = ("2s-agcn", "ctr-gcn", "pyskl")
_BODIES = 2
_NAMES = "skes_available_name.txt"
_CLASSES = 1000  # more than there are actions
_LONGEST = 10_000  # frames of a clip
Found = Iterator[tuple[int, int, str, np.ndarray | None]]


def converted_clips(form: str, source: Path, wanted: Callable[[str], bool]) -> Found:
    """The clips of a converted data set.

    Args:
        form: One of `FORMS`.
        source: The file, or the folder that holds it.
        wanted: Whether a clip of this name is to be read.

    Yields:
        (done, total, name of the clip, clip (3, T, 25, M)), or None for a clip that shows nobody.

    Raises:
        DataError: if a file is missing, cut or of another form, or states another action than a clip's name.
    """
    read = {"2s-agcn": _agcn, "ctr-gcn": _ctr_gcn, "pyskl": _pyskl}[form]
    return read(source, wanted)


def _files(source: Path, pattern: str, expected: str) -> list[Path]:
    paths = [source] if source.is_file() else sorted(source.rglob("*"))
    found = [path for path in paths if re.fullmatch(pattern, path.name) and path.is_file()]
    if not found:
        raise DataError(f"no {expected} in {source}")
    return found


def _agreed(name: Any, action: Any, place: str) -> str:
    """The name of a clip without ending, after comparing the action that it names with the one stated (from 0)."""
    text = name if isinstance(name, str) else f"a {type(name).__name__}"  # what was not checked is not printed: it may be vast
    if not isinstance(name, str) or not CLIP.fullmatch(file := name.removesuffix(".skeleton") + ".skeleton"):
        raise DataError(f"{place}: {text[:60]!r} is no name of a clip, expected one like S001C001P001R001A001")
    labels = clip_labels(file)
    number = type(action) is int and 0 <= action < _CLASSES
    if not number or action + 1 != labels["action"]:
        said = str(action) if number else f"a {type(action).__name__}"
        raise DataError(f"{place}: {labels['clip']} is labelled {said}, expected {labels['action'] - 1}")
    return labels["clip"]


def _checked(clip: np.ndarray, place: str) -> np.ndarray | None:
    """The clip as float32; None if it shows nobody."""
    clip = clip.astype(np.float32)
    if not (np.abs(clip) < FARTHEST).all():  # NaN is far, too
        raise DataError(f"{place}: a coordinate is not a place in metres")
    return clip if clip.any() else None


def _agcn(source: Path, wanted: Callable[[str], bool]) -> Found:
    parts = []
    for path in _files(source, r"\w+_data_joint\.npy", "2s-AGCN arrays (train_data_joint.npy, val_data_joint.npy)"):
        names = path.with_name(path.name.replace("_data_joint.npy", "_label.pkl"))
        if not names.is_file():
            raise DataError(f"{path} needs {names.name} beside it, which names its clips")
        parts.append((path, _agcn_names(names), _mapped(path)))
    total = sum(len(names) for _, names, _ in parts)
    done, seen = 0, set()
    for path, names, clips in parts:
        if clips.shape[1] != 3 or clips.shape[3:] != (JOINTS, _BODIES) or len(clips) != len(names):
            raise DataError(f"{path} has shape {clips.shape}, expected ({len(names)}, 3, frames, {JOINTS}, {_BODIES})")
        for name, clip in zip(names, clips, strict=True):
            if name in seen:
                raise DataError(f"{path}: {name} is there twice in {source}; name the folder of one split")
            seen.add(name)
            done += 1
            if wanted(name):
                shown = _checked(clip, f"{name} of {path}")
                yield done, total, name, None if shown is None else _unpadded(shown)


def _agcn_names(path: Path) -> list[str]:
    content = read_pickle(path)
    if not isinstance(content, tuple | list) or len(content) != 2 or not all(isinstance(part, list) for part in content):
        raise DataError(f"{path} holds no pair of lists: names of clips and their actions")
    names, actions = content
    if len(names) != len(actions):
        raise DataError(f"{path} has {len(names)} names and {len(actions)} actions")
    return [_agreed(name, action, str(path)) for name, action in zip(names, actions, strict=True)]


def _mapped(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        raise DataError(f"{path} is no whole array ({short(error)}); copy it again") from error
    if array.ndim != 5 or array.dtype.kind != "f" or not 0 < array.shape[2] <= _LONGEST:
        raise DataError(f"{path} has shape {array.shape} of {array.dtype}, expected (clips, 3, frames, {JOINTS}, {_BODIES})")
    return array


def _unpadded(clip: np.ndarray) -> np.ndarray:
    """Frames up to the first repetition of body 0, or of body 1 where that alone repeats.

    Normalisation puts body 0 into the origin, so it repeats by itself; body 1 does where both were seen for the same time.
    """
    periods = [_period(clip[..., body]) for body in range(clip.shape[3]) if clip[..., body].any()]
    return clip[:, : min(periods, default=clip.shape[1])]


def _period(body: np.ndarray) -> int:
    """The least number of frames after which (3, T, V) repeats; T if it does not."""
    frames = body.shape[1]
    again = np.flatnonzero((body == body[:, :1]).all(axis=(0, 2)))[1:]
    return next((int(p) for p in again if np.array_equal(body[:, p:], body[:, : frames - p])), frames)


def _ctr_gcn(source: Path, wanted: Callable[[str], bool]) -> Found:
    path, *more = _files(source, r"NTU(60_C[SV]|120_C(Sub|Set))\.npz", "CTR-GCN arrays (NTU60_CS.npz, NTU120_CSub.npz, ...)")
    if more:
        raise DataError(f"{source} holds {path.name} and {more[0].name}, which show the same clips; name one of them")
    folders = [path.parent, path.parent / "statistics"]
    lists = [folder / _NAMES for folder in folders if (folder / _NAMES).is_file()]
    if not lists:
        raise DataError(f"{path} names no clip: put {_NAMES} of the CTR-GCN project (its folder statistics) beside it")
    sides = _ctr_gcn_order(path.stem, _listed(lists[0]))
    total, done = sum(map(len, sides.values())), 0
    for side, names in sides.items():
        actions = _rows(path, f"y_{side}", (len(names), None))
        clips = _rows(path, f"x_{side}", (len(names), None, 3 * JOINTS * _BODIES))
        for name, action, frames in zip(names, actions, clips, strict=True):
            _agreed(name, int(action.argmax()), str(path))
            done += 1
            if wanted(name):
                yield done, total, name, _checked(_bodies(frames), f"{name} of {path}")


def _listed(path: Path) -> list[str]:
    names = path.read_text(encoding="utf-8", errors="replace").split()
    for name in names:
        if not CLIP.fullmatch(f"{name}.skeleton"):
            raise DataError(f"{path}: {name[:60]!r} is no name of a clip, expected one like S001C001P001R001A001")
    return names


def _ctr_gcn_order(stem: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Names of the training and the test clips in the order of that project: by person, camera or set-up, then as listed."""
    from bench.data.ntu import XSUB_60, XSUB_120

    label, train = {
        "NTU60_CS": ("subject", XSUB_60),
        "NTU60_CV": ("camera", (2, 3)),
        "NTU120_CSub": ("subject", XSUB_120),
        "NTU120_CSet": ("setup", tuple(range(2, 33, 2))),
    }[stem]
    value = {name: clip_labels(f"{name}.skeleton")[label] for name in names}
    ordered = sorted(names, key=value.__getitem__)
    return {
        "train": [name for name in ordered if value[name] in train],
        "test": [name for name in ordered if value[name] not in train],
    }


def _rows(path: Path, name: str, expected: tuple[int | None, ...]) -> Iterator[np.ndarray]:
    """The rows of an array of an npz, one in memory at a time."""
    place = f"{path}: {name}"
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            file = stack.enter_context(open_entry(archive, archive.getinfo(f"{name}.npy")))
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version](file)
        except DAMAGED as error:
            raise DataError(f"{place} is no array ({short(error)})") from error
        shape, columns_first, dtype = header
        fits = len(shape) == len(expected) and all(want in (None, have) for have, want in zip(shape, expected, strict=True))
        if not fits or columns_first or dtype.kind not in "fiu" or not all(0 < extent <= _LONGEST for extent in shape[1:]):
            wish = ", ".join("any" if want is None else str(want) for want in expected)
            raise DataError(f"{place} has shape {shape} of {dtype}, expected ({wish}) of numbers")
        size = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        for _ in range(shape[0]):
            try:
                data = file.read(size)
            except DAMAGED as error:
                raise DataError(f"{place} cannot be read ({short(error)}); copy it again") from error
            if len(data) < size:
                raise DataError(f"{place} is cut short; copy it again")
            yield np.frombuffer(data, dtype).reshape(shape[1:])


def _bodies(frames: np.ndarray) -> np.ndarray:
    """(T, 150), two bodies side by side, as (3, T, 25, 2) without the empty frames at the end."""
    shown = np.flatnonzero(frames.any(axis=1))
    last = shown[-1] + 1 if shown.size else 1
    return frames[:last].reshape(last, _BODIES, JOINTS, 3).transpose(3, 0, 2, 1)


def _pyskl(source: Path, wanted: Callable[[str], bool]) -> Found:
    path, *more = _files(source, r"\w+\.pkl", "PYSKL annotations (ntu60_3danno.pkl)")
    if more:
        raise DataError(f"{source} holds {path.name} and {more[0].name}; name one of them")
    content = read_pickle(path)
    clips = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(clips, list) or not clips:
        raise DataError(f"{path} holds no list of annotations; expected a PYSKL file such as ntu60_3danno.pkl")
    for done, clip in enumerate(clips, 1):
        if not isinstance(clip, dict):
            raise DataError(f"{path}: annotation {done} is no table")
        name = _agreed(clip.get("frame_dir"), clip.get("label"), f"{path}, annotation {done}")
        joints = as_array(clip.get("keypoint"))
        if joints is None or joints.ndim != 4 or joints.shape[2:] != (JOINTS, 3) or joints.dtype.kind != "f" or not joints.size:
            shape = None if joints is None else joints.shape
            raise DataError(f"{path}: the keypoint of {name} has shape {shape}, expected (bodies, frames, {JOINTS}, 3)")
        if wanted(name):
            yield done, len(clips), name, _checked(joints[:_BODIES].transpose(3, 1, 2, 0), f"{name} of {path}")
