"""The two shifts of Shift-GCN as moves of whole rows.

Activations are (V, C, T, B): joints, channels, frames, and the bodies of all clips last, so that one frame of one channel is
a row of B neighbouring numbers. Two orders of the joint axis are in use:

    plain    x[v, c] is channel c of joint v
    sheared  x[v, c] is channel c of joint (v + c) mod V

The non-local spatial shift of Cheng et al. (CVPR 2020, section 4.1), which lets channel c of joint v read joint
v + c, is the change from plain to sheared, and the shift after the linear layer is the change back. The temporal shift
(section 4.2) has to copy rows anyway, so it changes the order on the way and the spatial shift costs nothing.

Our own implementation; the authors' CUDA kernel is not used.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

OffsetGradient = Literal["true", "published"]
OFFSET_GRADIENTS = ("true", "published")


def shear_rows(joints: int, channels: int) -> Tensor:
    """Row v' * C + c of a plain (V * C, ...) array that stands at (v, c) of the sheared one: v' = (v + c) mod V; int64 (V, C)."""
    c = torch.arange(channels)
    return (torch.arange(joints)[:, None] + c) % joints * channels + c


def unshear_rows(joints: int, channels: int) -> Tensor:
    """Inverse of `shear_rows`: rows of a sheared array in plain order; int64 (V, C)."""
    c = torch.arange(channels)
    return (torch.arange(joints)[:, None] - c) % joints * channels + c


class _PermuteRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows, inverse):
        ctx.save_for_backward(rows, inverse)
        return x.flatten(0, 1).index_select(0, rows.flatten()).view_as(x)

    @staticmethod
    def backward(ctx, grad):
        rows, inverse = ctx.saved_tensors
        return _PermuteRows.apply(grad.contiguous(), inverse, rows), None, None


def permute_rows(x: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
    """Reorders the joints of each channel.

    Args:
        x: (V, C, ...).
        rows: Permutation of the V * C rows; int64 (V, C).
        inverse: Its inverse; int64 (V, C).

    Returns:
        As x, contiguous: out[v, c] is row rows[v, c] of x.
    """
    return _PermuteRows.apply(x, rows, inverse)


def _weighted_rows(x: Tensor, rows: Tensor, frames: Tensor, weights: Tensor) -> Tensor:
    """Sums of K weighted rows: out[v, c, t] = sum_k weights[c, t, k] * x.flatten(0, 1)[rows[v, c], frames[c, t, k]].

    Args:
        x: (V, C, T, B), contiguous.
        rows: int64 (V, C).
        frames: int64 (C, T', K); values outside 0..T-1 count as zero rows.
        weights: (C, T', K).

    Returns:
        (V, C, T', B).
    """
    v, c, t, b = x.shape
    _, length, terms = frames.shape
    inside = (frames >= 0) & (frames < t)
    weights = (weights * inside).to(x.dtype)
    index = rows[:, :, None, None] * t + frames.clamp(0, t - 1)  # (V, C, T', K)
    out = functional.embedding_bag(
        index.view(-1, terms),
        x.detach().view(-1, b),  # the gradient is ours, and torch keeps less for a constant
        mode="sum",
        per_sample_weights=weights.expand(v, c, length, terms).reshape(-1, terms),
    )
    return out.view(v, c, length, b)


class _TemporalShift(torch.autograd.Function):
    """Sampling at t * stride + offset[c] with linear interpolation, and its exact adjoint."""

    @staticmethod
    def forward(ctx, x, offset, rows, inverse, stride, offset_gradient):
        floor = offset.floor()
        fraction = offset - floor  # (C,)
        length = -(-x.shape[2] // stride)
        step = torch.arange(length, device=x.device) * stride
        frames = (step + floor.long()[:, None])[:, :, None] + torch.arange(2, device=x.device)  # (C, T', 2)
        ctx.save_for_backward(x, floor, fraction, frames, rows, inverse)
        ctx.stride, ctx.offset_gradient = stride, offset_gradient
        return _weighted_rows(x, rows, frames, torch.stack([1 - fraction, fraction], -1)[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, floor, fraction, frames, rows, inverse = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_offset = None
        if ctx.needs_input_grad[0]:
            # Frame s was read by output t where t * stride + floor is s (with 1 - fraction) or s - 1 (with fraction).
            back = torch.arange(x.shape[2], device=x.device) - floor.long()[:, None]  # (C, T)
            taps = torch.stack([back, back - 1], -1)  # (C, T, 2)
            weights = torch.stack([1 - fraction, fraction], -1)[:, None] * (taps % ctx.stride == 0)
            grad_x = _weighted_rows(grad, inverse, taps.div(ctx.stride, rounding_mode="floor"), weights)
        if ctx.needs_input_grad[1]:
            slope = _weighted_rows(x, rows, frames, fraction.new_tensor([-1.0, 1.0]).expand(*frames.shape))
            grad_offset = slope.mul_(grad).sum((2, 3), dtype=fraction.dtype).sum(0)
            if ctx.offset_gradient == "published":
                grad_offset = torch.where(grad_offset == 0, 1e-4, 0.01 * grad_offset.sign())
        return grad_x, grad_offset, None, None, None, None


def temporal_shift(
    x: Tensor, offset: Tensor, rows: Tensor, inverse: Tensor, *, stride: int = 1, offset_gradient: OffsetGradient = "true"
) -> Tensor:
    """Adaptive temporal shift (Cheng et al., CVPR 2020, section 4.2) that also reorders the joints of each channel.

    out[v, c, t] = (1 - f) y[c, s] + f y[c, s + 1] with y = the row rows[v, c] of x, s + f = t * stride + offset[c], 0 <= f < 1,
    and frames outside 0..T-1 zero. The published stride 2 samples half a frame later: add 0.5 to the offset for it.

    Args:
        x: (V, C, T, B), contiguous.
        offset: Frames, (C,).
        rows, inverse: Permutation of the V * C rows and its inverse; int64 (V, C).
        stride: Output frames are this many input frames apart.
        offset_gradient: "true" for the derivative (from the right at whole frames); "published" for what the authors' kernel
            returns instead: 0.01 times its sign, and 1e-4 where it is 0.

    Returns:
        (V, C, ceil(T / stride), B).
    """
    return _TemporalShift.apply(x, offset, rows, inverse, stride, offset_gradient)
