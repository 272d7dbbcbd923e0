"""Layers that the graph networks share: batch norm fused with what follows it, and the norm of the input."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_EPS = 1e-5
_MOMENTUM = 0.1
_STILL = 1e-5  # range up to which a channel is still in a batch, in its unit and relative to its size: rounding, and nothing
# that a variance of eps would let be seen
_STILL_FOR = 22  # batches without motion after which it counts as still: by then a running variance has shrunk to a tenth


def _reduce(x: Tensor, like: Tensor) -> Tensor:
    """Sums (..., L) over the last axis and over the axes where `like` has size 1; the result has the shape of `like`."""
    total = x.sum(-1, keepdim=True, dtype=like.dtype)
    for axis in range(x.ndim - 1):
        if like.shape[axis] == 1 and x.shape[axis] != 1:
            total = total.sum(axis, keepdim=True)
    return total


def _moments(x: Tensor, like: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance of x in the shape and type of `like`, and over how many values; reads x twice.

    The variance is the mean square less the squared mean: relative error about 1e-7 * (1 + mean^2 / variance) in float32.
    """
    count = x.numel() // like.numel()
    mean = _reduce(x, like) / count
    squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=like.dtype).square_()
    var = (_reduce(squares, like) / count).addcmul_(mean, mean, value=-1).clamp_min_(0)
    return mean, var, count


