"""SGN, the semantics-guided network of Zhang et al. (CVPR 2020, arXiv 1904.01189): small, and cheap on a CPU.

Shapes for a batch of B bodies at width 1, T = 20 frames:

    position and velocity   (B, T, V, 3) -> (B, T, V, 64) each, added
    joint semantics         which joint it is, (V, 64), concatenated -> (B, T, V, 128)
    adjacency               softmax(theta(x) phi(x)^T) in every frame, (B, T, V, V)
    graph convolutions      128 -> 128 -> 256 -> 256, with residuals
    frame semantics         which frame it is, (T, 256), added; maximum over joints -> (B, T, 256)
    temporal convolutions   256 -> 256 (3 frames) -> 512; maximum over frames -> (B, 512)

No weights were published in a form that this project reads.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from attackers.backbones.base import BodyBackbone
from bench.skeleton import Layout

FRAMES = 20
_DROPOUT = 0.2


class _Norm(nn.BatchNorm1d):
    """Batch norm over all axes but the last."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, self.num_features)).view(x.shape)


class _Embedding(nn.Sequential):
    """Two linear maps with a ReLU after each."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int):
        super().__init__(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, out_channels), nn.ReLU())


class _GraphConvolution(nn.Module):
    """relu(norm(G x W + x R)): what the neighbours say and what the joint itself says."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.neighbours = nn.Linear(in_channels, out_channels, bias=False)
        self.itself = nn.Linear(in_channels, out_channels)
        self.norm = _Norm(out_channels)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """x (B, T, V, C) and adjacency (B, T, V, V) to (B, T, V, C')."""
        return self.norm(self.neighbours(adjacency @ x) + self.itself(x)).relu()


class SGN(BodyBackbone):
    """Semantics-guided network: what a joint is, when it is seen and how it moves, in graph and temporal convolutions.

    Clips of another length than 20 frames are cut to the middle frames of 20 equal segments.

    Args:
        layout: Skeleton layout with V joints; the network has no graph and uses only their number.
        num_classes: Number of logits.
        num_bodies: Bodies per clip, M.
        width: Factor on the channels 64, 128, 256 and 512.
        in_channels: Coordinates per joint.
    """

    has_input_norm: ClassVar[bool] = False
    requires: ClassVar[Mapping[str, object]] = {"frames": FRAMES, "sampling": "uniform", "optimiser": "adam", "lr": 1e-3}
    published_recipe: ClassVar[Mapping[str, object]] = {
        "epochs": 120,
        "steps": (60, 90, 110),
        "batch": 64,
        "weight_decay": 1e-4,
        "label_smoothing": 0.1,
    }

    def __init__(self, *, layout: Layout, num_classes: int, num_bodies: int, width: float = 1.0, in_channels: int = 3):
        super().__init__(layout=layout, num_classes=num_classes, num_bodies=num_bodies, width=width, in_channels=in_channels)
        joints = layout.num_joints
        c64, c128, c256, c512 = (max(1, round(channels * width)) for channels in (64, 128, 256, 512))
        self.position_norm, self.velocity_norm = _Norm(joints * in_channels), _Norm(joints * in_channels)
        self.position, self.velocity = _Embedding(in_channels, c64, c64), _Embedding(in_channels, c64, c64)
        self.joint, self.frame = _Embedding(joints, c64, c64), _Embedding(FRAMES, c64, c256)
        self.theta, self.phi = nn.Linear(2 * c64, c256), nn.Linear(2 * c64, c256)
        self.graph = nn.ModuleList(
            [_GraphConvolution(2 * c64, c128), _GraphConvolution(c128, c256), _GraphConvolution(c256, c256)]
        )
        self.over_time = nn.Conv1d(c256, c256, 3, padding=1)
        self.over_time_norm = _Norm(c256)
        self.dropout = nn.Dropout(_DROPOUT)
        self.widen = nn.Linear(c256, c512)
        self.widen_norm = _Norm(c512)
        self.classifier = nn.Linear(c512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                nn.init.normal_(module.weight, 0, math.sqrt(2 / (module.weight[0, 0].numel() * module.weight.shape[0])))
        for convolution in self.graph:
            nn.init.zeros_(convolution.neighbours.weight)  # a joint begins by itself

    def embed_bodies(self, bodies: Tensor) -> Tensor:
        """Bodies (B, C, T, V) to embeddings (B, D), D = 512 * width."""
        frames = bodies.shape[2]
        middle = ((torch.arange(FRAMES, device=bodies.device) + 0.5) * frames / FRAMES).long()
        position = bodies[:, :, middle].permute(0, 2, 3, 1)  # (B, T, V, C)
        velocity = torch.cat([torch.zeros_like(position[:, :1]), position.diff(dim=1)], dim=1)
        moving = sum(
            embedding(norm(x.flatten(2)).view(x.shape))
            for x, norm, embedding in (
                (position, self.position_norm, self.position),
                (velocity, self.velocity_norm, self.velocity),
            )
        )
        joint = self.joint(torch.eye(bodies.shape[3], device=bodies.device, dtype=bodies.dtype))  # (V, 64)
        x = torch.cat([moving, joint.to(moving.dtype).expand_as(moving)], dim=3)
        adjacency = self.adjacency(x)
        for convolution in self.graph:
            x = convolution(x, adjacency)
        frame = self.frame(torch.eye(FRAMES, device=bodies.device, dtype=bodies.dtype))  # (T, 256)
        x = (x + frame[:, None]).amax(2)  # (B, T, 256)
        x = self.dropout(self.over_time_norm(self.over_time(x.mT).mT).relu())
        return self.widen_norm(self.widen(x)).relu().amax(1).to(bodies.dtype)

    def adjacency(self, x: Tensor) -> Tensor:
        """(B, T, V, 128) to (B, T, V, V), each row a distribution over the joints that a joint listens to."""
        return (self.theta(x) @ self.phi(x).mT).softmax(dim=3)
