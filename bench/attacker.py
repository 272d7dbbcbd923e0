"""What an attacker is: it learns a target from labelled clips and returns scores per clip."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.data.clips import ClipSet
from bench.presets import Preset
from bench.protocols import Part
from bench.specs import Parameters
from bench.training import Progress


@dataclass(frozen=True)
class Attacker(Parameters, ABC):
    """Learns `target` from the clips and labels that its threat level allows.

    A subclass is a frozen dataclass of its hyper-parameters and declares `target`, the label column it predicts, as a field or
    class attribute. What `fit` learns goes to files in a folder, so that a trained attacker can be used again by `scores`
    without training, in another process or on another release.
    """

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
            folder: Empty folder for the learnt state; no pickles.
            seed: Source of all randomness.
            progress: Called with (done, total, text).

        Returns:
            What the record should keep about the training (JSON values), e.g. loss curves.
        """

    @abstractmethod
    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        """Class probabilities (n, K) float32 of the clips at `indices`, from the state in `folder`."""
