"""SGN, the semantics-guided network of Zhang et al. (CVPR 2020, arXiv 1904.01189): small, and cheap on a CPU.

Shapes for a batch of B bodies at width 1, T = 20 frames:

    position and velocity   (B, T, V, 3) -> (B, T, V, 64) each, added
    joint semantics         which joint it is, (V, 64), concatenated -> (B, T, V, 128)
    adjacency               softmax(theta(x) phi(x)^T) in every frame, (B, T, V, V)
    graph convolutions      128 -> 128 -> 256 -> 256, with residuals
    frame semantics         which frame it is, (T, 256), added; maximum over joints -> (B, T, 256)
    temporal convolutions   256 -> 256 (3 frames) -> 512; maximum over frames -> (B, 512)

The authors' code drops whole channels (0.2) between the temporal convolutions and spreads the smoothing of labels over the
wrong classes only. Inside, frames of all bodies lie behind each other: (F, V, C) with F = B * T.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from attackers.backbones.base import BodyBackbone, Reference, norm_references
from attackers.backbones.channels_last import ChannelNorm, TemporalConvolution, in_autocast
from bench.skeleton import Layout

FRAMES = 20
_DROPOUT = 0.2


def _linear_references(key: str, linear: nn.Linear) -> dict[str, Reference]:
    """Keys of a published 1x1 convolution over the weights of `linear`."""
    found = {f"{key}.weight": Reference((*linear.weight.shape, 1, 1), linear.weight, lambda tensor: tensor[..., 0, 0])}
    return found if linear.bias is None else found | {f"{key}.bias": Reference(tuple(linear.bias.shape), linear.bias)}


class _Embedding(nn.Sequential):
    """Two linear maps with a ReLU after each."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int):
        super().__init__(
            nn.Linear(in_channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out_channels), nn.ReLU(inplace=True)
        )

    def reference_tensors(self, key: str, first: int = 0) -> dict[str, Reference]:
        """Published keys; `first` is the place of the first map."""
        return {
            **_linear_references(f"{key}.cnn.{first}.cnn", self[0]),
            **_linear_references(f"{key}.cnn.{first + 2}.cnn", self[2]),
        }


