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
        frames: int64 (C, T', K), in 0..T-1.
        weights: (C, T', K).

    Returns:
        (V, C, T', B).
    """
    v, c, t, b = x.shape
    _, length, terms = frames.shape
    index = (rows * t)[:, :, None, None] + frames  # (V, C, T', K)
    out = functional.embedding_bag(
        index.view(-1, terms),
        x.detach().view(-1, b),  # the gradient is ours, and torch keeps less for a constant
        mode="sum",
        per_sample_weights=weights.to(x.dtype).expand(v, c, length, terms).reshape(-1, terms),
    )
    return out.view(v, c, length, b)


def _within(frames: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The frames clamped to 0..length-1, and where that changed nothing."""
    clamped = frames.clamp(0, length - 1)
    return clamped, clamped == frames


def _lerp_weights(fraction: Tensor) -> Tensor:
    """(1 - fraction, fraction) along a new last axis: (C,) to (C, 1, 2)."""
    first, second = torch.eye(2, dtype=fraction.dtype, device=fraction.device)
    return torch.lerp(first, second, fraction[:, None, None])


class _TemporalShift(torch.autograd.Function):
    """Sampling at t * stride + offset[c] with linear interpolation, and its exact adjoint."""

    @staticmethod
    def forward(ctx, x, offset, rows, inverse, stride):
        floor = offset.floor()
        taps = _lerp_weights(offset - floor)  # (C, 1, 2)
        floor = floor.long()[:, None, None]
        steps = torch.arange(x.shape[2] + 1, device=x.device).unfold(0, 2, stride)  # (T', 2): t * stride + (0, 1)
        frames, inside = _within(steps + floor, x.shape[2])  # (C, T', 2)
        weights = taps * inside
        ctx.save_for_backward(x, floor, taps, frames, inside, rows, inverse)
        ctx.stride = stride
        ctx.set_materialize_grads(False)
        return _weighted_rows(x, rows, frames, weights), weights.sum(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_kept):
        x, floor, taps, frames, inside, rows, inverse = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_offset = None
        if ctx.needs_input_grad[0]:
            # Frame s was read by the output whose first frame is s - 1, with fraction, and s, with 1 - fraction.
            readers = torch.arange(-1, x.shape[2], device=x.device).unfold(0, 2, 1) - floor  # (C, T, 2)
            taps = taps.flip(2)
            if ctx.stride > 1:
                taps = taps * (readers % ctx.stride == 0)
                readers = readers.div(ctx.stride, rounding_mode="floor")
            readers, inside_out = _within(readers, grad.shape[2])
            grad_x = _weighted_rows(grad, inverse, readers, taps * inside_out)
        if ctx.needs_input_grad[1]:
            slope = inside * torch.linspace(-1, 1, 2, dtype=taps.dtype, device=x.device)  # derivative of the weights
            change = _weighted_rows(x, rows, frames, slope)
            grad_offset = change.mul_(grad).sum((0, 2, 3), dtype=taps.dtype)
            if grad_kept is not None:
                grad_offset += (slope.sum(2) * grad_kept).sum(1)
        return grad_x, grad_offset, None, None, None


def temporal_shift(x: Tensor, offset: Tensor, rows: Tensor, inverse: Tensor, *, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Adaptive temporal shift (Cheng et al., CVPR 2020, section 4.2) that also reorders the joints of each channel.

    out[v, c, t] = (1 - f) y[c, s] + f y[c, s + 1] with y = the row rows[v, c] of x, s + f = t * stride + offset[c], 0 <= f < 1,
    and frames outside 0..T-1 zero. The published stride 2 samples half a frame later: add 0.5 to the offset for it.
    The gradient is the true one; at a whole frame, that from the right.

    Args:
        x: (V, C, T, B), contiguous.
        offset: Frames, (C,).
        rows, inverse: Permutation of the V * C rows and its inverse; int64 (V, C).
        stride: Output frames are this many input frames apart.

    Returns:
        out: (V, C, T', B) with T' = ceil(T / stride).
        kept: What becomes of a constant 1, (C, T'): 1 except near the ends, where it meets the zeros outside.
    """
    return _TemporalShift.apply(x, offset, rows, inverse, stride)


class _AddReLU(torch.autograd.Function):
    """relu(x + bias) in the memory of x (V, C, T * B), for a bias (C, T)."""

    @staticmethod
    def forward(ctx, x, bias):
        repeats = x.shape[2] // bias.shape[1]
        x.add_(bias.to(x.dtype).repeat_interleave(repeats, 1)).relu_()  # long inner loops: several times faster in bfloat16
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.bias = bias.shape, bias.dtype
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (out,) = ctx.saved_tensors
        (channels, frames), dtype = ctx.bias
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        return grad, grad.sum(0, dtype=dtype).view(channels, frames, -1).sum(2)


def add_relu_(x: Tensor, bias: Tensor) -> Tensor:
    """relu(x + bias) in place.

    Args:
        x: (V, C, T * B); overwritten.
        bias: (C, T).

    Returns:
        x.
    """
    return _AddReLU.apply(x, bias)


class _Offset(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ypos, xpos, constant, published):
        ctx.published = published
        return ypos + constant

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        if ctx.published:
            grad = torch.where(grad == 0, 1e-4, 0.01 * grad.sign())
        return grad, torch.zeros_like(grad), None, None


def frame_offset(ypos: Tensor, xpos: Tensor, constant: float, *, published: bool) -> Tensor:
    """ypos + constant, with the gradients of the authors' kernel where they are asked for.

    Args:
        ypos: Frames, (C,).
        xpos: Joints, (C,): without effect, as its published gradient is always 0 and its value about 1e-8.
        constant: Frames.
        published: Whether `ypos` gets 0.01 times the sign of its gradient, and 1e-4 where that is 0, instead of the true one.
    """
    return _Offset.apply(ypos, xpos, constant, published)
