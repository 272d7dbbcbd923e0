"""What an attacker is: it learns from labelled clips, then names the person or an attribute, links clips, or restores them.

What is learnt goes to files in a folder, so that a trained attacker can be used again without training, in another process or
on another release. An attacker is a frozen dataclass of its hyper-parameters and declares `target`, the label column it
predicts, as a field or class attribute.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from bench.data.clips import ClipSet
from bench.presets import Preset
from bench.protocols import LINKAGE, Part
from bench.specs import Parameters
from bench.training import Progress

_TOLERANCE = 1e-3  # of the sum of float32 probabilities


@dataclass(frozen=True)
class Learner(Parameters, ABC):
    """What all attackers share.

    Class attributes:
        learns_representation: Whether `refit` and `fine_tune` differ from `fit`. An attacker with hand-made features has a fixed
            representation: to fit it is to refit it.
        learns_validation: Whether `fit` learns from validation clips as well, so that these cannot judge what it learnt.
        control: Whether it is no attacker of the person but shows what is known without looking at the body.
        first_draw_only: Whether it can speak of nothing but the first release of a random anonymizer.
        secret: Mixed into what a random anonymizer draws for the releases that it attacks, so that code that knows how these are
            drawn cannot take the noise out again.
        code_version: Raised whenever the same parameters and seed would give other results.
    """

    learns_representation: ClassVar[bool] = False
    learns_validation: ClassVar[bool] = False
    control: ClassVar[bool] = False
    first_draw_only: ClassVar[bool] = False
    secret: ClassVar[str] = ""
    code_version: ClassVar[int] = 1

    @abstractmethod
    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Learns from `part.train`, chooses on `part.validation`, and writes what it learnt into `folder`.

        Args:
            clips: All clips as this attacker sees them; only those of `part.train` and `part.validation` may be used.
            part: Target, labels and indices.
            preset: Budget.
            folder: Folder for the learnt state; no pickles. Empty but for files whose names end in `bench.stages.CHECKPOINT`,
                perhaps in subfolders, which an attempt that was interrupted left behind.
            seed: Source of all randomness.
            progress: Called with (done, total, text).

        Returns:
            What the record should keep about the training (JSON values), e.g. loss curves.
        """

    def refit(
        self,
        clips: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        start: Path,
        seed: int,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """As `fit`, but keeps the representation learnt in the folder `start` and learns only what stands on top of it."""
        return self.fit(clips, part, preset, folder, seed=seed, progress=progress)

    def fine_tune(
        self,
        clips: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        start: Path,
        seed: int,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """As `fit`, but starts from all that was learnt in the folder `start`."""
        return self.fit(clips, part, preset, folder, seed=seed, progress=progress)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        """Everything of the preset that determines what this attacker learns (JSON values): a part of its models' addresses."""
        return asdict(preset.attack)


@dataclass(frozen=True)
class Attacker(Learner):
    """Names a class, a person or a value of an attribute, for every clip."""

    @abstractmethod
    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        """Class probabilities (n, K) float32 of the clips at `indices`, from the state in `folder`: at least 0, 1 together."""


def refuse_all_but_probabilities(scores: np.ndarray) -> None:
    """Makes sure of what bits of information and votes over several clips rest on.

    Args:
        scores: (n, K), a row a clip.

    Raises:
        ValueError: if some are not finite, or negative, or those of a clip do not sum to 1.
    """
    if not np.isfinite(scores).all():
        raise ValueError("expected class probabilities, and some are not finite")
    if len(scores) and scores.min() < 0:
        raise ValueError(f"expected class probabilities, and the smallest is {scores.min():.4g}")
    sums = scores.sum(axis=1)
    if len(scores) and np.abs(sums - 1).max() > _TOLERANCE:
        raise ValueError(f"expected class probabilities, and those of a clip sum to {sums[np.abs(sums - 1).argmax()]:.4g}")


@dataclass(frozen=True)
class Linker(Learner):
    """Tells how alike two clips are: whether they show the same person, one that it has never seen."""

    target: ClassVar[str] = LINKAGE

    @abstractmethod
    def pair_scores(
        self, enrolled: ClipSet, probes: ClipSet, pairs: np.ndarray, part: Part, preset: Preset, folder: Path
    ) -> np.ndarray:
        """How alike the clips of each pair are, (P,) float32; higher is more alike.

        Args:
            enrolled: All clips as the attacker holds them, with names.
            probes: All clips as the holder released them.
            pairs: (P, 2) indices: an enrolled clip, a probe.
            part: Target, labels and indices.
            preset: Budget.
            folder: State that `fit`, `refit` or `fine_tune` wrote.
        """


@dataclass(frozen=True)
class Inverter(Parameters, ABC):
    """Undoes an anonymizer: learns from pairs of clips, anonymized and raw."""

    code_version: ClassVar[int] = 1

    @abstractmethod
    def fit(
        self,
        released: ClipSet,
        raw: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Learns to map clips of `released` to the same clips of `raw`, on `part.train` and `part.validation` only.

        Args:
            released: All clips as the attacker anonymized them.
            raw: The same clips, raw.
            part, preset, folder, seed, progress: As for `Learner.fit`.

        Returns:
            What the record should keep: how well raw clips of `part.validation` are restored.
        """

    @abstractmethod
    def restore(self, released: ClipSet, preset: Preset, folder: Path) -> Tensor:
        """Rows (R, 3, V) for `released.with_rows`: its clips restored, each on its own; absent bodies stay exactly zero."""

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        """Everything of the preset that determines what is learnt (JSON values)."""
        return asdict(preset.attack)