class _MotionEmbedding(nn.Module):
    """Batch norm over the V * C coordinates of a frame, then two linear maps of each joint's C."""

    def __init__(self, joints: int, in_channels: int, hidden: int, out_channels: int):
        super().__init__()
        self.norm = ChannelNorm(joints * in_channels)
        self.maps = _Embedding(in_channels, hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, V, C) to (B, T, V, C')."""
        frames = x.flatten(2).unsqueeze(2)  # (B, T, 1, V * C)
        if self.training:
            frames = self.norm(frames)
        else:
            scale, constant = self.norm.affine()
            frames = frames * scale + constant
        return self.maps(frames.reshape(-1, x.shape[3])).view(*x.shape[:3], -1)

    def reference_tensors(self, key: str, joints: int) -> dict[str, Reference]:
        """Published keys; the published norm runs over coordinates first, ours over joints first."""
        norm = norm_references(f"{key}.cnn.0.bn", self.norm, lambda tensor: tensor.view(-1, joints).T.flatten())
        return norm | self.maps.reference_tensors(key, first=1)


class _GraphConvolution(nn.Module):
    """relu(norm(G x W + x R)): what the neighbours say and what the joint itself says."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.neighbours = nn.Linear(in_channels, out_channels, bias=False)
        self.itself = nn.Linear(in_channels, out_channels)
        self.norm = ChannelNorm(out_channels)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """x (F, V, C) and adjacency (F, V, V) to (F, V, C')."""
        neighbours, itself, bias = self.neighbours.weight, self.itself.weight, self.itself.bias
        if not self.training:
            scale, constant = self.norm.affine()
            neighbours, itself, bias = neighbours * scale[:, None], itself * scale[:, None], bias * scale + constant
        heard, neighbours = in_autocast(adjacency @ x, neighbours)
        y = functional.linear(x.flatten(0, 1), itself, bias).addmm_(heard.flatten(0, 1), neighbours.T)
        y = y.view(*x.shape[:2], 1, -1)
        return (self.norm(y, relu=True) if self.training else y.relu_()).squeeze(2)

    def reference_tensors(self, key: str) -> dict[str, Reference]:
        return {
            **_linear_references(f"{key}.w.cnn", self.neighbours),
            **_linear_references(f"{key}.w1.cnn", self.itself),
            **norm_references(f"{key}.bn", self.norm),
        }


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
    drops_out: ClassVar[bool] = True
    code_version: ClassVar[int] = 2
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
        self.position = _MotionEmbedding(joints, in_channels, c64, c64)
        self.velocity = _MotionEmbedding(joints, in_channels, c64, c64)
        self.joint, self.frame = _Embedding(joints, c64, c64), _Embedding(FRAMES, c64, c256)
        self.theta, self.phi = nn.Linear(2 * c64, c256), nn.Linear(2 * c64, c256)
        self.graph = nn.ModuleList(
            [_GraphConvolution(2 * c64, c128), _GraphConvolution(c128, c256), _GraphConvolution(c256, c256)]
        )
        self.over_time = TemporalConvolution(c256, c256, 3, time=1)
        self.dropout = nn.Dropout1d(_DROPOUT)
        self.widen = TemporalConvolution(c256, c512, time=1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, math.sqrt(2 / module.out_features))
        for convolution in self.graph:
            nn.init.zeros_(convolution.neighbours.weight)  # a joint begins by itself
        self.classifier = nn.Linear(c512, num_classes)

    def embed_bodies(self, bodies: Tensor) -> Tensor:
        """Bodies (B, C, T, V) to embeddings (B, D), D = 512 * width."""
        count, _, frames, joints = bodies.shape
        middle = (2 * torch.arange(FRAMES, device=bodies.device) + 1) * frames // (2 * FRAMES)
        position = bodies[:, :, middle].permute(0, 2, 3, 1)  # (B, T, V, C)
        velocity = functional.pad(position.diff(dim=1), (0, 0, 0, 0, 1, 0))
        moving = (self.position(position) + self.velocity(velocity)).flatten(0, 1)  # (F, V, 64)
        joint = self.joint(torch.eye(joints, device=bodies.device, dtype=bodies.dtype))  # (V, 64)
        x = torch.cat([moving, joint.to(moving.dtype).expand_as(moving)], dim=2)
        adjacency = self.adjacency(x)
        for convolution in self.graph:
            x = convolution(x, adjacency)
        frame = self.frame(torch.eye(FRAMES, device=bodies.device, dtype=bodies.dtype))  # (T, 256)
        # What is the same for all joints can be added after the maximum over them.
        x = (x.amax(1).unflatten(0, (count, FRAMES)) + frame).unsqueeze(2)  # (B, T, 1, 256)
        x = self.over_time(x, relu=True)
        x = self.dropout(x.squeeze(2).mT).mT.unsqueeze(2)
        return self.widen(x, relu=True).squeeze(2).amax(1).to(bodies.dtype)

    def adjacency(self, x: Tensor) -> Tensor:
        """softmax(theta(x) phi(x)^T): (F, V, 128) to (F, V, V), each row a distribution over the joints that a joint listens to.

        Both maps make one of 128 by 128. The bias of phi adds the same to a whole row, which softmax takes out again: its
        gradient is zero.
        """
        both = self.phi.weight.T @ self.theta.weight
        towards = self.phi.weight.T @ self.theta.bias + 0 * self.phi.bias.sum()
        return (functional.linear(x, both, towards) @ x.mT).softmax(dim=2)

    def reference_tensors(self) -> dict[str, Reference]:
        """Keys of a state dict written by the authors' code; they published no weights that this project reads."""
        temporal = {}
        for which, layer in (("1", self.over_time), ("2", self.widen)):
            out_channels, in_channels, kernel = layer.weight.shape
            shape = (out_channels, in_channels, 1, kernel)
            temporal[f"cnn.cnn{which}.weight"] = Reference(shape, layer.weight, lambda tensor: tensor[:, :, 0])
            temporal[f"cnn.cnn{which}.bias"] = Reference((out_channels,), layer.bias)
            temporal |= norm_references(f"cnn.bn{which}", layer.norm)
        return {
            **self.position.reference_tensors("joint_embed", self.layout.num_joints),
            **self.velocity.reference_tensors("dif_embed", self.layout.num_joints),
            **self.joint.reference_tensors("spa_embed"),
            **self.frame.reference_tensors("tem_embed"),
            **_linear_references("compute_g1.g1.cnn", self.theta),
            **_linear_references("compute_g1.g2.cnn", self.phi),
            **{k: v for i, layer in enumerate(self.graph, 1) for k, v in layer.reference_tensors(f"gcn{i}").items()},
            **temporal,
            "fc.weight": Reference(tuple(self.classifier.weight.shape), self.classifier.weight),
            "fc.bias": Reference(tuple(self.classifier.bias.shape), self.classifier.bias),
        }
