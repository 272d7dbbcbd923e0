"""AAGCN, one stream (Shi, Zhang, Cheng and Lu, IEEE Trans. Image Processing 2020, arXiv 1912.06971).

2s-AGCN whose graph is learned freely from the skeleton's, with a gate on what each clip adds to it, and attention to joints, to
frames and to channels between the two convolutions of every block.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attackers.backbones.agcn import AdaptiveBlock, AdaptiveGCN, AdaptiveGraph
from attackers.backbones.base import Reference

_FRAMES = 9  # kernel of the attention to frames


class GatedGraph(AdaptiveGraph):
    """learned + alpha * tanh(similarity), (N, 3, V, V), learned from the skeleton on; alpha starts at 0."""

    def __init__(self, in_channels: int, inner: int, partition: Tensor):
        super().__init__(in_channels, inner, partition)
        del self.skeleton
        self.learned = nn.Parameter(partition.clone())
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, V, T, C) to (N, 3, V, V); entry (i, j) is what joint j takes from joint i."""
        return self.similarity(x).tanh() * self.alpha + self.learned


class AttentiveBlock(AdaptiveBlock):
    """A block of 2s-AGCN with a gated graph, and attention between its convolutions. Arguments as there."""

    graph_type: ClassVar[type[AdaptiveGraph]] = GatedGraph

    def __init__(self, in_channels: int, out_channels: int, stride: int, residual: bool, partition: Tensor):
        super().__init__(in_channels, out_channels, stride, residual, partition)
        joints = partition.shape[1]
        kernel = joints if joints % 2 else max(joints - 1, 1)
        self.to_joints = nn.Conv1d(out_channels, 1, kernel, padding=kernel // 2)
        self.to_frames = nn.Conv1d(out_channels, 1, _FRAMES, padding=_FRAMES // 2)
        squeezed = max(out_channels // 2, 1)
        self.squeeze, self.excite = nn.Linear(out_channels, squeezed), nn.Linear(squeezed, out_channels)
        nn.init.xavier_normal_(self.to_joints.weight)
        nn.init.kaiming_normal_(self.squeeze.weight)
        for start in (self.to_frames, self.excite):
            nn.init.zeros_(start.weight)
        for layer in (self.to_joints, self.to_frames, self.squeeze, self.excite):
            nn.init.zeros_(layer.bias)

    def attend(self, y: Tensor) -> Tensor:
        """(N, V, T, C): each attention multiplies by 1 + its weight of the joint, the frame, the channel."""
        y = y * (1 + self.to_joints(y.mean(2).mT).sigmoid()).mT[:, :, None].to(y.dtype)
        y = y * (1 + self.to_frames(y.mean(1).mT).sigmoid()).mT[:, None].to(y.dtype)
        return y * (1 + self.excite(self.squeeze(y.mean((1, 2))).relu()).sigmoid())[:, None, None].to(y.dtype)


class AttentionGCN(AdaptiveGCN):
    """Attention-enhanced adaptive graph convolutional network, one stream. Arguments as for `AdaptiveGCN`."""

    block_type: ClassVar[type[nn.Module]] = AttentiveBlock

    def reference_tensors(self) -> dict[str, Reference]:
        raise ValueError("there are no published weights of AttentionGCN in a form that this project reads")
