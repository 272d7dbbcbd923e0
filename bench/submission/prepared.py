"""Submissions without code as plugins: weights of a known method, anonymized clips, scores of an attack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.attacker import Attacker
from bench.data.clips import ClipSet
from bench.data.sources import LARGEST, read_entry
from bench.data.store import ClipStore
from bench.files import UserError
from bench.presets import Preset
from bench.protocols import Part
from bench.release import FittedAnonymizer
from bench.submission.hidden import rounded
from bench.training import Progress

NO_CODE = {"isolation": "no code"}


@dataclass(frozen=True)
class SubmittedWeights(Anonymizer):
    """A known method with what strangers taught it: it learns nothing here. `rounds` is as for `ForeignAnonymizer`."""

    folder: str = field(default="")
    stochastic: bool = False
    causal: bool = False
    code_version: int = 1
    rounds: bool = True
    blind = True

    def __post_init__(self) -> None:
        """Its method was checked when it was made."""

    def fit(self, examples: Examples) -> Fitted:
        loaded = _weights(self.folder)
        if loaded.layout != examples.clips.layout.name:
            raise UserError(f"its weights are for layout {loaded.layout}, these clips are of {examples.clips.layout.name}")
        return Fitted(dict(loaded.state), {**NO_CODE, "fitted_to": str(loaded.info.get("dataset", ""))[:100]})

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        out = _weights(self.folder).spec.value.transform(batch, state)
        return rounded(out) if self.rounds else out


@cache
def _weights(folder: str) -> FittedAnonymizer:
    return FittedAnonymizer.load(Path(folder))


@dataclass(frozen=True)
class SubmittedClips(Anonymizer):
    """Clips that strangers anonymized: the release is what they sent, found by the clips' names. There is one draw of it.

    `rounds` is as for `ForeignAnonymizer`.
    """

    folder: str = field(default="")
    stochastic = False
    code_version: int = 1
    rounds: bool = True

    def __post_init__(self) -> None:
        """The clips are checked by `check_clips`."""

    def fit(self, examples: Examples) -> Fitted:
        return Fitted(info=NO_CODE)

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        store, places = _clips(self.folder)
        out = torch.zeros_like(batch.clips)
        for i, name in enumerate(batch.names):
            if name not in places:
                raise UserError(f"the submitted clips lack {name}")
            clip = torch.from_numpy(store.clip(places[name]).copy()).to(out)
            if clip.shape[1] != int(batch.lengths[i]) or clip.shape[3] > out.shape[4] or clip.shape[2] != out.shape[3]:
                raise UserError(f"the submitted clip {name} has shape {tuple(clip.shape)}, which does not fit the raw one")
            out[i, :, : clip.shape[1], :, : clip.shape[3]] = clip
        return rounded(out) if self.rounds else out


@cache
def _clips(folder: str) -> tuple[ClipStore, Mapping[str, int]]:
    store = ClipStore.open(Path(folder))
    return store, {name: i for i, name in enumerate(store.labels["clip"])}


def check_clips(folder: Path, source: ClipStore) -> list[str]:
    """What is wrong with submitted clips, compared with the data set that they are to stand for: a line each."""
    store, places = _clips(str(folder))
    if store.layout.name != source.layout.name:
        return [f"they are of layout {store.layout.name}, the data set is of {source.layout.name}"]
    problems, names = [], source.labels["clip"].tolist()
    if missing := [name for name in names if name not in places]:
        problems.append(f"{len(missing)} clips are missing, such as {missing[0]}; train and test parts are both needed")
    for i, name in enumerate(names):
        if name in places:
            (_, length, bodies), (_, own_length, own_bodies) = source.index[i], store.index[places[name]]
            if (length, bodies) != (own_length, own_bodies):
                problems.append(f"clip {name} has {own_length} frames of {own_bodies} bodies, the raw one {length} of {bodies}")
                break
    if not np.isfinite(store.rows).all():
        problems.append("some coordinates are not finite")
    return problems


@dataclass(frozen=True)
class SubmittedScores(Attacker):
    """What strangers say of released clips: it learns nothing, and is right or wrong.

    Whoever has the data has the labels too, and can write down the right answers: that they were read from the release is not
    shown. So it counts as little as a control does: it is listed, changes no rank, and no other row's flags.
    """

    file: str = field(default="")
    target: str = "subject"
    code_version: int = 1
    first_draw_only = True
    control = True

    def __post_init__(self) -> None:
        """The file is checked when it is read."""

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        return dict(NO_CODE)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return {}

    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        """Their scores, in the order of our classes; of clips that are not tested they say nothing, which is equal ones.

        Raises:
            UserError: if clips or classes are missing.
        """
        if not np.isin(indices, part.test).all():  # to choose among models, of which there is only one
            return np.full((len(indices), len(part.classes)), 1 / len(part.classes), dtype=np.float32)
        return pick_scores(read_scores(Path(self.file)), clips.names[indices], part.classes)


def pick_scores(found: Mapping[str, np.ndarray], names: Sequence[str], classes: Sequence[Any]) -> np.ndarray:
    """The scores of clips in the order of classes, (clips, classes).

    Raises:
        UserError: if a clip or a class is missing.
    """
    columns = {value: k for k, value in enumerate(found["classes"].tolist())}
    if lacking := [value for value in map(str, classes) if value not in columns]:
        raise UserError(f"the scores lack the class {lacking[0]}; there are {', '.join(map(str, classes))}")
    rows = {name: i for i, name in enumerate(found["clip"].tolist())}
    if missing := [name for name in names if name not in rows]:
        raise UserError(f"the scores lack {len(missing)} of {len(names)} test clips, such as {missing[0]}")
    return found["scores"][[rows[name] for name in names]][:, [columns[str(value)] for value in classes]]


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of scores; sizes are checked before anything is unpacked, and nothing is unpickled.

    Raises:
        UserError: if it is damaged, or its arrays are not those that are asked for.
    """
    import io
    import zipfile

    from bench.data.sources import DAMAGED

    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            for name in ("clip", "classes", "scores"):
                entry = entries[f"{name}.npy"]
                if entry.file_size > LARGEST:
                    raise UserError(f"{path.name}: {name} would unpack to {entry.file_size} bytes, at most {LARGEST} are read")
                found[name] = np.lib.format.read_array(io.BytesIO(read_entry(archive, entry)), allow_pickle=False)
    except UserError:
        raise
    except (*DAMAGED, zipfile.BadZipFile) as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{path.name} is no npz with clip, classes and scores, without objects ({told})") from error
    clip, classes, scores = found["clip"], found["classes"], found["scores"]
    if clip.dtype.kind != "U" or classes.dtype.kind != "U" or clip.ndim != 1 or classes.ndim != 1:
        raise UserError(f"{path.name}: clip and classes must be lists of texts, got {clip.dtype} and {classes.dtype}")
    if scores.dtype != np.float32 or scores.shape != (len(clip), len(classes)) or not np.isfinite(scores).all():
        raise UserError(
            f"{path.name}: scores must be finite float32 of shape {(len(clip), len(classes))}, got {scores.dtype} {scores.shape}"
        )
    if len(set(clip.tolist())) < len(clip) or len(set(classes.tolist())) < len(classes):
        raise UserError(f"{path.name}: a clip or a class is there twice")
    return found
