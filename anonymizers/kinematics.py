"""Bones of moving bodies: vectors, directions and lengths, and bodies put together from them again.

Everything is indexed by the bone's child joint; the root's own entry is zero. Shapes are (N, 3, T, V, M) for vectors and
(N, V, M) for lengths that hold for a whole clip.
"""

import torch
from torch import Tensor

from bench.skeleton import Layout

SHORTEST = 1e-6  # metres: a shorter bone has no direction


def bone_vectors(clips: Tensor, layout: Layout) -> Tensor:
    """Child minus parent, (N, 3, T, V, M)."""
    return clips - clips[:, :, :, list(layout.parents)]


def bone_directions(vectors: Tensor) -> Tensor:
    """Unit vectors; where a bone has no length its last direction is held, or before the first its first."""
    lengths = vectors.norm(dim=1, keepdim=True)
    valid = lengths > SHORTEST
    unit = vectors / lengths.clamp_min(SHORTEST)
    return hold(unit, valid)


def hold(values: Tensor, valid: Tensor) -> Tensor:
    """Fills what is not valid along time with the last valid value, or before the first one with that; 0 where none is.

    Args:
        values: (N, C, T, V, M).
        valid: (N, 1, T, V or 1, M) bool.
    """
    frames = torch.arange(values.shape[2], device=values.device).view(1, 1, -1, 1, 1)
    last = torch.where(valid, frames, -1).cummax(dim=2).values
    first = torch.where(valid, frames, values.shape[2]).amin(dim=2, keepdim=True)
    at = torch.where(last >= 0, last, first).clamp_max(values.shape[2] - 1)
    return values.take_along_dim(at.expand(-1, values.shape[1], -1, -1, -1), dim=2) * valid.any(dim=2, keepdim=True)


def median_lengths(vectors: Tensor, present: Tensor) -> Tensor:
    """(N, V, M) median length of each bone over the frames in which its body is there; 0 where it never is.

    Args:
        vectors: (N, 3, T, V, M).
        present: (N, 1, T, 1, M) bool.
    """
    lengths = vectors.norm(dim=1)
    return torch.where(present[:, 0], lengths, torch.nan).nanmedian(dim=1).values.nan_to_num(0.0)


def ancestry(layout: Layout, device: torch.device) -> Tensor:
    """(V, V) float: 1 where the column's joint is the row's joint or one between it and the root."""
    paths = torch.zeros((layout.num_joints, layout.num_joints), device=device)
    for joint in layout.order:
        if joint != layout.root:
            paths[joint] = paths[layout.parents[joint]]
        paths[joint, joint] = 1
    return paths


def put_together(root: Tensor, vectors: Tensor, layout: Layout) -> Tensor:
    """Joint positions of bodies from their bones, by forward kinematics.

    Args:
        root: (N, 3, T, M) position of the root joint.
        vectors: (N, 3, T, V, M) bone vectors; the root's own is not used.
        layout: Layout of the joints.
    """
    bones = vectors.clone()
    bones[:, :, :, layout.root] = root
    return torch.einsum("ij,nctjm->nctim", ancestry(layout, vectors.device), bones)
