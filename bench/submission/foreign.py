"""Submitted code as plugins: to the rest of the house an anonymizer or an attacker like any other, run by a worker apart.

What crosses over is coordinates and, for training, labels of clips that nobody tests. The worker sees no names of clips, no rooms
and cameras, no label of a clip that it releases or names, and not the order in which clips are stored. Each training, each naming
and each release has a worker of its own: what one saw, the next cannot remember.
"""

import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted, coordinates_digest
from bench.attacker import Attacker
from bench.data.clips import ClipSet
from bench.presets import Preset
from bench.protocols import Part
from bench.submission.hidden import rounded
from bench.submission.session import Foreign, ForeignError, close, fresh_session, session_for
from bench.training import Progress

_SLACK = 2**16  # bytes of an answer beyond its arrays
_MOST_FILES = 1000
_LONGEST_NAME, _DEEPEST = 200, 8  # characters, folders: of a learnt file, or nobody can clear it up
_PART = ("labels", "train", "validation", "test", "subjects", "performances")


@dataclass(frozen=True)
class ForeignAnonymizer(Anonymizer):
    """A submitted anonymizer.

    Args:
        foreign: Its code, and how it is run.
        learns, stochastic, causal: What it declares.
        code_version: What it declares.
        rounds: Whether released coordinates are rounded, as they always are where something is measured.
        secret: See `Anonymizer`: it must not tell the holder's release from that from which attackers learn.
    """

    foreign: Foreign | None = field(default=None)
    learns: bool = False
    stochastic: bool = False
    causal: bool = False
    code_version: int = 1
    rounds: bool = True
    secret: str = field(default="", repr=False)
    blind = True

    def __post_init__(self) -> None:
        """Its parameters were checked by the worker."""

    @property
    def title(self) -> str:
        return self.foreign.target

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return {"utility": asdict(preset.utility), "attack": asdict(preset.attack)} if self.learns else {}

    def fit(self, examples: Examples) -> Fitted:
        isolation = {"isolation": self.foreign.level}
        if not self.learns:
            return Fitted(info=isolation)
        asked, tensors = _sent(examples.clips)
        asked |= {"preset": asdict(examples.preset), "seed": examples.seed, "parts": {}}
        asked |= {"release_frames": examples.release_frames, "release_clips": examples.release_clips}
        for target, part in examples.parts.items():
            asked["parts"][target] = {"target": target, "classes": list(range(len(part.classes)))}
            tensors |= _of_part(part, target)
        with fresh_session(self.foreign) as session:
            answer, state = session.ask("fit", asked, tensors)
        return Fitted(state, {"stated": _json(answer.get("info")), **isolation})

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        """As the worker returns it, rounded.

        Raises:
            ForeignError: if the worker fails, or returns other things than clips.
        """
        session = session_for(self.foreign, state)
        device, clips = batch.clips.device, batch.clips.cpu()
        asked = {"layout": batch.layout.name, "frame_rate": batch.frame_rate}
        tensors = {"clips": clips, "lengths": batch.lengths.cpu(), "seeds": torch.tensor(batch.seeds, dtype=torch.int64)}
        _, found = session.ask("transform", asked, tensors, clips.nbytes + _SLACK)
        out = found.get("clips")
        if out is None or out.dtype != torch.float32:
            raise ForeignError("answer", f"expected float32 clips, got {None if out is None else out.dtype}")
        return (rounded(out) if self.rounds else out).to(device)

    def close(self) -> None:
        """Ends the worker: what it started could go on working."""
        close(self.foreign)


