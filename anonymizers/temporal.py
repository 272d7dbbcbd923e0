"""Perturbations along time (the families are those of Hanisch et al., PoPETs 2023).

Frames in which a body is absent count nowhere: means leave them out, and whatever takes a frame there takes the last before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from anonymizers.kinematics import hold
from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.specs import param


def rolling_mean(batch: ClipBatch, window: int) -> Tensor:
    """Mean over the frames of a centred window (odd) in which the body is there, (N, 3, T, V, M)."""
    return _rolling_sum(batch.clips, window) / _rolling_sum(batch.present.to(batch.clips.dtype), window).clamp_min(1e-9)


def _rolling_sum(values: Tensor, window: int, weights: Tensor | None = None) -> Tensor:
    """Sum over a centred window along T of (N, C, T, V, M), each frame weighted by its place in the window."""
    n, c, t, v, m = values.shape
    series = values.permute(0, 1, 3, 4, 2).reshape(-1, 1, t)
    kernel = torch.ones(window, device=values.device) if weights is None else weights
    summed = functional.conv1d(series, kernel.to(values.dtype).view(1, 1, -1), padding=window // 2)
    return summed.view(n, c, v, m, t).permute(0, 1, 4, 2, 3)


def rolling_parabola(batch: ClipBatch, window: int) -> Tensor:
    """Savitzky-Golay: at each frame, the parabola that fits the window best, taken at its centre.

    Fewer than three frames in a window have no parabola: there it is the mean.
    """
    there = batch.present.to(torch.float64)
    clips = batch.clips.to(torch.float64)
    place = torch.arange(window, device=clips.device, dtype=torch.float64) - window // 2
    place = place / max(window // 2, 1)  # within [-1, 1]: well conditioned
    moments = [_rolling_sum(there, window, place**k) for k in range(5)]  # each (N, 1, T, 1, M)
    normal = torch.stack([torch.stack(moments[i : i + 3], dim=-1) for i in range(3)], dim=-2)  # (N, 1, T, 1, M, 3, 3)
    right = torch.stack([_rolling_sum(clips, window, place**k) for k in range(3)], dim=-1)  # (N, 3, T, V, M, 3)
    enough = moments[0] > 2.5
    normal = torch.where(enough[..., None, None], normal, torch.eye(3, dtype=torch.float64, device=clips.device))
    first = torch.linalg.inv(normal)[..., 0, :]  # the constant term alone is wanted
    fitted = (first * right).sum(-1)
    return torch.where(enough, fitted, right[..., 0] / moments[0].clamp_min(1e-9)).to(batch.clips.dtype)


def at_frames(batch: ClipBatch, position: Tensor) -> Tensor:
    """Clips at fractional frames (N, T), linearly between the two beside it; absent frames hold the last pose before them."""
    filled = hold(batch.clips, batch.present)
    low = position.floor().long()
    high = torch.minimum(low + 1, (batch.lengths - 1)[:, None])
    share = (position - low).to(filled.dtype)[:, None, :, None, None]
    before, after = (filled.take_along_dim(at[:, None, :, None, None], dim=2) for at in (low, high))
    return before + share * (after - before)


def _frames(batch: ClipBatch) -> Tensor:
    """(N, T) frame numbers; past a clip's end its last."""
    frames = torch.arange(batch.clips.shape[2], device=batch.clips.device)
    return torch.minimum(frames.expand(len(batch.lengths), -1), (batch.lengths - 1)[:, None])


@dataclass(frozen=True)
class Smooth(Anonymizer):
    """Smooths every coordinate over time: moving average or Savitzky-Golay of second order (`smooth`)."""

    window: int = param(
        7, "frames of the window; even numbers count as the next odd one", unit="frames", minimum=1, strength=True
    )
    method: str = param("average", "moving average, or local parabola", choices=("average", "savgol"))

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        window = self.window | 1
        smooth = rolling_mean if self.method == "average" else rolling_parabola
        return smooth(batch, window) * batch.present


@dataclass(frozen=True)
class Downsample(Anonymizer):
    """Keeps every n-th frame, and holds it or interpolates up to the next (`downsample`)."""

    every: int = param(4, "one frame of so many is kept", unit="frames", minimum=1, strength=True)
    fill: str = param("hold", "what stands between: the last kept frame, or the line to the next", choices=("hold", "linear"))

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        frames = _frames(batch)
        kept = frames // self.every * self.every
        before = at_frames(batch, kept)
        if self.fill == "hold":
            return before * batch.present
        following = kept + self.every
        last = following > (batch.lengths - 1)[:, None]  # no kept frame follows: the last kept one is held
        after = at_frames(batch, torch.where(last, kept, following))
        share = ((frames - kept) / self.every)[:, None, :, None, None]
        return (before + share * (after - before)) * batch.present


