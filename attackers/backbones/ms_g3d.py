"""MS-G3D (Liu, Zhang, Chen, Wang and Ouyang, CVPR 2020, arXiv 2003.14111): many scales in space and in windows of time.

Bodies are (N, T, V, C) inside. Three stages at width 1, T frames in:

    stage                            1          2           3
    channels in, out                 3, 96      96, 192     192, 384
    frames out                       T          T / 2       T / 4
    multi-scale graph convolution    13 scales, then two multi-scale temporal convolutions
    windows of 3 and of 5 frames     6 scales over all joints of a window, then one frame is made of each window
    sum of the three, ReLU, multi-scale temporal convolution
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from attackers.backbones.base import BodyBackbone, Reference, norm_references
from attackers.backbones.channels_last import ChannelNorm, TemporalConvolution, finish, in_autocast
from attackers.backbones.graphs import disentangled
from attackers.backbones.ms_products import NeighbourProduct, WindowProduct, pad_frames, unfold
from bench.skeleton import Layout

_SCALES, _WINDOW_SCALES = 13, 6
_WINDOWS = (3, 5)  # frames
_STAGES = ((96, 1), (192, 2), (384, 2))  # (output channels at width 1, stride)
_DILATIONS = (1, 2, 3, 4)
_BRANCHES = len(_DILATIONS) + 2
_CHANNEL_STEP = 2 * _BRANCHES  # channel counts are rounded to a multiple of this
_MASK = 1e-6  # learned masks start uniform in plus and minus this


class MultiScaleGraph(nn.Module):
    """relu(norm(sum_s (A_s + M_s) x W_s + b)) over the joints of a frame, or over those of a window of frames.

    Args:
        in_channels, out_channels: C, C'.
        layout: Skeleton layout with V joints.
        scales: S.
        window: Frames of a window, odd; 1 for single frames.
        stride: Frames from one window to the next.
    """

    def __init__(self, in_channels: int, out_channels: int, layout: Layout, scales: int, window: int = 1, stride: int = 1):
        super().__init__()
        adjacency = disentangled(layout, scales, window)  # (S, w * V, w * V)
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.mask = nn.Parameter(torch.empty_like(adjacency).uniform_(-_MASK, _MASK))
        self.weight = nn.Parameter(torch.randn(scales, in_channels, out_channels) * math.sqrt(2 / out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.norm = ChannelNorm(out_channels)
        self.joints = layout.num_joints
        self.window = window
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V, C) to (N, ceil(T / stride), V, window * C'), the frames of a window one after the other."""
        if self.training:
            y = self.norm(self._product(x, self.weight, self.bias))
        else:
            scale, constant = self.norm.affine()
            y = self._product(x, self.weight * scale, self.bias * scale + constant)
        return y.relu_().unflatten(2, (self.joints, self.window)).flatten(3)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(N, T, V, C) to (N, T', V * window, C'), rows ordered (joint, frame of the window)."""
        scales, channels, out_channels = weight.shape
        # (S, out frame, out joint, in frame, in joint)
        adjacency = (self.adjacency + self.mask).view(scales, self.window, self.joints, self.window, self.joints)
        x, adjacency, weight, bias = in_autocast(x, adjacency, weight, bias)
        if self.window > 1 and channels >= out_channels:  # cheaper to mix scales before neighbours are summed
            rows = adjacency.permute(2, 1, 3, 4, 0).reshape(self.joints * self.window, -1)
            mixing = weight.transpose(0, 1).reshape(channels, scales * out_channels)
            return WindowProduct.apply(pad_frames(x, self.window), rows, mixing, bias, self.window, self.stride)
        rows = adjacency.permute(2, 1, 0, 3, 4).reshape(self.joints * self.window * scales, -1)
        nodes = unfold(x, self.window, self.stride) if self.window > 1 else x.contiguous()
        y = NeighbourProduct.apply(nodes.flatten(0, 1), rows, weight.reshape(scales * channels, out_channels), bias)
        return y.view(*nodes.shape[:2], -1, out_channels)

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        scales, channels, out_channels = self.weight.shape
        nodes = self.mask.shape[1]
        return {
            f"{prefix}.A_res": Reference((scales * nodes, nodes), self.mask, lambda tensor: tensor.view(scales, nodes, nodes)),
            f"{prefix}.mlp.layers.0.weight": Reference(
                (out_channels, scales * channels, 1, 1),
                self.weight,
                lambda tensor: tensor.reshape(out_channels, scales, channels).permute(1, 2, 0),
            ),
            f"{prefix}.mlp.layers.0.bias": Reference((out_channels,), self.bias),
            **norm_references(f"{prefix}.mlp.layers.1", self.norm),
        }


class WindowGraph(nn.Module):
    """Multi-scale graph convolution over windows of frames, each of which then becomes one frame; norm, no ReLU.

    Args:
        in_channels, inner, out_channels: Before, between and after.
        layout, window, stride: As for `MultiScaleGraph`.
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int, layout: Layout, window: int, stride: int):
        super().__init__()
        self.graph = MultiScaleGraph(in_channels, inner, layout, _WINDOW_SCALES, window, stride)
        self.collapse = TemporalConvolution(window * inner, out_channels)
        self.window = window

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """x (N, T, V, C) to (N, ceil(T / stride), V, C'), with `others` of that shape added."""
        return self.collapse(self.graph(x), others)

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        out_channels, wide = self.collapse.weight.shape[:2]
        inner = wide // self.window
        return {
            **self.graph.reference_tensors(f"{prefix}.gcn3d.1"),
            f"{prefix}.out_conv.weight": Reference(
                (out_channels, inner, 1, self.window, 1),
                self.collapse.weight,
                lambda tensor: tensor[:, :, 0, :, 0].transpose(1, 2).reshape(out_channels, wide, 1),
            ),
            f"{prefix}.out_conv.bias": Reference((out_channels,), self.collapse.bias),
            **norm_references(f"{prefix}.out_bn", self.collapse.norm),
        }


