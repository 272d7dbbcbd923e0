"""Additive noise on coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.specs import param


@dataclass(frozen=True)
class GaussianNoise(Anonymizer):
    """White noise on every coordinate of every body that is present."""

    std: float = param(0.05, "standard deviation of the noise on each coordinate", unit="m", minimum=0, strength=True)

    stochastic: ClassVar[bool] = True
    causal: ClassVar[bool] = True

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return batch.clips + self.std * batch.per_frame(torch.randn) * batch.present


@dataclass(frozen=True)
class StaticGaussianNoise(Anonymizer):
    """One offset a joint for the whole clip: unlike white noise it does not average out over time (`gauss-static`)."""

    std: float = param(0.05, "standard deviation of the offset on each coordinate", unit="m", minimum=0, strength=True)

    stochastic: ClassVar[bool] = True
    causal: ClassVar[bool] = True

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        _, axes, _, joints, bodies = batch.clips.shape
        return batch.clips + self.std * batch.per_clip(torch.randn, axes, 1, joints, bodies) * batch.present


@dataclass(frozen=True)
class LaplaceDP(Anonymizer):
    """The Laplace mechanism on the coordinates of a frame: local differential privacy of one body in one frame (`laplace-dp`).

    Each coordinate is clipped to [-bound, bound], so that two frames of a body differ by at most 2 * bound * 3 V in the L1
    norm, and gets Laplace noise of that scale over `epsilon`. A clip of T frames with M bodies is protected by T * M * epsilon
    only (sequential composition): the record states that number for the longest clip. The guarantee is that of the mechanism on
    real numbers; floating-point numbers weaken it (Mironov, CCS 2012).
    """

    epsilon: float = param(1000.0, "privacy budget of one body in one frame", minimum=1e-6, strength=True)
    bound: float = param(1.5, "coordinates are clipped to plus or minus this", unit="m", minimum=1e-6)

    stochastic: ClassVar[bool] = True
    causal: ClassVar[bool] = True
    learns: ClassVar[bool] = True  # nothing, but the true budget depends on the clips

    def fit(self, examples: Examples) -> Fitted:
        frames = max(examples.release_frames, int((examples.clips.lengths * examples.clips.bodies).max()))
        return Fitted(info={"epsilon_per_frame": self.epsilon, "epsilon_of_longest_clip": self.epsilon * frames})

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        coordinates = 3 * batch.layout.num_joints
        scale = 2 * self.bound * coordinates / self.epsilon
        noise = laplace(batch.per_frame(torch.rand))
        return (batch.clips.clamp(-self.bound, self.bound) + scale * noise) * batch.present


def laplace(uniform: Tensor) -> Tensor:
    """Laplace numbers of scale 1 from uniform ones in [0, 1)."""
    centred = uniform - 0.5
    return -centred.sign() * torch.log1p(-2 * centred.abs().clamp_max(0.5 - 1e-7))
