"""Hand-made features of clips, for attackers that need no network."""

import torch
from torch import Tensor

from bench.skeleton import Layout


def bone_lengths(clips: Tensor, layout: Layout) -> Tensor:
    """Length in metres of every bone in every frame of body 0: (N, T, B); NaN where the body is absent.

    Args:
        clips: (N, 3, T, V, M), metres; absent bodies are zero.
        layout: Layout of the V joints; bones are those of its kinematic tree.
    """
    body = clips[..., 0]  # (N, 3, T, V)
    child, parent = torch.tensor(layout.bones, device=clips.device).T
    lengths = (body[..., child] - body[..., parent]).norm(dim=1)  # (N, T, B)
    present = (body != 0).any(dim=3).any(dim=1)  # (N, T)
    return lengths.masked_fill(~present[..., None], torch.nan)


def bone_features(clips: Tensor, layout: Layout) -> Tensor:
    """What a tape measure would tell about body 0, for `bones-lda` and `bones-knn`: (N, F) float32.

    Median and interquartile range over time of each bone's length, each median as a share of their sum, the left-to-right ratio
    of each mirrored bone, that sum, and the sum over each body part, which stand for size and height. A ratio to nothing counts
    as 1; a clip without a body gives zero lengths.

    Args:
        clips: (N, 3, T, V, M), metres; absent bodies are zero.
        layout: Layout of the V joints.
    """
    lengths = bone_lengths(clips, layout)
    low, median, high = lengths.nanquantile(lengths.new_tensor([0.25, 0.5, 0.75]), dim=1).nan_to_num(0.0)  # each (N, B)
    size = median.sum(dim=1, keepdim=True)
    bone = {child: i for i, (child, _) in enumerate(layout.bones)}
    pairs = [(bone[left], bone[right]) for left, right in layout.mirror if left in bone and right in bone]
    sides = _ratio(median[:, [left for left, _ in pairs]], median[:, [right for _, right in pairs]])
    parts = [median[:, [bone[j] for j in joints if j in bone]].sum(dim=1, keepdim=True) for joints in layout.parts.values()]
    return torch.cat([median, high - low, _ratio(median, size), sides, size, *parts], dim=1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 1e-6, numerator / denominator.clamp_min(1e-6), 1.0)
