"""Layers that the graph networks share: batch norm fused with what follows it, and the norm of the input."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_EPS = 1e-5
_MOMENTUM = 0.1


def _reduce(x: Tensor, like: Tensor) -> Tensor:
    """Sums (..., L) over the last axis and over the axes where `like` has size 1; the result has the shape of `like`."""
    total = x.sum(-1, keepdim=True, dtype=like.dtype)
    for axis in range(x.ndim - 1):
        if like.shape[axis] == 1 and x.shape[axis] != 1:
            total = total.sum(axis, keepdim=True)
    return total


class _NormAddReLU(torch.autograd.Function):
    """relu(weight * (x - mean) / std + bias + residual) with the statistics of x, which it returns: (out, mean + shift, var).

    The statistics are accumulated in the type of `weight`, in two passes (mean first), so a large mean does no harm.
    """

    @staticmethod
    def forward(ctx, x, residual, shift, weight, bias, eps, relu):
        count = x.numel() // weight.numel()
        mean = _reduce(x, weight) / count
        centred = x - mean.to(x.dtype)
        squares = torch.linalg.vector_norm(centred, dim=-1, keepdim=True, dtype=weight.dtype).square_()
        var = _reduce(squares, weight) / count
        inv_std = torch.rsqrt(var + eps)
        scale = weight * inv_std
        if residual is None:
            out = torch.addcmul(bias.to(x.dtype), centred, scale.to(x.dtype))
        else:
            out = torch.addcmul(residual, centred, scale.to(x.dtype)).add_(bias.to(x.dtype))
        if relu:
            out.relu_()
        ctx.save_for_backward(centred, scale, inv_std, out if relu else None)
        ctx.count, ctx.relu, ctx.has_residual = count, relu, residual is not None
        ctx.shift_shape = None if shift is None else shift.shape
        if shift is not None:
            mean = mean + shift
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, _mean, _var):
        centred, scale, inv_std, out = ctx.saved_tensors
        if ctx.relu:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        grad_bias = _reduce(grad, scale)
        grad_x = grad * centred
        grad_weight = _reduce(grad_x, scale) * inv_std
        # dx = scale (grad - mean(grad) - xhat mean(grad xhat)), in the memory of the product above
        offset = (-scale * grad_bias / ctx.count).to(grad.dtype)
        slope = (-scale * inv_std * grad_weight / ctx.count).to(grad.dtype)
        torch.addcmul(offset, centred, slope, out=grad_x).addcmul_(grad, scale.to(grad.dtype))
        grad_shift = None if ctx.shift_shape is None else scale.new_zeros(ctx.shift_shape)  # the mean takes it away again
        return grad_x, grad if ctx.has_residual else None, grad_shift, grad_weight, grad_bias, None, None


class BatchNorm(nn.Module):
    """Batch norm of (..., L) arrays, fused with an optional residual and ReLU: relu(norm(x + shift) + residual).

    The same function as `torch.nn.BatchNorm1d` with the default eps and momentum, but batch last, several times
    faster on a CPU, and without an error where there is one value per channel (its normalised value is 0).

    Args:
        shape: Shape of the parameters; ends in 1. Statistics run over the last axis of x and over axes of size 1.
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x: Tensor, *, shift: Tensor | None = None, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """Normalises.

        Args:
            x: (..., L).
            shift: Constant per channel that belongs to x but has not been added to it: the bias of the product that made
                x. In training it cancels and only enters the running mean; its gradient is then exactly 0.
            residual: As x, added after the norm.
            relu: Whether a ReLU comes last.

        Returns:
            As x.
        """
        if self.training:
            out, mean, var = _NormAddReLU.apply(x, residual, shift, self.weight, self.bias, _EPS, relu)
            self._track(mean, var, x.numel() // var.numel())
            return out
        scale = self.weight * torch.rsqrt(self.running_var + _EPS)
        bias = self.bias + ((0 if shift is None else shift) - self.running_mean) * scale
        scale, bias = scale.to(x.dtype), bias.to(x.dtype)
        out = torch.addcmul(bias, x, scale) if residual is None else torch.addcmul(residual, x, scale).add_(bias)
        return out.relu_() if relu else out

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Moves the running statistics towards those of a batch; the variance without bias, as torch does."""
        self.running_mean.lerp_(mean, _MOMENTUM)
        self.running_var.lerp_(var * (count / max(count - 1, 1)), _MOMENTUM)


class InputNorm(nn.Module):
    """Batch norm over the M * V * C channels of a clip, as ST-GCN and its descendants begin.

    Args:
        channels: C.
        joints: V.
        bodies: M.
    """

    def __init__(self, channels: int, joints: int, bodies: int):
        super().__init__()
        self.norm = BatchNorm(bodies, joints, channels, 1)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, C, T, V, M) to the same shape, stored as (M, V, C, T, N)."""
        n, _, t, _, _ = clips.shape
        rows = clips.permute(4, 3, 1, 2, 0).flatten(3)  # (M, V, C, T * N)
        return self.norm(rows).unflatten(3, (t, n)).permute(4, 2, 3, 1, 0)
