"""2s-AGCN, one stream (Shi, Zhang, Cheng and Lu, CVPR 2019, arXiv 1805.07694): graphs that each clip adapts to itself.

Bodies are (N, V, T, C) inside. Ten blocks at width 1, T frames in:

    block       1  2  3  4  5    6    7    8    9    10
    channels    64 64 64 64 128  128  128  256  256  256
    stride      1  1  1  1  2    1    1    2    1    1

A block is an adaptive graph convolution and a convolution over 9 frames, each with a batch norm, and a residual around both but
in the first block. Joint or bone stream is a matter of the input; their scores are fused by the attacker.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from attackers.backbones.base import BodyBackbone, Reference, norm_references
from attackers.backbones.channels_last import GraphProduct, TemporalConvolution
from attackers.backbones.graphs import spatial_partition
from bench.skeleton import Layout

# (output channels at width 1, stride) of the ten blocks.
BLOCKS = (*[(64, 1)] * 4, (128, 2), *[(128, 1)] * 2, (256, 2), *[(256, 1)] * 2)
_CHANNEL_STEP = 8  # channel counts are rounded to a multiple of this
_KERNEL = 9  # frames


class AdaptiveGraph(nn.Module):
    """The graph of one block for each clip: skeleton + learned + similarity of joints, (N, 3, V, V).

    Args:
        in_channels: C.
        inner: Channels in which joints are compared.
        partition: (3, V, V) the skeleton's graph.
    """

    def __init__(self, in_channels: int, inner: int, partition: Tensor):
        super().__init__()
        self.register_buffer("skeleton", partition, persistent=False)
        self.learned = nn.Parameter(torch.full_like(partition, 1e-6))
        # First the three of `a`, then the three of `b`.
        self.weight = nn.Parameter(torch.randn(6 * inner, in_channels) * math.sqrt(2 / inner))
        self.bias = nn.Parameter(torch.zeros(6 * inner))

    def similarity(self, x: Tensor) -> Tensor:
        """(N, V, T, C) to (N, 3, V, V): mean over frames and channels of the products of both embeddings."""
        n, joints = x.shape[:2]
        both = nn.functional.linear(x, self.weight, self.bias).unflatten(3, (6, -1))  # (N, V, T, 6, C')
        both = both.permute(3, 0, 1, 2, 4).reshape(2, 3 * n, joints, -1)  # one copy, for one product
        scores = torch.bmm(both[0], both[1].mT) / both.shape[3]
        return scores.view(3, n, joints, joints).transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, V, T, C) to (N, 3, V, V); entry (i, j) is what joint j takes from joint i."""
        return self.similarity(x).softmax(dim=2) + (self.skeleton + self.learned)

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        inner, found = len(self.weight) // 6, {f"{prefix}.PA": Reference(tuple(self.learned.shape), self.learned)}
        for letter, start in (("a", 0), ("b", 3)):
            for k in range(3):
                rows = slice((start + k) * inner, (start + k + 1) * inner)
                name = f"{prefix}.conv_{letter}.{k}"
                found[f"{name}.weight"] = Reference(
                    (inner, self.weight.shape[1], 1, 1), self.weight[rows], lambda tensor: tensor[:, :, 0, 0]
                )
                found[f"{name}.bias"] = Reference((inner,), self.bias[rows])
        return found