class MultiScaleTemporal(nn.Module):
    """Six branches of C' / 6 channels: four dilated convolutions over 3 frames, a maximum over 3 frames, and the frame itself.

    Args:
        in_channels, out_channels: C, C'; C' is a multiple of 6.
        stride: Frames from one output to the next.
        relu: Whether a ReLU comes last.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, relu: bool = True):
        super().__init__()
        part = out_channels // _BRANCHES
        self.enter = TemporalConvolution(in_channels, (_BRANCHES - 1) * part, time=1)
        self.dilated = nn.ModuleList(TemporalConvolution(part, part, 3, stride, dilation, time=1) for dilation in _DILATIONS)
        self.pool_norm = ChannelNorm(part)
        self.itself = TemporalConvolution(in_channels, part, 1, stride, time=1)
        projected = in_channels != out_channels or stride != 1
        self.residual = TemporalConvolution(in_channels, out_channels, 1, stride, time=1) if projected else None
        self.stride = stride
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V, C) to (N, ceil(T / stride), V, C')."""
        *convolved, pooled = self.enter(x, relu=True).chunk(_BRANCHES - 1, dim=3)
        branches = [convolution(part) for convolution, part in zip(self.dilated, convolved, strict=True)]
        branches += [self._pool(pooled), self.itself(x)]
        return finish(torch.cat(branches, dim=3), x if self.residual is None else self.residual(x), self.relu)

    def _pool(self, x: Tensor) -> Tensor:
        # After a ReLU a zero beyond the ends is as good as nothing.
        y = functional.max_pool2d(x.permute(0, 3, 1, 2), (3, 1), (self.stride, 1), (1, 0)).permute(0, 2, 3, 1)
        if self.training:
            return self.pool_norm(y)
        scale, constant = self.pool_norm.affine()
        return torch.addcmul(constant.to(y.dtype), y, scale.to(y.dtype))

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        found, part = {}, len(self.pool_norm.weight)
        for number in range(_BRANCHES - 1):
            rows = slice(number * part, (number + 1) * part)
            found |= self.enter.reference_tensors(f"{prefix}.branches.{number}.0", f"{prefix}.branches.{number}.1", rows)
        for number, convolution in enumerate(self.dilated):
            inner = f"{prefix}.branches.{number}.3"
            found |= convolution.reference_tensors(f"{inner}.conv", f"{inner}.bn")
        found |= norm_references(f"{prefix}.branches.{_BRANCHES - 2}.4", self.pool_norm)
        last = f"{prefix}.branches.{_BRANCHES - 1}"
        found |= self.itself.reference_tensors(f"{last}.0", f"{last}.1")
        if self.residual is not None:
            found |= self.residual.reference_tensors(f"{prefix}.residual.conv", f"{prefix}.residual.bn")
        return found


