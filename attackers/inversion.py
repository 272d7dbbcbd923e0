"""Inversion: a network that restores raw clips from anonymized ones, so that a raw-trained attacker can read them.

Breaks blends, fixed offsets and reversible maps. Our own design: residual dilated convolutions over time with a summary of the
whole clip in every layer, since what an anonymizer adds frame by frame averages out over a clip.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from attackers.features import bone_lengths
from bench import classifiers
from bench.attacker import Inverter
from bench.checkpoint import Checkpoint
from bench.data.clips import ClipSet
from bench.execution import Pieces
from bench.files import digest
from bench.presets import Preset
from bench.protocols import Part
from bench.specs import param
from bench.stages import CHECKPOINT
from bench.training import Progress, descend, make_optimiser

_WEIGHTS = "model.safetensors"
_DILATIONS = (1, 2, 4, 8, 16)
_TAPS = 15  # frames of each coordinate's own filter
_BATCH = 64  # clips, where nothing is learnt


class RestoringNetwork(nn.Module):
    """Adds to each coordinate what is missing: a filter of its own over time, and a network over all. Starts as the identity.

    Each body is read on its own and about its mean over the clip, so that nothing before or after the clip is a body at rest;
    frames in which it is absent count as that mean and come out as zero. So the result depends neither on padding nor on the
    clips beside it.

    Args:
        joints: V.
        channels: Width of the hidden layers.
    """

    def __init__(self, joints: int, channels: int):
        super().__init__()
        self.filter = nn.Conv1d(3 * joints, 3 * joints, _TAPS, padding=_TAPS // 2, groups=3 * joints, bias=False)
        self.enter = nn.Conv1d(3 * joints, channels, 1)
        self.enter_mean = nn.Linear(3 * joints, channels)
        self.over_time = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=d, dilation=d) for d in _DILATIONS)
        self.over_clip = nn.ModuleList(nn.Linear(channels, channels) for _ in _DILATIONS)
        self.mix = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in _DILATIONS)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in _DILATIONS)
        self.leave = nn.Conv1d(channels, 3 * joints, 1)
        for start in (self.filter.weight, self.leave.weight, self.leave.bias):
            nn.init.zeros_(start)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, V, M) to the same shape, metres."""
        n, _, t, v, m = clips.shape
        bodies = clips.permute(0, 4, 1, 3, 2).reshape(n * m, 3 * v, t)
        there = (bodies != 0).any(dim=1, keepdim=True).to(bodies.dtype)  # (N * M, 1, T)
        frames = there.sum(2).clamp_min(1)  # (N * M, 1)
        mean = bodies.sum(2) / frames  # (N * M, 3 * V)
        about_mean = (bodies - mean[:, :, None]) * there
        x = (self.enter(about_mean) + self.enter_mean(mean)[:, :, None]) * there
        for over_time, over_clip, mix, norm in zip(self.over_time, self.over_clip, self.mix, self.norms, strict=True):
            y = norm(x.transpose(1, 2)).transpose(1, 2) * there
            summary = over_clip(y.sum(2) / frames)[:, :, None]
            x = x + mix(functional.gelu(over_time(y) + summary)) * there
        missing = (self.filter(about_mean) + self.leave(x)) * there
        return (bodies + missing).view(n, m, 3, v, t).permute(0, 2, 4, 3, 1)


