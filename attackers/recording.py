"""What links clips without a look at the body: the recording alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from bench.attacker import Linker
from bench.data.clips import ClipSet
from bench.presets import Preset
from bench.protocols import Part
from bench.training import Progress

_FILE = "coefficients.npy"


@dataclass(frozen=True)
class NuisanceLinkage(Linker):
    """Links clips by their length and, where known, by whether room and camera are the same: a control, not an attack.

    Logistic regression on the absolute difference of the logarithms of both lengths and on the equality of each nuisance, learnt
    on the training pairs. What it finds is no property of the body. It says the same of every release.
    """

    control: ClassVar[bool] = True

    def budget(self, preset: Preset) -> dict[str, Any]:
        return {}

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        from sklearn.linear_model import LogisticRegression

        pairs = part.training_pairs
        learnt = LogisticRegression().fit(_compared(clips, clips, pairs.clips), pairs.mated)
        np.save(folder / _FILE, np.append(learnt.coef_[0], learnt.intercept_))
        return {"pairs": len(pairs)}

    def pair_scores(
        self, enrolled: ClipSet, probes: ClipSet, pairs: np.ndarray, part: Part, preset: Preset, folder: Path
    ) -> np.ndarray:
        *weights, constant = np.load(folder / _FILE, allow_pickle=False)
        return (_compared(enrolled, probes, pairs) @ weights + constant).astype(np.float32)


def _compared(enrolled: ClipSet, probes: ClipSet, pairs: np.ndarray) -> np.ndarray:
    """(P, 1 + F) what tells the recordings of both clips of a pair (P, 2) apart; an unknown nuisance equals nothing."""
    sides = []
    for clips, asked in zip((enrolled, probes), pairs.T, strict=True):
        known = [clips.lengths[:, None].double().log()]
        if clips.nuisance is not None:
            known.append(clips.nuisance.double())
        sides.append(torch.cat(known, dim=1).cpu().numpy()[asked])
    length = np.abs(sides[0][:, :1] - sides[1][:, :1])
    return np.concatenate([length, sides[0][:, 1:] == sides[1][:, 1:]], axis=1)
