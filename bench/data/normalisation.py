"""The published normalisation of skeleton clips, for whole batches at once.

`view` is the pre-normalisation that the 2s-AGCN family of networks is trained on (Shi et al., CVPR 2019; the same in MS-G3D and
Shift-GCN). On a clip (3, T, V, M):

1. A body whose first frame is empty has its other frames moved to the front; the frames that it lacks at the end are filled
   by repeating those that it has, from its first. Empty frames in between stay empty.
2. In every frame, the centre joint of body 0 (NTU: middle of the spine) is subtracted from every joint of every body.
3. All is turned, once a clip, so that the spine of body 0 in frame 0 (NTU: joint 1 to joint 2) points along the third axis, and
   then so that its shoulders (left to right) point along the first. A direction of no length, or one that already points
   there or exactly the other way, turns nothing.

Nothing is scaled: heights and bone lengths stay in the data. A joint at exactly zero is absent, and stays at zero.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bench.skeleton import Layout

if TYPE_CHECKING:
    from bench.data.store import ClipStore, ClipWriter

VERSION = 1  # raised whenever the same clips would come out differently
METHODS = ("view", "none")
_DEGENERATE = 1e-6  # metres (sum of absolute values) or radians, as published


def normalise_view(
    clips: np.ndarray, lengths: np.ndarray, layout: Layout, frames: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Normalises a batch of clips by `view` (see the module).

    A clip's new length is that of its longest body after step 1, so empty frames at its start or end are lost. Computed in
    float64.

    Args:
        clips: (N, 3, T, V, M), metres; zero where a joint is absent. Not modified. Frames from a clip's length on are ignored.
        lengths: (N,) frames of each clip, 1..T.
        layout: Layout of the joints.
        frames: Repeat each body cyclically to this many frames, as the published 300-frame arrays do; by default, up to the
            clip's new length and zero from there on. Bodies of a clip that are present for different times repeat at their
            own periods, so this differs from `pad_cyclic` afterwards.

    Returns:
        Clips (N, 3, T or `frames`, V, M) of the input's type, and their lengths (N,) int64: 0 for a clip without any body.

    Raises:
        ValueError: if a shape does not fit, a length is out of range, or `frames` is smaller than a clip's new length.
    """
    lengths = _check(clips, lengths, layout.num_joints)
    if not len(clips):
        return np.zeros((0, 3, frames or clips.shape[2], *clips.shape[3:]), clips.dtype), lengths
    filled, lengths = _fill(clips, lengths, frames)
    out = filled.astype(np.float64)
    _centre(out, layout.centre)
    first = out[:, :, 0, :, 0]  # (N, 3, V): frame 0 of body 0
    upright = _rotation(first, *layout.spine, axis=2)
    facing = _rotation(_turn(upright, first), *layout.shoulders, axis=0)
    turned = _turn(_turn(facing, upright), out)
    turned += 0.0  # an absent joint is 0, not -0
    return turned.astype(clips.dtype), lengths


def pad_cyclic(clips: np.ndarray, lengths: np.ndarray, frames: int = 300) -> np.ndarray:
    """Repeats each clip from its start until it has `frames` frames.

    Args:
        clips: (N, 3, T, V, M).
        lengths: (N,) frames of each clip, 0..T; a clip of length 0 comes out as zeros, a longer one than `frames` is cut.
        frames: Frames of every clip returned.

    Returns:
        (N, 3, frames, V, M).
    """
    lengths = _check(clips, lengths, clips.shape[3], shortest=0)
    at = np.arange(frames) % np.maximum(lengths, 1)[:, None]  # (N, frames)
    out = np.take_along_axis(clips, at[:, None, :, None, None], axis=2)
    out[lengths == 0] = 0
    return out


