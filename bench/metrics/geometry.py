"""How far released poses are from the raw ones. Metres and seconds; larger is worse.

0 is unchanged, of `jerk_ratio` 1; `foot_skate` alone may be negative, where released ankles move less than raw ones.

All are means over the bodies and frames in which both the raw and the released clip show somebody; not a number where there are
none, or fewer frames in a row than a measure needs.
"""

import torch
from torch import Tensor

from bench.data.clips import presence
from bench.skeleton import Layout

MEASURES = ("mpjpe", "bone_error", "bone_spread", "velocity_error", "acceleration_error", "jerk_ratio", "foot_skate")
_STANDS = 0.2  # m/s: a raw ankle that is slower stands


def fidelity(raw: Tensor, released: Tensor, layout: Layout, frame_rate: float) -> Tensor:
    """(N, 7) float64, in the order of `MEASURES`:

    mpjpe: Mean distance of the joints, both clips moved so that the tree's root is at the origin; metres (mean per-joint position
        error: Ionescu et al., TPAMI 2014).
    bone_error: Mean absolute difference of the bones' lengths; metres.
    bone_spread: Standard deviation over time of the difference of a bone's lengths, mean over bones; metres. A body of another
        but constant size has none.
    velocity_error, acceleration_error: Mean length of the difference of the joints' velocities (m/s) and accelerations (m/s²),
        by differences of neighbouring frames, without moving the root.
    jerk_ratio: Mean length of the released joints' third differences over that of the raw ones'; 1 is as smooth, above 1 shakes.
    foot_skate: Mean speed of the released ankles in the frames in which the raw ankle stands, less that of the raw one there;
        m/s. Feet that slide over the floor on which they stand are what people see first in retargeted motion (Villegas et al.,
        "Contact-aware retargeting of skinned motion", ICCV 2021). An ankle stands where its raw speed is below 0.2 m/s.

    Args:
        raw, released: (N, 3, T, V, M), metres; absent bodies and frames past a clip's end are zero.
        layout: Layout of the joints.
        frame_rate: Frames per second.
    """
    raw, released = raw.double(), released.double()
    seen = (presence(raw) & presence(released)).movedim(4, 1)[:, :, 0, :, 0]  # (N, M, T)
    a, b = (clips.permute(0, 4, 2, 3, 1) for clips in (raw, released))  # (N, M, T, V, 3)
    joint = (_rooted(b, layout) - _rooted(a, layout)).norm(dim=4).mean(dim=3)  # (N, M, T)
    longer = _bones(b, layout) - _bones(a, layout)  # (N, M, T, B)
    found = [_mean(joint, seen), _mean(longer.abs().mean(dim=3), seen), _spread(longer, seen)]
    differences, valid = [a, b], seen
    for order in (1, 2, 3):
        differences = [(d[:, :, 1:] - d[:, :, :-1]) * frame_rate for d in differences]
        valid = valid[:, :, 1:] & valid[:, :, :-1]
        if order == 1:
            skate = _skate(*differences, valid, layout)
        if order < 3:
            found.append(_mean((differences[1] - differences[0]).norm(dim=4).mean(dim=3), valid))
    before, after = (_mean(d.norm(dim=4).mean(dim=3), valid) for d in differences)
    return torch.stack([*found, torch.where(before > 0, after / before, torch.nan), skate], dim=1)


def _skate(raw: Tensor, released: Tensor, where: Tensor, layout: Layout) -> Tensor:
    """(N,) how much faster ankles move while the raw ones stand, from velocities (N, M, T, V, 3)."""
    ankles = [place for place, joint in enumerate(layout.joints) if joint.endswith("ankle")]
    before, after = (velocity[:, :, :, ankles].norm(dim=4) for velocity in (raw, released))  # (N, M, T, 2)
    stands = (before < _STANDS) & where[..., None]
    return torch.where(stands, after - before, 0.0).sum(dim=(1, 2, 3)) / stands.sum(dim=(1, 2, 3))


def _rooted(clips: Tensor, layout: Layout) -> Tensor:
    return clips - clips[:, :, :, [layout.root]]


def _bones(clips: Tensor, layout: Layout) -> Tensor:
    """Lengths (N, M, T, B) of the kinematic tree's bones."""
    child, parent = torch.tensor(layout.bones, device=clips.device).T
    return (clips[:, :, :, child] - clips[:, :, :, parent]).norm(dim=4)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """(N,) mean of (N, M, T) over the bodies and frames where it counts."""
    return torch.where(where, values, 0.0).sum(dim=(1, 2)) / where.sum(dim=(1, 2))


def _spread(values: Tensor, where: Tensor) -> Tensor:
    """(N,) standard deviation over the frames that count of (N, M, T, B), mean over bones and over the bodies that are there."""
    count = where.sum(dim=2, keepdim=True)[..., None]  # (N, M, 1, 1)
    kept = torch.where(where[..., None], values, 0.0)
    mean = kept.sum(dim=2, keepdim=True) / count.clamp_min(1)
    variance = (torch.where(where[..., None], values - mean, 0.0) ** 2).sum(dim=2) / count.clamp_min(1)[:, :, 0]  # (N, M, B)
    there = where.any(dim=2)
    return torch.where(there, variance.sqrt().mean(dim=2), 0.0).sum(dim=1) / there.sum(dim=1)
