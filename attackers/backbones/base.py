"""What every backbone is: clips in, an embedding and logits out, published weights loaded strictly."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attackers.backbones.layers import InputNorm
from bench.skeleton import Layout

_MAX_NAMED = 5  # keys named in one message


@dataclass(frozen=True)
class Reference:
    """Where one tensor of a published state dict goes.

    Args:
        shape: Shape under the published key.
        target: Parameter or buffer that receives it; None for a tensor that carries nothing learned.
        convert: Maps the published tensor to the target's shape and order.
        check: Returns what is wrong with the published tensor, or None.
    """

    shape: tuple[int, ...]
    target: Tensor | None = None
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor
    check: Callable[[Tensor], str | None] = lambda tensor: None


def norm_references(
    prefix: str, norm: nn.Module, convert: Callable[[Tensor], Tensor] | None = None, rows: slice | None = None
) -> dict[str, Reference]:
    """Keys of a published batch norm whose parameters are `rows` (all) of those of `norm`, in their order unless converted."""
    targets = {name: getattr(norm, name) for name in ("weight", "bias", "running_mean", "running_var")}
    if rows is not None:
        targets = {name: target[rows] for name, target in targets.items()}
    found = {
        f"{prefix}.{name}": Reference((target.numel(),), target, convert or (lambda tensor, to=target: tensor.reshape(to.shape)))
        for name, target in targets.items()
    }
    still = getattr(norm, "running_still", None)  # of published weights it is not known: every channel counts as moving
    return found | {f"{prefix}.num_batches_tracked": Reference((), still, lambda _: torch.zeros_like(still))}


class Backbone(nn.Module, ABC):
    """A network from skeleton clips to class scores.

    Class attributes:
        requires: Fields of `TrainingConfig` that hold whatever the preset: what the network cannot do without.
        published_recipe: Fields of `TrainingConfig` as its authors trained it, for the preset `paper`.
        code_version: Raised whenever the same weights or seed would give other results.

    Args:
        layout: Skeleton layout with V joints.
        num_classes: Number of logits.
        num_bodies: Bodies per clip, M.
        width: Factor on the channels of every block.
        in_channels: Coordinates per joint, C.

    Attributes:
        classifier: The last linear layer, D to num_classes; made by the subclass.

    Raises:
        ValueError: if a count is below 1 or `width` is not positive.
    """

    classifier: nn.Linear
    requires: ClassVar[Mapping[str, object]] = {}
    published_recipe: ClassVar[Mapping[str, object]] = {}
    code_version: ClassVar[int] = 1

    def __init__(self, *, layout: Layout, num_classes: int, num_bodies: int, width: float = 1.0, in_channels: int = 3):
        super().__init__()
        for name, count in (("num_classes", num_classes), ("num_bodies", num_bodies), ("in_channels", in_channels)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} is a count and must be an integer >= 1, got {count!r}")
        if not 0 < width < float("inf"):
            raise ValueError(f"width is a factor on the channels and must be > 0, got {width}")
        self.layout = layout
        self.num_classes = num_classes
        self.num_bodies = num_bodies
        self.width = width
        self.in_channels = in_channels

    @abstractmethod
    def embed(self, clips: Tensor) -> Tensor:
        """Clips (N, C, T, V, M), zero where a body is absent, to embeddings (N, D), which the logits are linear in."""

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (N, C, T, V, M), zero where a body is absent, to logits (N, num_classes)."""
        return self.classifier(self.embed(clips))

    def use_published_gradients(self) -> None:
        """Switches to the authors' own gradients where they differ from the true ones. Default: they do not."""

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Groups for `torch.optim.SGD`, with `weight_decay` scaled per parameter as the authors do.

        Args:
            weight_decay: Decay of an ordinary parameter, >= 0.

        Returns:
            Dicts with `params` and `weight_decay`; every trainable parameter is in exactly one.
        """
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self.weight_decay_factor(name), []).append(parameter)
        return [{"params": params, "weight_decay": factor * weight_decay} for factor, params in groups.items()]

    def weight_decay_factor(self, name: str) -> float:
        """Factor on the weight decay of the parameter with this name. Default: the same for all."""
        return 1.0

    def reference_tensors(self) -> dict[str, Reference]:
        """Every key of the authors' state dict for this configuration, and where it goes.

        Raises:
            ValueError: if there are no published weights of this network; so by default.
        """
        raise ValueError(f"there are no published weights of {type(self).__name__}")

    @torch.no_grad()
    def load_reference_state(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state dict with the authors' own key names. Nothing is changed unless everything fits.

        Args:
            state: Published tensors by key.

        Raises:
            ValueError: if a key is missing or unexpected, a shape differs, or a tensor that must have certain values has not.
        """
        references = self.reference_tensors()
        problems = []
        for what, keys in (("missing", references.keys() - state.keys()), ("unexpected", state.keys() - references.keys())):
            if keys:
                named = ", ".join(sorted(keys)[:_MAX_NAMED]) + (", ..." if len(keys) > _MAX_NAMED else "")
                problems.append(f"{len(keys)} {what} ({named})")
        for key in sorted(references.keys() & state.keys()):
            reference, tensor = references[key], state[key]
            if tuple(tensor.shape) != reference.shape:
                problems.append(f"{key} has shape {tuple(tensor.shape)}, expected {reference.shape}")
            elif complaint := reference.check(tensor):
                problems.append(f"{key} {complaint}")
        if problems:
            shown = "; ".join(problems[:_MAX_NAMED]) + (
                f"; and {len(problems) - _MAX_NAMED} more" if len(problems) > _MAX_NAMED else ""
            )
            raise ValueError(f"these are not the weights of this {type(self).__name__}: {shown}")
        for key, reference in references.items():
            if reference.target is not None:
                reference.target.copy_(reference.convert(state[key]))

    def check_clips(self, clips: Tensor) -> None:
        """Raises unless `clips` is a floating-point (N, C, T, V, M) of this backbone's C, V and M with N, T >= 1.

        Raises:
            ValueError: names what was expected and what was got.
            TypeError: if the clips are not floating point.
        """
        if clips.ndim != 5:
            raise ValueError(f"expected clips of 5 axes (N, C, T, V, M), got {clips.ndim}: shape {tuple(clips.shape)}")
        sizes = {"channels": (1, self.in_channels), "joints": (3, self.layout.num_joints), "bodies": (4, self.num_bodies)}
        for what, (axis, expected) in sizes.items():
            if clips.shape[axis] != expected:
                raise ValueError(
                    f"expected {expected} {what}, got {clips.shape[axis]}: clips {tuple(clips.shape)}, (N, C, T, V, M)"
                )
        if clips.shape[0] < 1 or clips.shape[2] < 1:
            raise ValueError(f"expected at least 1 clip and 1 frame, got {clips.shape[0]} clips and {clips.shape[2]} frames")
        if not clips.is_floating_point():
            raise TypeError(f"expected floating-point clips, got {clips.dtype}")


