"""A transformer over frames, after "Exposing and Erasing Identity in Skeleton Motion" (2025), and its bone discriminator.

The published code lets half of its layers attend over the clips of a batch and adds the positions along that axis, so what it
releases depends on which clips are released together. Here every layer attends over the frames of one clip.
"""

import itertools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from anonymizers.networks.base import AnonymizerNetwork, from_frames, per_frame
from bench.skeleton import Layout

_HEADS = 4
_STAGES = 3


class ConvolutionalBlock(nn.Module):
    """Self-attention, then convolutions over 5 frames and 1; each with a residual and layer norm."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, _HEADS, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.conv1 = nn.Conv1d(width, 4 * width, 5, padding=2)
        self.conv2 = nn.Conv1d(4 * width, width, 1)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) to the same shape."""
        x = self.norm1(x + self.attention(x, x, x, need_weights=False)[0])
        return self.norm2(x + self.conv2(functional.gelu(self.conv1(x.transpose(1, 2)))).transpose(1, 2))


class Transformer(AnonymizerNetwork):
    """Adds to a clip what three pairs of a convolutional block and a transformer layer make of it; starts as the identity.

    Width 4 * base_width, four heads, feed-forward layers of four times the width, GELU.
    """

    multiple: ClassVar[int] = 1

    def __init__(self, layout: Layout, num_bodies: int, base_width: int):
        super().__init__(layout, num_bodies, base_width)
        width = 4 * base_width
        self.enter = nn.Linear(self.features, width)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvolutionalBlock(width),
                nn.TransformerEncoderLayer(width, _HEADS, 4 * width, dropout=0.0, activation="gelu", batch_first=True),
            )
            for _ in range(_STAGES)
        )
        self.leave = nn.Linear(width, self.features)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.enter(per_frame(clips))
        x = x + sinusoids(x.shape[1], x.shape[2], x.device)
        for stage in self.stages:
            x = stage(x)
        return clips + from_frames(self.leave(x), clips.shape)


def sinusoids(frames: int, width: int, device: torch.device) -> Tensor:
    """(T, D) positions of Vaswani et al. (2017): sines and cosines by turns."""
    at = torch.arange(frames, device=device)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    return torch.stack([(at * rate).sin(), (at * rate).cos()], dim=2).flatten(1)


class BoneDiscriminator(nn.Module):
    """Tells poses of real clips from released ones by the directions of their bones alone (one frame at a time)."""

    def __init__(self, bones: int):
        super().__init__()
        widths = (3 * bones, 128, 256, 512, 256, 128)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, directions: Tensor) -> Tensor:
        """(F, bones, 3) unit vectors to (F,) scores; high is real."""
        return self.layers(directions.flatten(1))[:, 0]
