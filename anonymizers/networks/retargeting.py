"""The networks of deep motion retargeting (Carr et al., ICCV 2025).

A window of 75 frames of one body is coded twice, once for its motion and once for its privacy; a decoder puts a window together
from two codes. A code is (C, L). Heads read codes and answer with logits: the published ones answer with probabilities, on
which a softmax was then taken once more.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

FRAMES = 75
_SLOPE = 0.2
_ENCODER = (12, 24, 32)
_DECODER = (256, 128, 96)
_HEAD = (128, 256, 512)
_CRITIC = (64, 32, 16, 8)


class Encoder(nn.Module):
    """(N, 75, V, 3), frames as channels, to a code (N, C, L): four stages of convolution over joints and axes, mean, linear."""

    def __init__(self, channels: int, length: int):
        super().__init__()
        widths = (FRAMES, *_ENCODER, channels)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.code = nn.Linear(channels, channels * length)
        self.shape = (channels, length)

    def forward(self, windows: Tensor) -> Tensor:
        x = windows
        for stage in self.stages:
            x = functional.leaky_relu(stage(functional.pad(x, (1, 1, 1, 1), mode="reflect")), _SLOPE)
            x = functional.max_pool2d(x, 2)
        return self.code(x.mean(dim=(2, 3))).unflatten(1, self.shape)


class Decoder(nn.Module):
    """Two codes (N, C, L) to a window (N, 75, V, 3): four stages of transposed convolution along L, stretched to 75 frames."""

    def __init__(self, channels: int, joints: int):
        super().__init__()
        widths = (2 * channels, *_DECODER, 3 * joints)
        self.stages = nn.ModuleList(nn.ConvTranspose1d(a, b, 3) for a, b in itertools.pairwise(widths))
        self.joints = joints

    def forward(self, motion: Tensor, privacy: Tensor) -> Tensor:
        x = torch.cat([motion, privacy], dim=1)
        for stage in self.stages[:-1]:
            x = functional.leaky_relu(stage(functional.pad(x, (3, 3), mode="reflect")), _SLOPE)
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = self.stages[-1](functional.pad(x, (3, 3), mode="reflect"))  # coordinates have either sign
        x = functional.interpolate(x, size=FRAMES, mode="linear", align_corners=False)
        return x.transpose(1, 2).unflatten(2, (self.joints, 3))


class CodeHead(nn.Module):
    """Code (N, C, L) to logits (N, K): three transposed convolutions of stride 2, mean, three linear layers."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        widths = (channels, *_HEAD)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.ConvTranspose1d(before, after, 3, stride=2), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.answer = nn.Sequential(
            *(nn.Linear(_HEAD[-1], 1024), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(1024, 512), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(512, classes),
        )

    def forward(self, code: Tensor) -> Tensor:
        return self.answer(self.layers(code).mean(dim=2))


class Critic(nn.Module):
    """Window (N, 75, V, 3) to a logit (N,) of its being real: four convolutions over time with three poolings, two
    linear layers.
    """

    def __init__(self, joints: int):
        super().__init__()
        widths = (3 * joints, *_CRITIC)
        self.stages = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.answer = nn.Sequential(nn.Linear(80, 32), nn.LeakyReLU(_SLOPE), nn.Linear(32, 1))

    def forward(self, windows: Tensor) -> Tensor:
        x = windows.flatten(2).transpose(1, 2)
        for place, stage in enumerate(self.stages):
            x = functional.leaky_relu(stage(x), _SLOPE)
            x = functional.max_pool1d(x, 2, ceil_mode=True) if place < 3 else x
        return self.answer(x.flatten(1))[:, 0]