def normalise_store(store: "ClipStore", writer: "ClipWriter", method: str, batch: int = 64) -> None:
    """Normalises every clip of a store into another, in the same order and with the same labels.

    Args:
        store: What to read.
        writer: Where to write; its layout must be the store's.
        method: "view", or "none" to copy.
        batch: Clips in memory at a time.

    Raises:
        ValueError: if the method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"normalisation must be one of {', '.join(METHODS)}, got {method!r}")
    labels = store.label_rows()
    for start in range(0, len(store), batch):
        chunk = [store.clip(i) for i in range(start, min(start + batch, len(store)))]
        if method == "view":
            chunk = _normalised(chunk, store.layout)
        for clip in chunk:
            writer.add(clip, next(labels))


def _normalised(clips: list[np.ndarray], layout: Layout) -> Iterator[np.ndarray]:
    """Clips (3, T, V, M) of any lengths and numbers of bodies, after `view`."""
    lengths = np.array([clip.shape[1] for clip in clips])
    bodies = max(clip.shape[3] for clip in clips)
    padded = np.zeros((len(clips), 3, lengths.max(), layout.num_joints, bodies), np.float32)
    for clip, out in zip(clips, padded, strict=True):
        out[:, : clip.shape[1], :, : clip.shape[3]] = clip
    padded, lengths = normalise_view(padded, lengths, layout)
    return (clip[:, :length] for clip, length in zip(padded, lengths, strict=True))


def _check(clips: np.ndarray, lengths: np.ndarray, joints: int, shortest: int = 1) -> np.ndarray:
    if clips.ndim != 5 or clips.shape[1] != 3 or clips.shape[3] != joints:
        raise ValueError(f"expected clips of shape (N, 3, T, {joints}, M), got {clips.shape}")
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.shape != clips.shape[:1]:
        raise ValueError(f"expected {len(clips)} lengths, got shape {lengths.shape}")
    wrong = lengths[(lengths < shortest) | (lengths > clips.shape[2])]
    if wrong.size:
        raise ValueError(f"lengths must be in {shortest}..{clips.shape[2]}, got {wrong[0]}")
    return lengths


def _fill(clips: np.ndarray, lengths: np.ndarray, frames: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Step 1. Returns clips (N, 3, T, V, M) and their new lengths (N,)."""
    total = clips.shape[2]
    steps = np.arange(total)
    inside = steps < lengths[:, None]  # (N, T)
    present = clips.any(axis=(1, 3)) & inside[..., None]  # (N, T, M)
    # A stable sort of "absent first" puts a late body's frames at the front, in their order; other bodies keep theirs.
    late = ~present[:, :1]
    at = np.where(late, np.argsort(~present, axis=1, kind="stable"), steps[:, None])  # (N, T, M)
    last = total - np.argmax(present[:, ::-1], axis=1)  # frames up to the last that holds the body
    own = np.where(late[:, 0], present.sum(axis=1), np.where(present.any(axis=1), last, 0))  # (N, M)
    lengths = own.max(axis=1)
    if frames is not None and frames < lengths.max():
        raise ValueError(f"a clip has {lengths.max()} frames, which do not fit into {frames}")
    steps = np.arange(total if frames is None else frames)
    source = np.take_along_axis(at, steps[:, None] % np.maximum(own, 1)[:, None], axis=1)  # (N, T', M)
    out = np.take_along_axis(clips, source[:, None, :, None], axis=2)
    shown = (steps < lengths[:, None])[..., None] if frames is None else True
    out *= (shown & (own > 0)[:, None])[:, None, :, None]
    return out, lengths


def _centre(clips: np.ndarray, joint: int) -> None:
    """Step 2, in place."""
    there = clips.any(axis=1, keepdims=True)  # (N, 1, T, V, M)
    clips -= clips[:, :, :, joint : joint + 1, :1].copy()
    clips *= there


def _rotation(joints: np.ndarray, start: int, end: int, axis: int) -> np.ndarray:
    """Rotations (N, 3, 3) that turn the direction from joint `start` to joint `end` of (N, 3, V) to a coordinate axis.

    Rodrigues' formula with the angle between the two, about their cross product; the identity where that is not defined.
    """
    direction = joints[:, :, end] - joints[:, :, start]  # (N, 3)
    pivot = np.cross(direction, np.eye(3)[axis])
    length, across, along = np.linalg.norm(direction, axis=1), np.linalg.norm(pivot, axis=1), direction[:, axis]
    turns = (np.abs(direction).sum(axis=1) >= _DEGENERATE) & (np.abs(pivot).sum(axis=1) >= _DEGENERATE)
    turns &= np.arctan2(across, along) >= _DEGENERATE
    cross = np.cross(np.eye(3), (pivot / np.where(turns, across, 1)[:, None])[:, None])  # (N, 3, 3): K x = pivot cross x
    length = np.where(turns, length, 1)
    sin, cos = np.where(turns, across / length, 0), np.where(turns, along / length, 1)
    return np.eye(3) + sin[:, None, None] * cross + (1 - cos)[:, None, None] * (cross @ cross)


def _turn(rotations: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) of points (N, 3, ...). Written out, so that the last bit does not hang on a batch's composition."""
    by_column = rotations.reshape(len(rotations), 3, 3, *[1] * (points.ndim - 2))  # (N, 3, 3, 1, ...)
    return sum(by_column[:, :, k] * points[:, None, k] for k in range(3))
