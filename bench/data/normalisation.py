"""The published normalisation of skeleton clips.

`view` is the pre-normalisation that the 2s-AGCN family of networks is trained on (Shi et al., CVPR 2019; the same in MS-G3D and
Shift-GCN). On a clip (3, T, V, M):

1. A body whose first frame is empty has its other frames moved to the front; the frames that it lacks at the end are filled
   by repeating those that it has, from its first. Empty frames in between stay empty.
2. In every frame, the centre joint of body 0 (NTU: middle of the spine) is subtracted from every joint of every body.
3. All is turned, once a clip, so that the spine of body 0 in frame 0 (NTU: joint 1 to joint 2) points along the third axis, and
   then so that its shoulders (left to right) point along the first. A direction of no length, or one that already points
   there or exactly the other way, turns nothing. The second turn takes the shortest way and may tilt the spine: little, unless
   the shoulders point nearly against the first axis after the first turn, as those of somebody seen from behind.

Nothing is scaled: heights and bone lengths stay in the data. A joint at exactly zero is absent, and stays at zero.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from bench.skeleton import Layout

if TYPE_CHECKING:
    from bench.data.store import ClipStore, ClipWriter

VERSION = 2  # raised whenever the same clips would come out differently
METHODS = ("view", "none")
_DEGENERATE = 1e-6  # metres (sum of absolute values) or radians, as published


def normalise_clip(clip: np.ndarray, layout: Layout, frames: int | None = None) -> np.ndarray:
    """Normalises one clip by `view` (see the module), in float64.

    Args:
        clip: (3, T, V, M), metres; zero where a joint is absent. Not modified.
        layout: Layout of the joints.
        frames: Repeat each body cyclically to this many frames, as the published 300-frame arrays do; by default, to the length
            of its longest body after step 1, so empty frames at a clip's start or end are lost. Bodies of a clip that are present
            for different times repeat at their own periods, so this differs from `pad_cyclic` afterwards.

    Returns:
        (3, T', V, M) of the input's type; no frames if there is no body.

    Raises:
        ValueError: if the shape does not fit, or `frames` is smaller than the clip's new length.
    """
    if clip.ndim != 4 or clip.shape[0] != 3 or clip.shape[2] != layout.num_joints:
        raise ValueError(f"expected a clip of shape (3, T, {layout.num_joints}, M), got {clip.shape}")
    joints = clip.any(axis=0)  # (T, V, M): where there is one
    sources = [_shown_frames(body) for body in joints.any(axis=1).T]
    length = max(map(len, sources))
    if frames is not None and frames < length:
        raise ValueError(f"a clip has {length} frames, which do not fit into {frames}")
    if not length:
        return np.zeros((3, frames or 0, *clip.shape[2:]), clip.dtype)
    # Bodies of one period are turned once and repeated afterwards.
    once = frames is None or all(len(source) in (0, length) for source in sources)
    out = np.zeros((3, length if once else frames, *clip.shape[2:]))
    there = np.zeros(out.shape[1:], dtype=bool)
    for body, source in enumerate(sources):
        if len(source):
            at = source[np.arange(out.shape[1]) % len(source)]
            out[..., body], there[..., body] = clip[..., body][:, at], joints[:, :, body][at]
    out -= out[:, :, layout.centre, :1][:, :, None].copy()
    out *= there
    first = out[:, 0, :, 0]  # (3, V): frame 0 of body 0
    upright = _rotation(first, *layout.spine, axis=2)
    facing = _rotation(upright @ first, *layout.shoulders, axis=0)
    turned = ((facing @ upright) @ out.reshape(3, -1)).reshape(out.shape)
    turned += 0.0  # an absent joint is 0, not -0
    turned = turned.astype(clip.dtype)
    return turned if turned.shape[1] == (frames or length) else turned.take(np.arange(frames) % length, axis=1)


def normalise_view(
    clips: np.ndarray, lengths: np.ndarray, layout: Layout, frames: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Normalises a batch of clips; see `normalise_clip`.

    Args:
        clips: (N, 3, T, V, M), metres; zero where a joint is absent. Not modified. Frames from a clip's length on are ignored.
        lengths: (N,) frames of each clip, 1..T.
        layout: Layout of the joints.
        frames: Repeat each body cyclically to this many frames; by default, zero from a clip's new length on.

    Returns:
        Clips (N, 3, T or `frames`, V, M) of the input's type, and their lengths before repetition (N,) int64: 0 for a clip
        without any body.

    Raises:
        ValueError: if a shape does not fit, a length is out of range, or `frames` is smaller than a clip's new length.
    """
    lengths = _check(clips, lengths, layout.num_joints)
    out = np.zeros((len(clips), 3, frames or clips.shape[2], *clips.shape[3:]), clips.dtype)
    found = np.zeros(len(clips), dtype=np.int64)
    for i, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        turned = normalise_clip(clip[:, :length], layout, frames)
        out[i, :, : turned.shape[1]] = turned
        found[i] = max(len(_shown_frames(body)) for body in clip[:, :length].any(axis=(0, 2)).T)
    return out, found


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


def normalise_store(store: "ClipStore", writer: "ClipWriter", method: str) -> None:
    """Normalises every clip of a store into another, in the same order and with the same labels.

    Args:
        store: What to read.
        writer: Where to write; its layout must be the store's.
        method: "view", or "none" to copy.

    Raises:
        ValueError: if the method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"normalisation must be one of {', '.join(METHODS)}, got {method!r}")
    for clip, labels in zip(store, store.label_rows(), strict=True):
        writer.add(normalise_clip(clip, store.layout) if method == "view" else clip, labels)


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


def _shown_frames(shown: np.ndarray) -> np.ndarray:
    """Step 1 for one body: which frames it consists of, by the (T,) frames in which it is shown."""
    there = np.flatnonzero(shown)
    if not there.size or there[0] > 0:
        return there
    return np.arange(there[-1] + 1)


def _rotation(joints: np.ndarray, start: int, end: int, axis: int) -> np.ndarray:
    """Rotation (3, 3) that turns the direction from joint `start` to joint `end` of (3, V) to a coordinate axis.

    Rodrigues' formula with the angle between the two, about their cross product; the identity where that is not defined.
    """
    direction = [float(value) for value in joints[:, end] - joints[:, start]]
    pivot = [0.0, 0.0, 0.0]  # direction x axis
    pivot[axis - 2], pivot[axis - 1] = direction[axis - 1], -direction[axis - 2]
    length, across, along = math.hypot(*direction), math.hypot(*pivot), direction[axis]
    if min(sum(map(abs, direction)), sum(map(abs, pivot)), math.atan2(across, along)) < _DEGENERATE:
        return np.eye(3)
    x, y, z = (value / across for value in pivot)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + across / length * cross + (1 - along / length) * (cross @ cross)