@dataclass(frozen=True)
class ForeignAttacker(Attacker):
    """A submitted attacker; `target` and `code_version` are what it declares. It is given validation clips with their labels.

    `secret` is as for `Attacker`: seeds of a run are known, and names of public clips can be guessed.
    """

    learns_validation = True

    foreign: Foreign | None = field(default=None)
    target: str = "subject"
    code_version: int = 1
    secret: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Its parameters were checked by the worker."""

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        learnt = np.sort(np.concatenate([part.train, part.validation]))
        asked, tensors = _sent(clips.subset(learnt))
        asked |= {"preset": asdict(preset), "seed": seed, "part": _stated(part)}
        with fresh_session(self.foreign) as session:
            answer, files = session.ask("learn", asked, tensors | _of_part(part.restricted(learnt), "part"))
        if len(files) > _MOST_FILES:
            raise ForeignError("answer", f"it learnt {len(files)} files, at most {_MOST_FILES} are kept")
        for name, content in files.items():
            pure = PurePosixPath(name)
            long = len(name) > _LONGEST_NAME or len(pure.parts) > _DEEPEST
            if long or pure.is_absolute() or ".." in pure.parts or content.dtype != torch.uint8:
                raise ForeignError("answer", f"it learnt a file of the name {name[:80]!r}")
            path = folder / pure
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.numpy().tobytes())
        return {"stated": _json(answer.get("info")), "isolation": self.foreign.level}

    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        """Class probabilities (n, K) float32; the worker is asked in an order that tells nothing of people.

        Raises:
            ForeignError: if it fails, or returns other things than scores.
        """
        order = _anonymous_order(clips, indices)
        asked, tensors = _sent(clips.subset(indices[order]))
        nobody = np.full(len(indices), -1)
        none = np.array([], dtype=int)
        blank = replace(part, labels=nobody, subjects=nobody, performances=nobody, train=none, validation=none, test=none)
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        files.pop("stage.json", None)
        asked |= {"preset": asdict(preset), "part": _stated(part), "files": list(files)}
        tensors |= _of_part(blank, "part")
        tensors |= {f"file/{name}": torch.from_numpy(np.fromfile(path, dtype=np.uint8)) for name, path in files.items()}
        with fresh_session(self.foreign) as session:
            _, found = session.ask("score", asked, tensors, 4 * len(indices) * len(part.classes) + _SLACK)
        scores = found.get("scores")
        if scores is None or scores.dtype != torch.float32 or tuple(scores.shape) != (len(indices), len(part.classes)):
            raise ForeignError(
                "answer", f"expected float32 scores of shape {(len(indices), len(part.classes))}, got {_shape(scores)}"
            )
        out = np.empty(tuple(scores.shape), dtype=np.float32)
        out[order] = scores.numpy()
        return out


def _anonymous_order(clips: ClipSet, indices: np.ndarray) -> np.ndarray:
    """Places in `indices`, in an order that follows from the clips' coordinates alone: it tells nothing that these do not.

    So what an honest attacker says does not hang on chance. Clips that are equal, as many are that `null` releases, stand in an
    order that nobody knows beforehand.
    """
    dealt = np.random.default_rng(secrets.randbits(128)).permutation(len(indices))
    digests = [coordinates_digest(clips, int(i)) for i in indices[dealt]]
    return dealt[np.argsort(digests, kind="stable")]


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"


def _stated(part: Part) -> dict[str, Any]:
    return {"target": part.target, "classes": list(range(len(part.classes)))}


def _sent(clips: ClipSet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Clips as a message: their own rows only, in a common order, without names and rooms."""
    counts = (clips.lengths * clips.bodies).cpu()
    rows = torch.cat([torch.arange(int(f), int(f) + int(c)) for f, c in zip(clips.first, counts, strict=True)])
    first = torch.cumsum(counts, 0) - counts
    index = torch.stack([first, clips.lengths.cpu(), clips.bodies.cpu()], dim=1)
    stated = {"layout": clips.layout.name, "frame_rate": clips.frame_rate, "num_bodies": clips.num_bodies}
    return stated, {"rows": clips.rows[rows.to(clips.rows.device)].cpu(), "index": index}


def _of_part(part: Part, name: str) -> dict[str, Tensor]:
    return {f"{name}/{key}": torch.from_numpy(np.ascontiguousarray(getattr(part, key), dtype=np.int64)) for key in _PART}


def _json(info: Any) -> dict[str, Any]:
    """What strangers report about a training, as far as a record can hold it."""
    if not isinstance(info, dict) or len(str(info)) > 10_000:
        return {}
    return {
        str(k)[:50]: v for k, v in info.items() if isinstance(v, str | bool | int) or (isinstance(v, float) and math.isfinite(v))
    }