@dataclass(frozen=True)
class TemporalInverter(Inverter):
    """Dilated convolutions over time with a summary of the clip, trained to restore positions and bone lengths."""

    channels: int = param(64, "width of the hidden layers", minimum=1)
    epochs: int = param(20, "most passes over the training clips; the preset's limit of steps holds as well", minimum=1)
    batch: int = param(16, "clips of a batch", minimum=1)
    frames: int = param(64, "frames of a training window", minimum=1)
    lr: float = param(3e-3, "peak learning rate of Adam", minimum=0.0)
    bones: float = param(1.0, "weight of the error of bone lengths beside that of positions", minimum=0.0)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return {"most_steps": preset.attack.most_steps}

    def _network(self, clips: ClipSet) -> RestoringNetwork:
        return RestoringNetwork(clips.layout.num_joints, self.channels).to(clips.device)

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
        with classifiers.seeded(seed, raw.device):
            network = self._network(raw)
        generator = torch.Generator(raw.device).manual_seed(seed)
        optimiser = make_optimiser("adam", [{"params": list(network.parameters())}], self.lr)
        bones = torch.tensor(raw.layout.bones, device=raw.device).T
        train = torch.as_tensor(part.train, device=raw.device)
        steps = max(len(train) // self.batch, 1)
        if preset.attack.most_steps:
            steps = min(steps, preset.attack.most_steps)
        epochs = min(self.epochs, preset.attack.most_steps // steps) if preset.attack.most_steps else self.epochs
        curve = [_position_error(network, released, raw, part.validation)]
        best = {key: value.clone() for key, value in network.state_dict().items()}
        of = digest([asdict(self), epochs, seed, raw.device.type, part.train.tolist(), raw.sketch(), released.sketch()])
        on = {"networks": {"inverter": network}, "optimisers": {"inverter": optimiser}, "generators": {"clips": generator}}
        saved, unsaved = Checkpoint(folder / f"inverter{CHECKPOINT}", of, **on, dropout=False), ""
        pieces = Pieces(self.batch)
        if found := saved.restore():
            best, curve, pieces.size = found[0], found[1]["curve"], found[1]["micro_batch"]
        for epoch in range(len(curve) - 1, epochs):
            order = train[torch.randperm(len(train), generator=generator, device=raw.device)]
            for step in range(steps):
                for group in optimiser.param_groups:
                    group["lr"] = 0.5 * self.lr * (1 + np.cos(np.pi * (epoch + step / steps) / epochs))
                indices = order[step * self.batch : (step + 1) * self.batch]
                drawn = generator.get_state()
                seen = released.windows(indices, self.frames, "window", generator)
                truth = raw.windows(indices, self.frames, "window", generator.set_state(drawn))  # the same frames
                loss_of = partial(self._loss, network, seen, truth, bones)
                descend(optimiser, loss_of, len(indices), pieces, network.parameters(), 1.0)
            curve.append(_position_error(network, released, raw, part.validation))
            if curve[-1] <= min(curve):
                best = {key: value.clone() for key, value in network.state_dict().items()}
            if progress:
                progress(epoch + 1, epochs, f"validation error {1000 * curve[-1]:.1f} mm per joint{unsaved}")
            unsaved = saved.save(best, {"curve": curve, "micro_batch": pieces.size}, last=epoch + 1 == epochs)
        network.load_state_dict(best)
        save_file(network.state_dict(), folder / _WEIGHTS)
        restored = raw.with_rows(_restore(network, released))
        return {
            "mpjpe_before_m": curve[0],
            "mpjpe_m": min(curve),
            "bone_length_r2": _bone_length_r2(restored, raw, part.validation),
            "curve": curve,
            **({"micro_batch": pieces.size} if pieces.size < self.batch else {}),
        }

    def _loss(
        self, network: nn.Module, seen: Tensor, truth: Tensor, bones: Tensor, piece: slice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error (m^2) of positions and, weighted, of bone lengths, where a body is.

        Picking what is there makes a GPU tell how much that is; a sum with weights would not, but ends in other last digits.

        Args:
            network: What restores.
            seen, truth: (N, 3, T, V, M) windows of released and of raw clips, of which `piece` is looked at.
            bones: (2, B) children and parents.
        """
        restored, raw = network(seen[piece]), truth[piece]
        there = (raw != 0).any(dim=3).any(dim=1)  # (N, T, M)
        position = (restored - raw).square().sum(1)[there.unsqueeze(2).expand(-1, -1, raw.shape[3], -1)].mean()
        child, parent = bones

        def lengths(x: Tensor) -> Tensor:
            squares = (x[:, :, :, child] - x[:, :, :, parent]).square().sum(1)  # (N, T, B, M)
            return (squares + 1e-12).sqrt()  # a length of 0 has no gradient

        bone = (lengths(restored) - lengths(raw)).square()[there.unsqueeze(2).expand(-1, -1, len(child), -1)].mean()
        return position + self.bones * bone, {}

    def restore(self, released: ClipSet, preset: Preset, folder: Path) -> Tensor:
        network = self._network(released)
        network.load_state_dict(load_file(folder / _WEIGHTS, device=str(released.device)))
        return _restore(network, released)


@torch.no_grad()
def _restore(network: nn.Module, released: ClipSet) -> Tensor:
    """Rows of all clips, restored."""
    rows = torch.zeros_like(released.rows)
    for indices in torch.argsort(released.lengths, stable=True).split(_BATCH):  # similar lengths: little padding
        released.scatter(rows, indices, network(released.whole(indices)))
    return rows


@torch.no_grad()
def _position_error(network: nn.Module, released: ClipSet, raw: ClipSet, indices: np.ndarray) -> float:
    """Mean per-joint position error in metres of clips restored, where a body is."""
    total, count = 0.0, 0
    for part in torch.as_tensor(indices, device=raw.device).split(_BATCH):
        truth = raw.whole(part)
        there = (truth != 0).any(dim=3, keepdim=True).any(dim=1)  # (N, T, 1, M)
        error = (network(released.whole(part)) - truth).norm(dim=1) * there  # (N, T, V, M)
        total, count = total + float(error.sum()), count + int(there.sum()) * truth.shape[3]
    return total / max(count, 1)


def _bone_length_r2(restored: ClipSet, raw: ClipSet, indices: np.ndarray) -> float:
    """R^2, over clips, of the median bone lengths of restored clips; below 0 is worse than naming the mean."""
    part = torch.as_tensor(indices, device=raw.device)
    found, truth = (bone_lengths(c.whole(part), c.layout).nanmedian(dim=1).values.nan_to_num(0.0) for c in (restored, raw))
    spread = (truth - truth.mean(0)).square().sum()
    return float(1 - (found - truth).square().sum() / spread) if spread > 0 else 0.0
