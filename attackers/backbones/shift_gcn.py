"""Shift-GCN: Cheng, Zhang, He, Chen, Cheng, Lu, "Skeleton-Based Action Recognition with Shift Graph Convolutional Network",
CVPR 2020. Our own implementation from the equations; it computes the published function and takes the published weights.

Inside the network, activations are (V, C, T, B) with B = M * N, and the joints of channel c stand in sheared order wherever a
spatial shift would have to move them (see `shift_ops`):

    step                                        shape               joint order
    clips                                       (N, 3, T, V, M)
    batch norm over M * V * C, folded           (V, 3, T, B)        plain -> sheared
    block 1..4        64 channels               (V, 64, T, B)       sheared
    block 5..7       128, stride 2 in 5         (V, 128, T/2, B)    sheared
    block 8..10      256, stride 2 in 8         (V, 256, T/4, B)    sheared
    mean over joints and frames, then bodies    (N, 256)
    linear                                      (N, classes)

    in a block
    spatial: masked linear of each joint, batch norm over V * C, + x, ReLU      sheared
    temporal shift                                                              sheared -> plain
    batch norm over C of the shift's input and linear of each joint, ReLU       plain
    temporal shift with stride, batch norm over C, + x, ReLU                    plain -> sheared

A stride of 2 gives ceil(T / 2) frames.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from attackers.backbones.base import BodyBackbone, Reference, norm_references
from attackers.backbones.layers import BatchNorm
from attackers.backbones.shift_ops import (
    OFFSET_GRADIENTS,
    OffsetGradient,
    add_relu_,
    frame_offset,
    permute_rows,
    shear_rows,
    temporal_shift,
    unshear_rows,
)
from bench.skeleton import Layout

# (output channels at width 1, stride) of the ten blocks.
_BLOCKS = (*[(64, 1)] * 4, (128, 2), *[(128, 1)] * 2, (256, 2), *[(256, 1)] * 2)
_CHANNEL_STEP = 8  # channel counts are rounded to a multiple of this
_XPOS_LIMIT = 1e-6  # joints; published values are below 3e-10


def _sheared_norm_references(prefix: str, norm: BatchNorm) -> dict[str, Reference]:
    """Keys of a published batch norm over all of the norm's parameters, joint-major, into sheared order."""
    joints, channels, _ = norm.weight.shape

    def convert(tensor: Tensor) -> Tensor:
        return permute_rows(tensor.reshape(norm.weight.shape), *_orders(joints, channels, tensor.device))

    return norm_references(prefix, norm, convert)


