"""ST-GCN (Yan, Xiong and Lin, AAAI 2018, arXiv 1801.07455): the first graph network on skeletons, as a baseline.

Ten blocks as in 2s-AGCN, whose graph is the skeleton's, weighed edge by edge. Neighbours are told apart by whether they are
nearer to the layout's centre than the joint, as near, or farther.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from attackers.backbones.agcn import AdaptiveGCN
from attackers.backbones.base import Reference
from attackers.backbones.channels_last import GraphProduct, TemporalConvolution
from attackers.backbones.graphs import distance_partition
from bench.skeleton import Layout

_KERNEL = 9  # frames


class WeighedBlock(nn.Module):
    """Graph convolution with learned importance of every edge, temporal convolution, residual.

    Args:
        in_channels, out_channels: C, C'.
        stride: Of the temporal convolution.
        residual: Whether there is a residual around the block.
        partition: (3, V, V).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, residual: bool, partition: Tensor):
        super().__init__()
        self.register_buffer("skeleton", partition, persistent=False)
        self.importance = nn.Parameter(torch.ones_like(partition))
        self.spatial = GraphProduct(in_channels, out_channels, 3, math.sqrt(2 / (3 * out_channels)))
        self.temporal = TemporalConvolution(out_channels, out_channels, _KERNEL, stride)
        projected = residual and (in_channels != out_channels or stride != 1)
        self.residual = TemporalConvolution(in_channels, out_channels, 1, stride) if projected else None
        self.has_residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(N, V, T, C) to (N, V, ceil(T / stride), C')."""
        y = self.spatial(x, self.skeleton * self.importance, None)
        residual = x if self.residual is None else self.residual(x)
        return self.temporal(y, residual if self.has_residual else None, relu=True)


class SpatialTemporalGCN(AdaptiveGCN):
    """Spatial temporal graph convolutional network. Arguments as for `AdaptiveGCN`."""

    block_type: ClassVar[type[nn.Module]] = WeighedBlock
    published_recipe: ClassVar[Mapping[str, object]] = {
        "lr": 0.1,
        "epochs": 80,
        "steps": (10, 50),
        "batch": 64,
        "weight_decay": 1e-4,
    }

    @staticmethod
    def partition(layout: Layout) -> Tensor:
        return distance_partition(layout)

    def reference_tensors(self) -> dict[str, Reference]:
        raise ValueError("there are no published weights of SpatialTemporalGCN in a form that this project reads")
