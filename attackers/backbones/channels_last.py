"""Layers on bodies stored as (N, V, T, C), channels last: every product is then one convolution or matrix product without a copy.

In eval mode the batch norm is put into the weights of the product before it, which are small beside the activations.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from attackers.backbones.base import Reference, norm_references


class ChannelNorm(nn.Module):
    """Batch norm over all axes but the last, with the default eps and momentum of torch.

    Args:
        channels: C.
        weight: Initial weight.
    """

    def __init__(self, channels: int, weight: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), weight))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, V, T, C) to the same, by the statistics of the batch; moves the running ones."""
        nchw = x.permute(0, 3, 1, 2)
        args = self.weight, self.bias, self.running_mean, self.running_var
        return torch.batch_norm(nchw, *args, True, 0.1, 1e-5, False).permute(0, 2, 3, 1)

    def affine(self) -> tuple[Tensor, Tensor]:
        """(scale, constant), each (C,), of the running statistics: norm(x) = scale * x + constant."""
        scale = self.weight * torch.rsqrt(self.running_var + 1e-5)
        return scale, self.bias - self.running_mean * scale


def finish(y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """relu(y + residual) in the memory of y."""
    if residual is not None:
        y = y.add_(residual)
    return y.relu_() if relu else y


class TemporalConvolution(nn.Module):
    """Convolution over time, then batch norm, an optional residual and an optional ReLU.

    Args:
        in_channels, out_channels: C, C'.
        kernel: Frames of the kernel, odd; the ends are padded with zeros.
        stride: Frames from one output to the next: ceil(T / stride) come out.
        dilation: Frames from one tap to the next.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, kernel) * math.sqrt(2 / (out_channels * kernel)))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.norm = ChannelNorm(out_channels)
        self.stride = stride
        self.dilation = dilation

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """(N, V, T, C) to (N, V, ceil(T / stride), C')."""
        if self.training:
            return finish(self.norm(self._convolve(x, self.weight, self.bias)), residual, relu)
        scale, constant = self.norm.affine()
        return finish(self._convolve(x, self.weight * scale[:, None, None, None], self.bias * scale + constant), residual, relu)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        padding = self.dilation * (weight.shape[3] // 2)
        y = functional.conv2d(
            x.permute(0, 3, 1, 2),
            weight.contiguous(memory_format=torch.channels_last),
            bias,
            (1, self.stride),
            (0, padding),
            (1, self.dilation),
        )
        return y.permute(0, 2, 3, 1)

    def reference_tensors(self, conv: str, norm: str) -> dict[str, Reference]:
        out_channels, in_channels, _, kernel = self.weight.shape
        shape = (out_channels, in_channels, kernel, 1)
        return {
            f"{conv}.weight": Reference(shape, self.weight, lambda tensor: tensor.transpose(2, 3)),
            f"{conv}.bias": Reference((out_channels,), self.bias),
            **norm_references(norm, self.norm),
        }


class GraphProduct(nn.Module):
    """sum_k A_k^T x W_k + b, then batch norm, residual and ReLU: the graph convolution over K subsets of neighbours.

    Args:
        in_channels, out_channels: C, C'.
        subsets: K.
        std: Standard deviation of the initial weights.
        norm_weight: Initial weight of the norm.
    """

    def __init__(self, in_channels: int, out_channels: int, subsets: int, std: float, norm_weight: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(subsets, in_channels, out_channels) * std)
        self.bias = nn.Parameter(torch.zeros(subsets, out_channels))
        self.norm = ChannelNorm(out_channels, norm_weight)

    def forward(self, x: Tensor, adjacency: Tensor, residual: Tensor | None) -> Tensor:
        """x (N, V, T, C) and adjacency (K, V, V) or (N, K, V, V) to (N, V, T, C')."""
        if self.training:
            return finish(self.norm(self._product(x, adjacency, self.weight, self.bias.sum(0))), residual, True)
        scale, constant = self.norm.affine()
        return finish(self._product(x, adjacency, self.weight * scale, self.bias.sum(0) * scale + constant), residual, True)

    @staticmethod
    def _product(x: Tensor, adjacency: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, joints, frames, channels = x.shape
        subsets = len(weight)
        rows = adjacency.mT.expand(n, subsets, joints, joints).reshape(n, subsets * joints, joints)
        taken = torch.bmm(rows, x.flatten(2)).view(n, subsets, joints * frames, channels)
        y = torch.matmul(taken[:, 0], weight[0])
        for k in range(1, subsets):
            y = torch.baddbmm(y, taken[:, k], weight[k].to(y.dtype).expand(n, -1, -1))
        return (y + bias.to(y.dtype)).view(n, joints, frames, -1)