def _orders(joints: int, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return shear_rows(joints, channels).to(device), unshear_rows(joints, channels).to(device)


class PointwiseNorm(nn.Module):
    """Projection of a residual: a linear map of each joint's channels, then batch norm. Plain order in and out.

    Args:
        in_channels: C.
        out_channels: C'.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels) * math.sqrt(2 / out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.norm = BatchNorm(1, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(V, C, T, B) to (V, C', T, B)."""
        y = torch.bmm(self.weight.expand(x.shape[0], -1, -1), x.flatten(2))  # (V, C', T * B)
        return self.norm(y, shift=self.bias[:, None]).unflatten(2, x.shape[2:])

    def reference_tensors(self, conv: str, norm: str) -> dict[str, Reference]:
        return {
            f"{conv}.weight": Reference((*self.weight.shape, 1, 1), self.weight, lambda tensor: tensor[:, :, 0, 0]),
            f"{conv}.bias": Reference(tuple(self.bias.shape), self.bias),
            **norm_references(norm, self.norm),
        }


class SpatialShift(nn.Module):
    """Shift, masked linear map and shift back, batch norm over joint * channel, residual, ReLU. Sheared order in and out.

    In sheared order both shifts are the identity and the mask, tanh(mask) + 1, belongs to each joint's weights.

    Args:
        in_channels: C.
        out_channels: C'.
        joints: V.
    """

    def __init__(self, in_channels: int, out_channels: int, joints: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels) * math.sqrt(1 / out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.mask = nn.Parameter(torch.zeros(joints, in_channels))
        # Where neighbouring joints never move, as in releases that hide some, channels that read these alone are still.
        self.norm = BatchNorm(joints, out_channels, 1, stills=True)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """x (V, C, T, B) and residual (V, C', T, B) to (V, C', T, B)."""
        weight = self.weight * (torch.tanh(self.mask) + 1)[:, None]  # (V, C', C)
        y = torch.bmm(weight, x.flatten(2))  # (V, C', T * B)
        y = self.norm(y, shift=self.bias[:, None], residual=residual.flatten(2), relu=True)
        return y.view(residual.shape)

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        (out_channels, in_channels), joints = self.weight.shape, self.mask.shape[0]

        def index(rows: Tensor) -> Reference:
            def check(tensor: Tensor) -> str | None:
                return None if torch.equal(tensor.cpu(), rows.flatten()) else f"is not the shift of {joints} joints"

            return Reference((rows.numel(),), check=check)

        return {
            f"{prefix}.Linear_weight": Reference((in_channels, out_channels), self.weight, lambda tensor: tensor.mT),
            f"{prefix}.Linear_bias": Reference((1, 1, out_channels), self.bias, torch.flatten),
            f"{prefix}.Feature_Mask": Reference((1, joints, in_channels), self.mask, lambda tensor: tensor[0]),
            f"{prefix}.shift_in": index(shear_rows(joints, in_channels)),
            f"{prefix}.shift_out": index(unshear_rows(joints, out_channels)),
            **_sheared_norm_references(f"{prefix}.bn", self.norm),
        }


class TemporalOffset(nn.Module):
    """The learned offset of one temporal shift.

    `xpos` is the authors' horizontal offset. It starts at 1e-8 joints, its gradient is forced to 0 and so only weight decay
    touches it; it has no effect on the output. It is kept because published states and parameter counts include it.

    Args:
        channels: C.
        stride: 1 or 2.
        offset_gradient: "true" or "published", see `ShiftGCN`.
    """

    def __init__(self, channels: int, stride: int, offset_gradient: OffsetGradient):
        super().__init__()
        self.xpos = nn.Parameter(torch.empty(channels).uniform_(-1e-8, 1e-8))
        self.ypos = nn.Parameter(torch.empty(channels).uniform_(-1, 1))  # frames
        self.stride = stride
        self.offset_gradient = offset_gradient

    def forward(self) -> Tensor:
        """Frames from t * stride to the frame that is sampled, (C,)."""
        half = 0.5 if self.stride == 2 else 0.0
        return frame_offset(self.ypos, self.xpos, half, published=self.offset_gradient == "published")

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        def check(tensor: Tensor) -> str | None:
            largest = float(tensor.abs().max())
            return None if largest <= _XPOS_LIMIT else f"reaches {largest:g} joints; shifts across joints must be 0"

        shape = tuple(self.ypos.shape)
        return {
            f"{prefix}.xpos": Reference(shape, self.xpos, check=check),
            f"{prefix}.ypos": Reference(shape, self.ypos),
        }


class TemporalShift(nn.Module):
    """Batch norm, temporal shift, linear map, ReLU, temporal shift with stride, batch norm, residual, ReLU. Sheared in and out.

    Args:
        channels: C.
        joints: V.
        stride: 1 or 2.
        offset_gradient: "true" or "published", see `ShiftGCN`.
    """

    def __init__(self, channels: int, joints: int, stride: int, offset_gradient: OffsetGradient):
        super().__init__()
        self.norm_in = BatchNorm(1, channels, 1)
        self.shift_in = TemporalOffset(channels, 1, offset_gradient)
        self.weight = nn.Parameter(torch.randn(channels, channels) * math.sqrt(2 / channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.shift_out = TemporalOffset(channels, stride, offset_gradient)
        self.norm_out = BatchNorm(1, channels, 1)

    def forward(self, x: Tensor, residual: Tensor | None, shear: Tensor, unshear: Tensor) -> Tensor:
        """x (V, C, T, B) and residual (V, C, T', B) or None to (V, C, T', B)."""
        # The shift commutes with a scale per channel but lets a constant fall off at both ends, where it reads zeros.
        scale, constant = self.norm_in.affine(x.flatten(2))  # (1, C, 1)
        y, kept = temporal_shift(x, self.shift_in(), unshear, shear)  # kept: (C, T)
        weight, bias = self.weight * scale.flatten(), self.weight @ (constant[0] * kept) + self.bias[:, None]  # (C, C), (C, T)
        y = add_relu_(torch.bmm(weight.expand(x.shape[0], -1, -1), y.flatten(2)), bias)  # (V, C, T * B)
        y, _ = temporal_shift(y.view(x.shape), self.shift_out(), shear, unshear, stride=self.shift_out.stride)  # (V, C, T', B)
        return self.norm_out(y.flatten(2), residual=None if residual is None else residual.flatten(2), relu=True).view(y.shape)

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        return {
            **norm_references(f"{prefix}.bn", self.norm_in),
            **self.shift_in.reference_tensors(f"{prefix}.shift_in"),
            f"{prefix}.temporal_linear.weight": Reference(
                (*self.weight.shape, 1, 1), self.weight, lambda tensor: tensor[:, :, 0, 0]
            ),
            f"{prefix}.temporal_linear.bias": Reference(tuple(self.bias.shape), self.bias),
            **self.shift_out.reference_tensors(f"{prefix}.shift_out"),
            **norm_references(f"{prefix}.bn2", self.norm_out),
        }


class Block(nn.Module):
    """Spatial and temporal shift convolution with a residual around each. Sheared order in and out.

    Args:
        in_channels: C.
        out_channels: C'.
        joints: V.
        stride: 1 or 2.
        residual: Whether there is a residual around the whole block.
        offset_gradient: "true" or "published", see `ShiftGCN`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, joints: int, stride: int, residual: bool, offset_gradient: OffsetGradient
    ):
        super().__init__()
        self.spatial = SpatialShift(in_channels, out_channels, joints)
        self.temporal = TemporalShift(out_channels, joints, stride, offset_gradient)
        self.spatial_residual = PointwiseNorm(in_channels, out_channels) if in_channels != out_channels else None
        projected = residual and (in_channels != out_channels or stride != 1)
        self.block_residual = PointwiseNorm(in_channels, out_channels) if projected else None
        self.has_residual = residual
        self.stride = stride
        for name, channels in (("in", in_channels), ("out", out_channels)):
            self.register_buffer(f"shear_{name}", shear_rows(joints, channels), persistent=False)
            self.register_buffer(f"unshear_{name}", unshear_rows(joints, channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(V, C, T, B) to (V, C', ceil(T / stride), B)."""
        spatial_residual = x
        block_residual = x if self.has_residual else None
        if self.spatial_residual is not None or self.block_residual is not None:
            plain = permute_rows(x, self.unshear_in, self.shear_in)
            if self.spatial_residual is not None:
                spatial_residual = permute_rows(self.spatial_residual(plain), self.shear_out, self.unshear_out)
            if self.block_residual is not None:
                kept = plain[:, :, :: self.stride].contiguous()  # (V, C, T', B)
                block_residual = permute_rows(self.block_residual(kept), self.shear_out, self.unshear_out)
        y = self.spatial(x, spatial_residual)
        return self.temporal(y, block_residual, self.shear_out, self.unshear_out)

    def reference_tensors(self, prefix: str) -> dict[str, Reference]:
        references = self.spatial.reference_tensors(f"{prefix}.gcn1") | self.temporal.reference_tensors(f"{prefix}.tcn1")
        if self.spatial_residual is not None:
            references |= self.spatial_residual.reference_tensors(f"{prefix}.gcn1.down.0", f"{prefix}.gcn1.down.1")
        if self.block_residual is not None:
            references |= self.block_residual.reference_tensors(f"{prefix}.residual.conv", f"{prefix}.residual.bn")
        return references


class ShiftGCN(BodyBackbone):
    """Shift-GCN with non-local spatial shifts and adaptive temporal shifts.

    Args:
        layout: Skeleton layout with V joints; the network has no graph and uses only their number.
        num_classes: Number of logits.
        num_bodies: Bodies per clip, M.
        width: Factor on the channels 64, 128, 256, which are then rounded to a multiple of 8, at least 8.
        in_channels: Coordinates per joint.
        offset_gradient: "true" for the exact gradient of the temporal offsets; "published" for the authors' 0.01 * sign.

    Raises:
        ValueError: if a count is below 1, `width` is not positive or `offset_gradient` is unknown.
    """

    code_version: ClassVar[int] = 3
    published_recipe: ClassVar[Mapping[str, object]] = {
        "lr": 0.1,
        "epochs": 140,
        "steps": (60, 80, 100),
        "batch": 64,
        "weight_decay": 1e-4,
    }

    def __init__(
        self,
        *,
        layout: Layout,
        num_classes: int,
        num_bodies: int,
        width: float = 1.0,
        in_channels: int = 3,
        offset_gradient: OffsetGradient = "true",
    ):
        super().__init__(layout=layout, num_classes=num_classes, num_bodies=num_bodies, width=width, in_channels=in_channels)
        if offset_gradient not in OFFSET_GRADIENTS:
            raise ValueError(f"offset_gradient must be one of {', '.join(OFFSET_GRADIENTS)}, got {offset_gradient!r}")
        joints = layout.num_joints
        blocks, channels = [], in_channels
        for number, (full, stride) in enumerate(_BLOCKS):
            out = max(1, round(full * width / _CHANNEL_STEP)) * _CHANNEL_STEP
            blocks.append(Block(channels, out, joints, stride, number > 0, offset_gradient))
            channels = out
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(channels, num_classes)
        nn.init.normal_(self.classifier.weight, 0, math.sqrt(2 / num_classes))
        nn.init.zeros_(self.classifier.bias)

    def embed_bodies(self, bodies: Tensor) -> Tensor:
        """Normalised bodies (B, C, T, V) to embeddings (B, D), D = 256 * width."""
        x = permute_rows(bodies.permute(3, 1, 2, 0).contiguous(), self.blocks[0].shear_in, self.blocks[0].unshear_in)
        for block in self.blocks:
            x = block(x)  # (V, C', T', B)
        return x.mean((0, 2), dtype=bodies.dtype).T

    def use_published_gradients(self) -> None:
        for module in self.modules():
            if isinstance(module, TemporalOffset):
                module.offset_gradient = "published"

    def weight_decay_factor(self, name: str) -> float:
        """Ten times the base on the pointwise weights of the spatial shift, none on its masks (the authors' training code)."""
        if name.endswith("spatial.mask"):
            return 0.0
        return 10.0 if name.endswith("spatial.weight") else 1.0

    def reference_tensors(self) -> dict[str, Reference]:
        references = norm_references("data_bn", self.input_norm.norm)
        for number, block in enumerate(self.blocks, start=1):
            references |= block.reference_tensors(f"l{number}")
        references["fc.weight"] = Reference(tuple(self.classifier.weight.shape), self.classifier.weight)
        references["fc.bias"] = Reference(tuple(self.classifier.bias.shape), self.classifier.bias)
        return references
