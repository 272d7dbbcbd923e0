"""Reference points of every table: what leaks if nothing is done, and if nothing is released."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.anonymizer import Anonymizer, ClipBatch
from bench.data.clips import ClipSet


@dataclass(frozen=True)
class Identity(Anonymizer):
    """Releases clips as they are: the upper bound of utility and of leakage; attackers must succeed here."""

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return batch.clips


@dataclass(frozen=True)
class Null(Anonymizer):
    """Replaces every pose by one mean pose: the lower bound; every attacker must fall to chance here.

    The pose is the mean over the training clips' frames and bodies that are present. Which bodies are present and how long a
    clip lasts stay as they are.
    """

    learns: ClassVar[bool] = True

    def fit(self, clips: ClipSet, labels: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        total = torch.zeros(clips.rows.shape[1:], dtype=torch.float64, device=clips.device)
        count = 0
        for indices in clips.batches(256):
            poses = clips.whole(indices).permute(0, 2, 4, 1, 3).flatten(0, 2)  # (N * T * M, 3, V)
            total += poses.sum(dim=0, dtype=torch.float64)
            count += int(poses.flatten(1).any(dim=1).sum())
        return {"pose": (total / count).float()}

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        pose = state["pose"].to(batch.clips.device)[None, :, None, :, None]  # (1, 3, 1, V, 1)
        return pose * batch.present