@dataclass(frozen=True)
class Resample(Anonymizer):
    """Resamples the clip to n frames and back, linearly: drops what is fast, whatever the clip's length (`resample`)."""

    frames: int = param(20, "frames that carry the clip", unit="frames", minimum=2, strength=True)

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        last = (batch.lengths - 1)[:, None].double()
        knots = torch.arange(self.frames, device=batch.clips.device, dtype=torch.float64) / (self.frames - 1) * last
        carried = at_frames(batch, knots)  # (N, 3, frames, V, M)
        place = _frames(batch) / last.clamp_min(1) * (self.frames - 1)
        short = ClipBatch(carried, torch.full_like(batch.lengths, self.frames), batch.seeds, batch.layout, batch.frame_rate)
        return at_frames(short, place.clamp_max(self.frames - 1)) * batch.present


def _trajectory(batch: ClipBatch, half_window: int, method: str) -> Tensor:
    """What changes slowly: the rolling mean, or the middle between the poses at the window's ends."""
    if method == "mean":
        return rolling_mean(batch, 2 * half_window + 1)
    frames, last = _frames(batch), (batch.lengths - 1)[:, None]
    ends = [(frames - half_window).clamp_min(0), torch.minimum(frames + half_window, last)]
    return (at_frames(batch, ends[0]) + at_frames(batch, ends[1])) / 2


@dataclass(frozen=True)
class RemoveVariation(Anonymizer):
    """Replaces each pose by the trajectory through its neighbours (`remove-variation`)."""

    half_window: int = param(3, "frames on either side", unit="frames", minimum=0, strength=True)
    method: str = param("mean", "rolling mean, or middle of the window's end poses", choices=("mean", "ends"))

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return _trajectory(batch, self.half_window, self.method) * batch.present


@dataclass(frozen=True)
class RemoveTrajectory(Anonymizer):
    """Keeps only how each pose differs from the trajectory through its neighbours: a high-pass filter (`remove-trajectory`)."""

    half_window: int = param(3, "frames on either side", unit="frames", minimum=1, strength=True)
    method: str = param("mean", "rolling mean, or middle of the window's end poses", choices=("mean", "ends"))

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return (batch.clips - _trajectory(batch, self.half_window, self.method)) * batch.present


@dataclass(frozen=True)
class MotionOnly(Anonymizer):
    """Differences between frames only, or these put onto one template pose (`motion-only`).

    A body's first frame shows its first difference; the template is the mean pose of the training clips.
    """

    method: str = param("differences", "differences, or a template pose moved by them", choices=("differences", "template"))

    learns: ClassVar[bool] = True

    def fit(self, examples: Examples) -> Fitted:
        return Fitted({"pose": mean_pose(examples)})

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        filled = hold(batch.clips, batch.present)
        if self.method == "template":
            pose = state["pose"].to(filled.device)[None, :, None, :, None]
            return (pose + filled - filled[:, :, :1]) * batch.present
        steps = torch.diff(filled, dim=2, prepend=filled[:, :, :1])
        enters = batch.present & (batch.present.cumsum(dim=2) == 1)
        return torch.where(enters, steps.roll(-1, dims=2), steps) * batch.present


@dataclass(frozen=True)
class StaticPose(Anonymizer):
    """Repeats one pose of the clip: its first or its mean (`static-pose`)."""

    pose: str = param("mean", "which pose", choices=("mean", "first"))

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        if self.pose == "first":
            return hold(batch.clips, batch.present)[:, :, :1] * batch.present
        mean = batch.clips.sum(dim=2, keepdim=True) / batch.present.sum(dim=2, keepdim=True).clamp_min(1)
        return mean * batch.present


def mean_pose(examples: Examples) -> Tensor:
    """(3, V) mean over frames and bodies of the training clips that are present."""
    clips = examples.clips
    total = torch.zeros(clips.rows.shape[1:], dtype=torch.float64, device=clips.device)
    count = 0
    for indices in clips.batches(256):
        poses = clips.whole(indices).permute(0, 2, 4, 1, 3).flatten(0, 2)  # (N * T * M, 3, V)
        total += poses.sum(dim=0, dtype=torch.float64)
        count += int(poses.flatten(1).any(dim=1).sum())
    return (total / count).float()
