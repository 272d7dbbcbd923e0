"""Gait dynamics made equal (after Hanisch et al., PoPETs 2023, and Troje, 2002). For walking only.

A clip becomes its mean pose and a sinusoid along each of its first four principal components; the amplitudes, or the frequencies,
are those of the group.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.data.clips import presence

COMPONENTS = 4
_FREQUENCIES = torch.arange(0.2, 4.0, 0.05)  # Hz: strides and steps, from very slow to running
_FEWEST = 5  # frames
_STILL = 1e-8  # m^2: an axis with less variance shows no movement


@dataclass(frozen=True)
class Sinusoids:
    """Walking as sinusoids; B is the number of bodies of all clips, K of components.

    Args:
        mean: (B, D) mean pose, flattened.
        axes: (B, K, D) principal components.
        amplitude: (B, K) metres.
        frequency: (B, K) Hz.
        phase: (B, K) radians at the clip's first frame.
    """

    mean: Tensor
    axes: Tensor
    amplitude: Tensor
    frequency: Tensor
    phase: Tensor

    def poses(self, frames: int, frame_rate: float) -> Tensor:
        """(B, frames, D)."""
        seconds = torch.arange(frames, device=self.mean.device) / frame_rate
        angle = 2 * math.pi * self.frequency[..., None] * seconds + self.phase[..., None]  # (B, K, T)
        return self.mean[:, None] + torch.einsum("bkt,bkd->btd", self.amplitude[..., None] * angle.cos(), self.axes)


def fit_sinusoids(clips: Tensor, present: Tensor, frame_rate: float) -> Sinusoids:
    """Fits every body of clips (N, 3, T, V, M); `present` is (N, 1, T, 1, M).

    The frequency of a component is that whose sine and cosine together explain most of it, among 0.2 to 4 Hz. Computed in
    float64: which axis comes first must not hang on rounding. An axis along which nothing moves is zero,
    and so are all of a body that is there for less than five frames: any frequency would fit.
    """
    n, c, t, v, m = clips.shape
    there = present[:, 0, :, 0].transpose(1, 2).reshape(n * m, t).double()  # (B, T)
    poses = clips.permute(0, 4, 2, 1, 3).reshape(n * m, t, c * v).double()  # (B, T, D)
    count = there.sum(1).clamp_min(1)
    mean = (poses * there[..., None]).sum(1) / count[:, None]
    centred = (poses - mean[:, None]) * there[..., None]
    covariance = centred.transpose(1, 2) @ centred / count[:, None, None]
    variances, axes = torch.linalg.eigh(covariance)
    moving = (variances[:, -COMPONENTS:].flip(1) > _STILL) & (count >= _FEWEST)[:, None]  # (B, K)
    axes = axes[..., -COMPONENTS:].flip(-1).transpose(1, 2) * moving[..., None]  # (B, K, D), largest first
    scores = torch.einsum("btd,bkd->bkt", centred, axes)
    rates = _FREQUENCIES.to(poses)
    angle = 2 * math.pi * rates[:, None] * torch.arange(t, device=clips.device) / frame_rate  # (F, T)
    cos, sin = angle.cos(), angle.sin()
    # Normal equations of each frequency, over the frames in which the body is there.
    cc, ss, cs = (torch.einsum("bt,ft->bf", there, product) for product in (cos * cos, sin * sin, cos * sin))
    xc, xs = (torch.einsum("bkt,ft->bkf", scores, wave) for wave in (cos, sin))
    determinant = (cc * ss - cs * cs)[:, None].clamp_min(1e-3)
    a = (xc * ss[:, None] - xs * cs[:, None]) / determinant
    b = (xs * cc[:, None] - xc * cs[:, None]) / determinant
    best = (a * xc + b * xs).argmax(dim=2, keepdim=True)  # (B, K, 1)
    a, b = (value.take_along_dim(best, dim=2)[..., 0] for value in (a, b))
    return Sinusoids(mean, axes, (a.square() + b.square()).sqrt(), rates[best[..., 0]], torch.atan2(-b, a))


class _Equalised(Anonymizer):
    """Learns the group's amplitudes and frequencies, and puts clips together from sinusoids."""

    learns: ClassVar[bool] = True

    def fit(self, examples: Examples) -> Fitted:
        found = []
        for indices in examples.clips.batches(64):
            clips = examples.clips.whole(indices)
            present = presence(clips)
            waves = fit_sinusoids(clips, present, examples.clips.frame_rate)
            some = present[:, 0, :, 0].any(dim=1).flatten()
            found.append(torch.stack([waves.amplitude, waves.frequency])[:, some])
        amplitude, frequency = torch.cat(found, dim=1).mean(dim=1).float()
        return Fitted({"amplitude": amplitude, "frequency": frequency})

    def _released(self, batch: ClipBatch, **change: Tensor) -> Tensor:
        waves = fit_sinusoids(batch.clips, batch.present, batch.frame_rate)
        group = {name: value.to(waves.amplitude).expand_as(waves.amplitude) for name, value in change.items()}
        n, c, t, v, m = batch.clips.shape
        poses = replace(waves, **group).poses(t, batch.frame_rate).to(batch.clips.dtype)
        return poses.view(n, m, t, c, v).permute(0, 3, 2, 4, 1) * batch.present


@dataclass(frozen=True)
class AmplitudeEqualise(_Equalised):
    """Gives the movement along each principal component the group's mean amplitude (`amp-equalise`; walking only)."""

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return self._released(batch, amplitude=state["amplitude"])


@dataclass(frozen=True)
class FrequencyEqualise(_Equalised):
    """Gives the movement along each principal component the group's mean frequency (`freq-equalise`; walking only)."""

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return self._released(batch, frequency=state["frequency"])