class BodyBackbone(Backbone):
    """A backbone that reads every body on its own and takes the mean over bodies, as ST-GCN and its descendants do.

    Attributes:
        input_norm: Batch norm over the M * V * C channels; nothing where the subclass says that it has none.
    """

    has_input_norm: ClassVar[bool] = True
    drops_out: ClassVar[bool] = False  # in training

    def __init__(self, *, layout: Layout, num_classes: int, num_bodies: int, width: float = 1.0, in_channels: int = 3):
        super().__init__(layout=layout, num_classes=num_classes, num_bodies=num_bodies, width=width, in_channels=in_channels)
        self.input_norm = InputNorm(in_channels, layout.num_joints, num_bodies) if self.has_input_norm else nn.Identity()

    @abstractmethod
    def embed_bodies(self, bodies: Tensor) -> Tensor:
        """Normalised bodies (B, C, T, V), of any memory order, to embeddings (B, D) in their own type; the mean over T and V."""

    def embed(self, clips: Tensor) -> Tensor:
        """Clips (N, C, T, V, M), zero where a body is absent, to embeddings (N, D): the mean over all M bodies, absent ones too.

        In eval mode an absent body adds a constant for each of the M places, which is computed once and not for every clip;
        where gradients reach the clips everything is computed, since an absent body has a gradient.
        """
        self.check_clips(clips)
        bodies = self.input_norm(clips).permute(4, 0, 1, 2, 3).flatten(0, 1)  # (M * N, C, T, V)
        if self.training or clips.requires_grad or self.num_bodies == 1:
            embedded = self.embed_bodies(bodies)  # (M * N, D)
        else:
            absent = (clips == 0).all(3).all(2).all(1).T  # (M, N)
            places = torch.arange(absent.numel(), device=clips.device).view_as(absent)
            first = torch.where(absent, places, absent.numel()).amin(1, keepdim=True)  # of each place's absent bodies
            distinct, which = torch.where(absent, first, places).flatten().unique(return_inverse=True)
            embedded = self.embed_bodies(bodies[distinct])[which]
        return embedded.to(clips.dtype).unflatten(0, (self.num_bodies, len(clips))).mean(0)