class AdaptiveBlock(nn.Module):
    """Adaptive graph convolution, temporal convolution, residuals.

    Args:
        in_channels, out_channels: C, C'.
        stride: Of the temporal convolution.
        residual: Whether there is a residual around the whole block.
        partition: (3, V, V).
    """

    graph_type: ClassVar[type[AdaptiveGraph]] = AdaptiveGraph

    def __init__(self, in_channels: int, out_channels: int, stride: int, residual: bool, partition: Tensor):
        super().__init__()
        self.graph = self.graph_type(in_channels, max(out_channels // 4, 1), partition)
        self.spatial = GraphProduct(in_channels, out_channels, 3, math.sqrt(2 / (out_channels * in_channels * 3)), 1e-6)
        self.down = TemporalConvolution(in_channels, out_channels) if in_channels != out_channels else None
        self.temporal = TemporalConvolution(out_channels, out_channels, _KERNEL, stride)
        projected = residual and (in_channels != out_channels or stride != 1)
        self.residual = TemporalConvolution(in_channels, out_channels, 1, stride) if projected else None
        self.has_residual = residual

    def attend(self, y: Tensor) -> Tensor:
        """What happens between the two convolutions: nothing."""
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(N, V, T, C) to (N, V, ceil(T / stride), C')."""
        y = self.spatial(x, self.graph(x), x if self.down is None else self.down(x))
        residual = x if self.residual is None else self.residual(x)
        return self.temporal(self.attend(y), residual if self.has_residual else None, relu=True)

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        found = self.graph.reference_tensors(f"{prefix}.gcn1")
        for k, (weight, bias) in enumerate(zip(self.spatial.weight, self.spatial.bias, strict=True)):
            shape = (weight.shape[1], weight.shape[0], 1, 1)
            found[f"{prefix}.gcn1.conv_d.{k}.weight"] = Reference(shape, weight, lambda tensor: tensor[:, :, 0, 0].T)
            found[f"{prefix}.gcn1.conv_d.{k}.bias"] = Reference(tuple(bias.shape), bias)
        found |= norm_references(f"{prefix}.gcn1.bn", self.spatial.norm)
        found |= self.temporal.reference_tensors(f"{prefix}.tcn1.conv", f"{prefix}.tcn1.bn")
        if self.down is not None:
            found |= self.down.reference_tensors(f"{prefix}.gcn1.down.0", f"{prefix}.gcn1.down.1")
        if self.residual is not None:
            found |= self.residual.reference_tensors(f"{prefix}.residual.conv", f"{prefix}.residual.bn")
        return found


class AdaptiveGCN(BodyBackbone):
    """Adaptive graph convolutional network, one stream of 2s-AGCN.

    Args:
        layout: Skeleton layout with V joints and its graph.
        num_classes: Number of logits.
        num_bodies: Bodies per clip, M.
        width: Factor on the channels 64, 128, 256, which are then rounded to a multiple of 8, at least 8.
        in_channels: Coordinates per joint.
    """

    block_type: ClassVar[type[nn.Module]] = AdaptiveBlock
    published_recipe: ClassVar[Mapping[str, object]] = {
        "lr": 0.1,
        "epochs": 50,
        "steps": (30, 40),
        "batch": 64,
        "weight_decay": 1e-4,
    }

    def __init__(self, *, layout: Layout, num_classes: int, num_bodies: int, width: float = 1.0, in_channels: int = 3):
        super().__init__(layout=layout, num_classes=num_classes, num_bodies=num_bodies, width=width, in_channels=in_channels)
        partition, blocks, channels = self.partition(layout), [], in_channels
        for number, (full, stride) in enumerate(BLOCKS):
            out = max(1, round(full * width / _CHANNEL_STEP)) * _CHANNEL_STEP
            blocks.append(self.block_type(channels, out, stride, number > 0, partition))
            channels = out
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(channels, num_classes)
        nn.init.normal_(self.classifier.weight, 0, math.sqrt(2 / num_classes))
        nn.init.zeros_(self.classifier.bias)

    @staticmethod
    def partition(layout: Layout) -> Tensor:
        """(3, V, V) graph that every block starts from."""
        return spatial_partition(layout)

    def embed_bodies(self, bodies: Tensor) -> Tensor:
        """Normalised bodies (B, C, T, V) to embeddings (B, D), D = 256 * width."""
        x = bodies.permute(0, 3, 2, 1).contiguous()  # (B, V, T, C)
        for block in self.blocks:
            x = block(x)
        return x.flatten(1, 2).mean(1, dtype=bodies.dtype)

    def reference_tensors(self) -> dict[str, Reference]:
        found = norm_references("data_bn", self.input_norm.norm)
        for number, block in enumerate(self.blocks, start=1):
            found |= block.reference_tensors(f"l{number}")
        found["fc.weight"] = Reference(tuple(self.classifier.weight.shape), self.classifier.weight)
        found["fc.bias"] = Reference(tuple(self.classifier.bias.shape), self.classifier.bias)
        return found