class Stage(nn.Module):
    """One of the three stages.

    Args:
        in_channels, out_channels: C, C'.
        stride: Frames from one output to the next.
        layout: Skeleton layout.
        first: Whether channels already change in the graph convolutions, as in the first stage.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, layout: Layout, first: bool):
        super().__init__()
        inner = out_channels if first else in_channels
        self.graph = MultiScaleGraph(in_channels, inner, layout, _SCALES)
        self.over_time = nn.ModuleList(
            [MultiScaleTemporal(inner, out_channels, stride), MultiScaleTemporal(out_channels, out_channels, relu=False)]
        )
        self.windows = nn.ModuleList(WindowGraph(in_channels, inner, out_channels, layout, w, stride) for w in _WINDOWS)
        self.last = MultiScaleTemporal(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V, C) to (N, ceil(T / stride), V, C')."""
        y = self.graph(x)
        for temporal in self.over_time:
            y = temporal(y)
        for window in self.windows:
            y = window(x, y)
        return self.last(y.relu_())

    def reference_tensors(self, number: int) -> dict[str, Reference]:
        found = self.graph.reference_tensors(f"sgcn{number}.0") | self.last.reference_tensors(f"tcn{number}")
        for place, temporal in enumerate(self.over_time, start=1):
            found |= temporal.reference_tensors(f"sgcn{number}.{place}")
        for place, window in enumerate(self.windows):
            found |= window.reference_tensors(f"gcn3d{number}.gcn3d.{place}")
        return found


class MSG3D(BodyBackbone):
    """Multi-scale graph network with windows over space and time: 13 scales of a frame, 6 of windows of 3 and 5 frames.

    Args:
        layout: Skeleton layout with V joints and its graph.
        num_classes: Number of logits.
        num_bodies: Bodies per clip, M.
        width: Factor on the channels 96, 192, 384, which are then rounded to a multiple of 12, at least 12.
        in_channels: Coordinates per joint.
    """

    requires: ClassVar[Mapping[str, object]] = {"lr": 0.05}
    published_recipe: ClassVar[Mapping[str, object]] = {
        "lr": 0.05,
        "epochs": 50,
        "steps": (30, 40),
        "batch": 32,
        "weight_decay": 5e-4,
    }

    def __init__(self, *, layout: Layout, num_classes: int, num_bodies: int, width: float = 1.0, in_channels: int = 3):
        super().__init__(layout=layout, num_classes=num_classes, num_bodies=num_bodies, width=width, in_channels=in_channels)
        stages, channels = [], in_channels
        for number, (full, stride) in enumerate(_STAGES):
            out = max(1, round(full * width / _CHANNEL_STEP)) * _CHANNEL_STEP
            stages.append(Stage(channels, out, stride, layout, first=number == 0))
            channels = out
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Linear(channels, num_classes)

    def embed_bodies(self, bodies: Tensor) -> Tensor:
        """Normalised bodies (B, C, T, V) to embeddings (B, D), D = 384 * width."""
        x = bodies.permute(0, 2, 3, 1).contiguous()  # (B, T, V, C)
        for stage in self.stages:
            x = stage(x)
        return x.flatten(1, 2).mean(1, dtype=bodies.dtype)

    def reference_tensors(self) -> dict[str, Reference]:
        found = norm_references("data_bn", self.input_norm.norm)
        for number, stage in enumerate(self.stages, start=1):
            found |= stage.reference_tensors(number)
        found["fc.weight"] = Reference(tuple(self.classifier.weight.shape), self.classifier.weight)
        found["fc.bias"] = Reference(tuple(self.classifier.bias.shape), self.classifier.bias)
        return found