class _Affine(torch.autograd.Function):
    """The norm with the statistics of x as two numbers, norm(x) = scale * x + constant: (scale, constant, mean, var)."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        mean, var, ctx.count = _moments(x, weight)
        inv_std = (var + _EPS).rsqrt_()
        scale = weight * inv_std
        ctx.save_for_backward(x, mean, scale, inv_std)
        ctx.mark_non_differentiable(mean, var)
        return scale, torch.addcmul(bias, mean, scale, value=-1), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_scale, grad_constant, _mean, _var):
        x, mean, scale, inv_std = ctx.saved_tensors
        grad_weight = torch.addcmul(grad_scale, mean, grad_constant, value=-1).mul_(inv_std)
        # Through the statistics: d scale / dx = -scale (x - mean) / (count std^2), d mean / dx = 1 / count.
        per_value = scale / -ctx.count
        slope = per_value * grad_weight * inv_std
        offset = torch.addcmul(per_value * grad_constant, slope, mean, value=-1)
        return _scale_add(x, slope, offset, None), grad_weight, grad_constant


class _NormAddReLU(torch.autograd.Function):
    """relu(weight * (x - mean) / std + bias + residual) with the statistics of x, which it returns: (out, mean + shift, var)."""

    @staticmethod
    def forward(ctx, x, residual, shift, weight, bias, relu):
        mean, var, ctx.count = _moments(x, weight)
        inv_std = (var + _EPS).rsqrt_()
        scale = weight * inv_std
        out = _scale_add(x, scale, torch.addcmul(bias, mean, scale, value=-1), residual)
        if relu:
            out.relu_()
        ctx.save_for_backward(x, mean, scale, inv_std, out if relu else None)
        ctx.has_residual = residual is not None
        ctx.shift_shape = None if shift is None else shift.shape
        if shift is not None:
            mean = mean + shift
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, _mean, _var):
        x, mean, scale, inv_std, out = ctx.saved_tensors
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        grad_bias = _reduce(grad, scale)
        grad_x = grad * x
        grad_weight = _reduce(grad_x, scale).addcmul_(mean, grad_bias, value=-1).mul_(inv_std)
        # dx = scale (grad - mean(grad) - xhat mean(grad xhat)), in the memory of the product above
        per_value = scale / -ctx.count
        slope = per_value * grad_weight * inv_std
        offset = torch.addcmul(per_value * grad_bias, slope, mean, value=-1)
        torch.mul(x, slope.to(x.dtype), out=grad_x).addcmul_(grad, scale.to(x.dtype)).add_(offset.to(x.dtype))
        grad_shift = None if ctx.shift_shape is None else scale.new_zeros(ctx.shift_shape)  # the mean takes it away again
        return grad_x, grad if ctx.has_residual else None, grad_shift, grad_weight, grad_bias, None


def _scale_add(x: Tensor, scale: Tensor, bias: Tensor, residual: Tensor | None, *, overwrite: bool = False) -> Tensor:
    """scale * x + bias + residual, in the type of x and, if asked for, its memory.

    In steps, because an `addcmul` of two small tensors is several times slower.
    """
    scale, bias, out = scale.to(x.dtype), bias.to(x.dtype), x if overwrite else None
    return (torch.mul(x, scale, out=out) if residual is None else torch.addcmul(residual, x, scale, out=out)).add_(bias)


class BatchNorm(nn.Module):
    """Batch norm of (..., L) arrays, fused with an optional residual and ReLU: relu(norm(x + shift) + residual).

    The same function as `torch.nn.BatchNorm1d` with the default eps and momentum, but batch last, several times
    faster on a CPU, and without an error where there is one value per channel (its normalised value is 0).

    Args:
        shape: Shape of the parameters; ends in 1. Statistics run over the last axis of x and over axes of size 1.
        stills: Whether in eval mode too the normalised value of a channel that no longer varies is 0. In training it is: the
            mean follows the weights that make the channel. torch's running mean does so a few steps late, and 1 over the root
            of a running variance that shrinks towards eps makes that lag up to three hundred times larger. For parameters of
            one channel a row.
    """

    def __init__(self, *shape: int, stills: bool = False):
        super().__init__()
        self._stills = stills
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))
        if stills:
            self.register_buffer("running_still", torch.zeros(shape))  # batches since it last varied

    def forward(self, x: Tensor, *, shift: Tensor | None = None, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """Normalises.

        Args:
            x: (..., L); its memory is used for the result in eval mode where no gradients are recorded.
            shift: Constant per channel that belongs to x but has not been added to it: the bias of the product that made
                x. In training it cancels and only enters the running mean; its gradient is then exactly 0.
            residual: As x, added after the norm.
            relu: Whether a ReLU comes last.

        Returns:
            As x.
        """
        if self.training:
            if self._stills:
                self._watch(x)
            out, mean, var = _NormAddReLU.apply(x, residual, shift, self.weight, self.bias, relu)
            self._track(mean, var, x.numel() // var.numel())
            return out
        scale, bias = self._running(shift)
        out = _scale_add(x, scale, bias, residual, overwrite=not torch.is_grad_enabled())
        return out.relu_() if relu else out

    def affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The norm as two numbers: (scale, constant) in the shape of the parameters with norm(x) = scale * x + constant.

        For a caller that can put them into a product instead of reading and writing x once more.
        """
        if not self.training:
            return self._running(None)
        scale, constant, mean, var = _Affine.apply(x, self.weight, self.bias)
        self._track(mean, var, x.numel() // var.numel())
        return scale, constant

    def _running(self, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """(scale, bias) of the running statistics."""
        scale = self.weight * torch.rsqrt(self.running_var + _EPS)
        if self._stills:
            scale.masked_fill_(self.running_still >= _STILL_FOR, 0)
        return scale, self.bias + ((0 if shift is None else shift) - self.running_mean) * scale

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Moves the running statistics towards those of a batch; the variance without bias, as torch does."""
        self.running_mean.lerp_(mean, _MOMENTUM)
        self.running_var.lerp_(var * (count / max(count - 1, 1)), _MOMENTUM)

    @torch.no_grad()
    def _watch(self, x: Tensor) -> None:
        """Counts the batches in which a channel is one number, going by some 128 of its values.

        Its variance does not tell: a mean square less a squared mean is rounding, and more of it the more values there are.
        """
        some = x[..., :: x.shape[-1] // 128 | 1]  # an odd step, which meets every clip where their number is a power of two
        low, high = torch.aminmax(some, dim=-1, keepdim=True)
        least = max(_STILL, 2 * torch.finfo(x.dtype).eps)
        self.running_still.add_(1).mul_(high - low <= least * (1 + high.abs()))


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
        centre = rows.detach().mean(3, keepdim=True)  # metres from the camera may be large beside their variance
        return self.norm(rows - centre, shift=centre).unflatten(3, (t, n)).permute(4, 2, 3, 1, 0)
