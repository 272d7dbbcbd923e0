"""What networks that anonymize share: they map clips to clips, and one clip's output never depends on the clips beside it."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.skeleton import Layout


class AnonymizerNetwork(nn.Module):
    """Maps clips (N, 3, T, V, M) in metres to clips of the same shape.

    Class attributes:
        frame_wise: Whether each frame is mapped on its own.
        multiple: Clips are repeated cyclically up to a multiple of so many frames before they go in.

    Args:
        layout: Layout of the joints.
        num_bodies: M.
        base_width: Width of the narrowest layer; 64 is the published network.
    """

    frame_wise: ClassVar[bool] = False
    multiple: ClassVar[int] = 16

    def __init__(self, layout: Layout, num_bodies: int, base_width: int):
        super().__init__()
        self.features = 3 * layout.num_joints * num_bodies
        self.base_width = base_width

    def load_reference_state(self, state: Mapping[str, Tensor]) -> None:
        """Loads the authors' state dict by their own key names, strictly.

        Raises:
            LookupError: if the authors published no such network.
            RuntimeError: if a key is missing or unknown, or a shape differs.
        """
        raise LookupError(f"{type(self).__name__} was not published under this form: there are no reference weights for it")


def per_frame(clips: Tensor) -> Tensor:
    """(N, 3, T, V, M) to (N, T, 3 * V * M), coordinates slowest and bodies fastest."""
    return clips.transpose(1, 2).flatten(2)


def from_frames(frames: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `per_frame`, to clips of `shape`."""
    n, c, t, v, m = shape
    return frames.reshape(n, t, c, v, m).transpose(1, 2)


def repeat_cyclically(clips: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """Clips (N, 3, T, V, M) of `lengths` frames, each begun again at its end until it has `frames`."""
    at = torch.arange(frames, device=clips.device) % lengths[:, None]
    return clips.take_along_dim(at[:, None, :, None, None], dim=2)


@torch.no_grad()
def apply_network(network: AnonymizerNetwork, clips: Tensor, lengths: Tensor, least: int = 0) -> Tensor:
    """What a network in eval mode makes of whole clips.

    Args:
        network: The network.
        clips: (N, 3, T, V, M), padded with zeros.
        lengths: (N,) frames of each clip.
        least: Frames up to which every clip is repeated at least.

    Returns:
        (N, 3, T, V, M); past a clip's end, anything. A clip's output depends on that clip alone: clips are repeated to a length
        that follows from their own, not from that of the longest clip of the batch.
    """
    if network.frame_wise:
        return network(clips)
    out = torch.zeros_like(clips)
    padded = ((lengths + network.multiple - 1) // network.multiple * network.multiple).clamp_min(least)
    for frames in padded.unique().tolist():
        which = (padded == frames).nonzero()[:, 0]
        made = network(repeat_cyclically(clips[which], lengths[which], frames))
        out[which, :, :frames] = made[:, :, : clips.shape[2]]
    return out
