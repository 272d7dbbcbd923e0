"""Layers on bodies stored as (N, V, T, C), channels last: every product is then one convolution or matrix product without a copy.

In eval mode the batch norm is put into the weights of the product before it, which are small beside the activations.
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """relu(norm(x) + residual), (N, V, T, C) each, by the statistics of the batch; moves the running ones."""
        nchw = x.permute(0, 3, 1, 2)
        args = self.weight, self.bias, self.running_mean, self.running_var
        y = torch.batch_norm(nchw, *args, True, 0.1, 1e-5, False)
        # Before the axes are turned back: what is done in place to a view is copied whole in the backward pass.
        return finish(y, None if residual is None else residual.permute(0, 3, 1, 2), relu).permute(0, 2, 3, 1)

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
        time: Axis of the frames: 1 for (N, T, V, C), 2 for (N, V, T, C).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, dilation: int = 1, *, time: int = 2
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel) * math.sqrt(2 / (out_channels * kernel)))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.norm = ChannelNorm(out_channels)
        self.stride = stride
        self.dilation = dilation
        self.time = time

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """(N, ..., C) to (N, ..., C') with ceil(T / stride) frames."""
        if self.training:
            return self.norm(self._convolve(x, self.weight, self.bias), residual, relu)
        scale, constant = self.norm.affine()
        return finish(self._convolve(x, self.weight * scale[:, None, None], self.bias * scale + constant), residual, relu)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        def along_time(frames: int, elsewhere: int) -> tuple[int, int]:
            return (frames, elsewhere) if self.time == 1 else (elsewhere, frames)

        kernel = weight.unsqueeze(4 - self.time)  # (C', C, k, 1) or (C', C, 1, k)
        y = functional.conv2d(
            x.permute(0, 3, 1, 2),
            kernel.contiguous(memory_format=torch.channels_last),
            bias,
            along_time(self.stride, 1),
            along_time(self.dilation * (weight.shape[2] // 2), 0),
            along_time(self.dilation, 1),
        )
        return y.permute(0, 2, 3, 1)

    def reference_tensors(self, conv: str, norm: str, rows: slice | None = None) -> dict[str, Reference]:
        """Keys of a published convolution and norm, whose output channels are `rows` (all) of ours."""
        weight, bias = (self.weight, self.bias) if rows is None else (self.weight[rows], self.bias[rows])
        return {
            f"{conv}.weight": Reference((*weight.shape, 1), weight, lambda tensor: tensor[..., 0]),
            f"{conv}.bias": Reference(tuple(bias.shape), bias),
            **norm_references(norm, self.norm, rows=rows),
        }


def in_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the type that autocast asks of products, or as they are."""
    kind = tensors[0].device.type
    return tuple(t.to(torch.get_autocast_dtype(kind)) for t in tensors) if torch.is_autocast_enabled(kind) else tensors


class _SubsetProduct(torch.autograd.Function):
    """sum_k rows_k x W_k + b: x (N, V, T, C), rows (N, K, V, V), W (K, C, C'), b (C') to (N * V * T, C').

    rows_k x is large and quickly made: it is not kept for the backward pass.
    """

    @staticmethod
    def forward(ctx, x, rows, weight, bias):
        ctx.save_for_backward(x, rows, weight)
        n, joints, frames, _ = x.shape
        out = None
        for k, matrix in enumerate(weight):
            taken = torch.bmm(rows[:, k], x.flatten(2)).view(n * joints * frames, -1)
            out = torch.addmm(bias, taken, matrix) if out is None else out.addmm_(taken, matrix)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, rows, weight = ctx.saved_tensors
        flat, grad = x.flatten(2), grad.contiguous()  # (N, V, T * C), (N * V * T, C')
        grad_x, grad_rows, grad_weight = (
            None,
            torch.empty_like(rows, memory_format=torch.contiguous_format),
            torch.empty_like(weight),
        )
        for k, matrix in enumerate(weight):
            taken = torch.bmm(rows[:, k], flat).view(len(grad), -1)
            torch.mm(taken.T, grad, out=grad_weight[k])
            grad_taken = torch.mm(grad, matrix.T, out=taken).view(flat.shape)
            grad_rows[:, k] = torch.bmm(grad_taken, flat.mT)
            grad_x = torch.bmm(rows[:, k].mT, grad_taken) if k == 0 else grad_x.baddbmm_(rows[:, k].mT, grad_taken)
        return grad_x.view(x.shape), grad_rows, grad_weight, grad.sum(0)


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
            return self.norm(self._product(x, adjacency, self.weight, self.bias.sum(0)), residual, True)
        scale, constant = self.norm.affine()
        return finish(self._product(x, adjacency, self.weight * scale, self.bias.sum(0) * scale + constant), residual, True)

    @staticmethod
    def _product(x: Tensor, adjacency: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, joints = x.shape[:2]
        rows = adjacency.mT.expand(n, len(weight), joints, joints)
        x, rows, weight = in_autocast(x, rows, weight)
        return _SubsetProduct.apply(x, rows, weight, bias.to(x.dtype)).view(*x.shape[:3], -1)
