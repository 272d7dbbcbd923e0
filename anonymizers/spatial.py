"""Perturbations of single poses (the families are those of Hanisch et al., PoPETs 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anonymizers.kinematics import bone_vectors, median_lengths
from bench.anonymizer import Anonymizer, ClipBatch
from bench.skeleton import Layout
from bench.specs import param

PARTS = ("head", "torso", "hips", "left-arm", "right-arm", "left-leg", "right-leg")
_SHORTEST = 1e-3  # metres: nothing is divided by less


def part_joints(layout: Layout, part: str) -> list[int]:
    """Joints of a body part; the hips are both hip joints and the root."""
    if part == "hips":
        return sorted({layout.root, layout.index("left hip"), layout.index("right hip")})
    return list(layout.parts[part.replace("-", " ")])


@dataclass(frozen=True)
class CoarsenMacro(Anonymizer):
    """Rounds coordinates to a grid: drops fine digits (`coarsen-macro`)."""

    step: float = param(0.05, "distance of grid lines", unit="m", minimum=1e-6, strength=True)

    causal: ClassVar[bool] = True

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return (batch.clips / self.step).round() * self.step * batch.present


@dataclass(frozen=True)
class CoarsenMicro(Anonymizer):
    """Keeps only what is left of coordinates after division by a step: drops coarse digits (`coarsen-micro`)."""

    step: float = param(0.1, "distance of grid lines", unit="m", minimum=1e-6, strength=True)

    causal: ClassVar[bool] = True

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return batch.clips.remainder(self.step) * batch.present


@dataclass(frozen=True)
class DropPart(Anonymizer):
    """Puts the joints of one body part at the origin (`drop-part`)."""

    part: str = param("head", "body part", choices=PARTS, shown=True)

    causal: ClassVar[bool] = True

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        out = batch.clips.clone()
        out[:, :, :, part_joints(batch.layout, self.part)] = 0
        return out


@dataclass(frozen=True)
class KeepPart(Anonymizer):
    """Puts all joints but those of one body part at the origin (`keep-part`)."""

    part: str = param("right-arm", "body part", choices=PARTS, shown=True)

    causal: ClassVar[bool] = True

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        out = torch.zeros_like(batch.clips)
        joints = part_joints(batch.layout, self.part)
        out[:, :, :, joints] = batch.clips[:, :, :, joints]
        return out


@dataclass(frozen=True)
class Normalise(Anonymizer):
    """Scales each body of a clip to one size (`normalise`).

    `height` divides by the way from head to ankle along the bones, `axis` each axis by the body's extent along it over the clip,
    `zscore` each coordinate of each joint by its own mean and standard deviation over the clip, which leaves the movement alone.
    Extents and deviations below a millimetre are left as they are.
    """

    mode: str = param("height", "what is made equal", choices=("height", "axis", "zscore"))
    size: float = param(1.5, "size that all bodies get; of `zscore` the standard deviation, in tenths", unit="m", minimum=1e-6)

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        clips, there = batch.clips, batch.present
        if self.mode == "height":
            return clips * (self.size / height(batch).clamp_min(_SHORTEST))[:, None, None, None] * there
        if self.mode == "axis":
            low = torch.where(there, clips, torch.inf).amin(dim=(2, 3), keepdim=True)
            high = torch.where(there, clips, -torch.inf).amax(dim=(2, 3), keepdim=True)
            extent = (high - low).nan_to_num(1.0, 1.0, 1.0)
            return clips * (self.size / torch.where(extent < _SHORTEST, self.size, extent)) * there
        count = there.sum(dim=2, keepdim=True).clamp_min(1)
        centred = (clips - clips.sum(dim=2, keepdim=True) / count) * there
        spread = (centred.square().sum(dim=2, keepdim=True) / count).sqrt()
        return centred * (self.size / 10 / torch.where(spread < _SHORTEST, self.size / 10, spread))


def height(batch: ClipBatch) -> Tensor:
    """(N, M) metres from head to ankle along the bones, by their median lengths over the clip and the mean of both legs."""
    layout = batch.layout
    lengths = median_lengths(bone_vectors(batch.clips, layout), batch.present)  # (N, V, M)
    head, *ankles = (_chain(layout, joint) for joint in ("head", "left ankle", "right ankle"))
    return lengths[:, head].sum(1) + torch.stack([lengths[:, ankle].sum(1) for ankle in ankles]).mean(0)


def _chain(layout: Layout, joint: str) -> list[int]:
    """Joints from this one up to the root, the root left out."""
    found, at = [], layout.index(joint)
    while at != layout.root:
        found.append(at)
        at = layout.parents[at]
    return found
