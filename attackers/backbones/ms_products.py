"""The two large products of MS-G3D, a piece at a time, so that what lies between their factors stays in the cache.

Bodies are (N, T, V, C). Nothing between the factors is kept for the backward pass: it is made again, piece by piece.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_PIECE = 2**19  # numbers between the factors of one piece
_FEW = 16  # channels


def _pieces(frames: int, per_frame: int) -> list[slice]:
    """Slices of so many frames that each has about `_PIECE` numbers."""
    size = max(1, _PIECE // per_frame)
    return [slice(start, start + size) for start in range(0, frames, size)]


class NeighbourProduct(torch.autograd.Function):
    """sum_s (A_s x) W_s + b: each output joint sums its neighbours at each scale, then all scales are mixed.

    forward(x (F, U, C), adjacency (V * S, U), weight (S * C, C'), bias (C')) -> (F, V, C'), rows of the adjacency ordered
    (joint, scale).
    """

    @staticmethod
    def forward(ctx, x, adjacency, weight, bias):
        ctx.save_for_backward(x, adjacency, weight)
        rows, inner = len(adjacency), weight.shape[0]
        joints = rows * x.shape[2] // inner
        out = x.new_empty(len(x), joints, weight.shape[1])
        for piece in _pieces(len(x), rows * x.shape[2]):
            taken = _shared_left(adjacency, x[piece])
            torch.addmm(bias, taken.view(-1, inner), weight, out=out[piece].view(-1, weight.shape[1]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, adjacency, weight = ctx.saved_tensors
        rows, inner, grad = len(adjacency), weight.shape[0], grad.contiguous()
        grad_x, grad_a, grad_w = torch.empty_like(x), torch.zeros_like(adjacency), torch.zeros_like(weight)
        for piece in _pieces(len(x), rows * x.shape[2]):
            part, out = x[piece], grad[piece].view(-1, weight.shape[1])
            taken = _shared_left(adjacency, part).view(-1, inner)
            grad_w.addmm_(taken.T, out)
            grad_taken = torch.mm(out, weight.T, out=taken).view(len(part), rows, -1)
            grad_a += _shared_right(grad_taken, part)
            grad_x[piece] = _shared_left(adjacency.T, grad_taken)
        return grad_x, grad_a, grad_w, grad.sum((0, 1))


class WindowProduct(torch.autograd.Function):
    """sum_s A_s (x W_s) + b over windows of frames: scales are mixed once a frame, not once a window that holds the frame.

    forward(x (N, T + w - 1, V, C) padded, adjacency (R, w * V * S), weight (C, S * C'), bias (C'), window w, stride)
    -> (N, ceil(T / stride), R, C'), columns of the adjacency ordered (frame of the window, joint, scale).
    """

    @staticmethod
    def forward(ctx, x, adjacency, weight, bias, window, stride):
        ctx.save_for_backward(x, adjacency, weight)
        ctx.sizes = window, stride
        outputs = -(-(x.shape[1] - window + 1) // stride)
        out = x.new_empty(len(x), outputs, len(adjacency), len(bias))
        for clip, result in zip(x, out, strict=True):
            mixed = torch.mm(clip.reshape(-1, clip.shape[2]), weight)
            torch.add(_shared_left(adjacency, _windows(mixed, clip, len(bias), window, stride)), bias, out=result)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, adjacency, weight = ctx.saved_tensors
        window, stride = ctx.sizes
        channels, grad = grad.shape[3], grad.contiguous()
        grad_x, grad_a, grad_w = torch.empty_like(x), torch.zeros_like(adjacency), torch.zeros_like(weight)
        for clip, out, grad_clip in zip(x, grad, grad_x, strict=True):
            flat = clip.reshape(-1, clip.shape[2])
            mixed = torch.mm(flat, weight)
            grad_a += _shared_right(out, _windows(mixed, clip, channels, window, stride))
            seen = _shared_left(adjacency.T, out).view(len(out), window, -1)  # (T', w, V * S * C')
            grad_mixed = mixed.zero_().view(len(clip), -1)
            for frame in range(window):
                grad_mixed[frame : frame + stride * len(out) : stride] += seen[:, frame]
            grad_mixed = grad_mixed.view(len(flat), -1)
            grad_w.addmm_(flat.T, grad_mixed)
            grad_clip.copy_(torch.mm(grad_mixed, weight.T).view(clip.shape))
        return grad_x, grad_a, grad_w, grad.sum((0, 1, 2)), None, None


def _windows(mixed: Tensor, clip: Tensor, channels: int, window: int, stride: int) -> Tensor:
    """Rows of each window (T', w * V * S, C') as a view of all frames (T * V, S * C')."""
    frames, per_frame = len(clip), mixed.numel() // len(clip)
    outputs = -(-(frames - window + 1) // stride)
    return mixed.as_strided((outputs, window * per_frame // channels, channels), (stride * per_frame, channels, 1))


def _shared_left(matrix: Tensor, batch: Tensor) -> Tensor:
    """matrix (R, U) times each of a batch (B, U, C): (B, R, C)."""
    size, nodes, channels = batch.shape
    if channels < _FEW:  # one wide product and a copy beat many that are a few columns wide
        wide = torch.mm(matrix, batch.transpose(0, 1).reshape(nodes, -1))
        return wide.view(-1, size, channels).transpose(0, 1).contiguous()
    return torch.bmm(matrix.expand(size, -1, -1), batch)


def _shared_right(left: Tensor, right: Tensor) -> Tensor:
    """sum_b left_b right_b^T of (B, R, C) and (B, U, C): (R, U)."""
    (_, rows, channels), nodes = left.shape, right.shape[1]
    if rows * nodes > (rows + nodes) * channels:  # a product each would be larger than both factors
        return left.transpose(0, 1).reshape(rows, -1) @ right.transpose(0, 1).reshape(nodes, -1).T
    return torch.bmm(left, right.mT).sum(0)


def unfold(x: Tensor, window: int, stride: int) -> Tensor:
    """Windows of frames around every stride-th one, zeros outside: (N, T, V, C) to (N, ceil(T / stride), window * V, C)."""
    frames, padded = x.shape[1], pad_frames(x, window)
    return torch.cat([padded[:, frame : frame + frames : stride] for frame in range(window)], dim=2)


def pad_frames(x: Tensor, window: int) -> Tensor:
    """(N, T, V, C) with half a window of zeros at both ends."""
    return functional.pad(x, (0, 0, 0, 0, window // 2, window // 2))
