"""Writes the text format of NTU RGB+D, so that its reader can be exercised without the data.

A `.skeleton` file (CRLF line ends) holds the number of frames; for each frame the number of bodies; for each body one line of
ten values (identity of 17 digits, clipped edges, confidence and state of either hand, restricted, lean in x and y, tracking
state), the number of joints, and one line of twelve values for each joint: position in camera space in metres, where it
falls in the depth and in the colour picture, orientation as a quaternion, tracking state. What nobody reads is constant.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.synthetic import Synthetic
from bench.files import atomic_file

_FIRST_BODY = 72057594037927936  # 2**56: identities of the sensor are about as large and have 17 digits
_TRACKED = 2  # tracking state of a joint that is seen
# Pinhole models of the Kinect v2: focal length and centre in pixels, rounded; colour pictures are not shifted by the
# distance between the two lenses, which no reader uses.
_DEPTH, _COLOUR = (365.0, 256.0, 212.0), (1060.0, 960.0, 540.0)
_JOINT_LINE = "%.9g %.9g %.9g %.4f %.4f %.4f %.4f 0 0 0 0 %d"  # nine digits give a float32 back to the last bit


def skeleton_text(clip: np.ndarray, first_body: int = _FIRST_BODY) -> str:
    """One clip in the `.skeleton` format.

    Args:
        clip: (3, T, V, M) float32, camera space, metres. A body that is zero throughout a frame is not listed in it.
        first_body: Identity of body 0; those of the others follow.

    Returns:
        The text, with CRLF line ends.

    Raises:
        ValueError: if the shape is wrong or a joint does not lie in front of the camera.
    """
    if clip.ndim != 4 or clip.shape[0] != 3:
        raise ValueError(f"expected a clip of shape (3, T, V, M), got {clip.shape}")
    present = clip.any(axis=(0, 2))  # (T, M)
    depth = clip[2].transpose(0, 2, 1)[present]  # (B, V): the bodies of all frames, one after the other
    if (depth <= 0).any():
        raise ValueError(f"joints must lie in front of the camera, got z = {depth.min():.3g} m")
    rows = clip.transpose(1, 3, 2, 0)[present].astype(np.float64)  # (B, V, 3)
    columns = [rows, _pixels(rows, *_DEPTH), _pixels(rows, *_COLOUR), np.full((*rows.shape[:2], 1), _TRACKED)]
    values = iter(np.concatenate(columns, axis=2).reshape(len(rows), -1).tolist())
    joints = clip.shape[2]
    body_lines = "\r\n".join([str(joints), *[_JOINT_LINE] * joints])
    lines = [str(clip.shape[1])]
    for frame in present:
        lines.append(str(int(frame.sum())))
        for body in np.flatnonzero(frame):
            lines += [f"{first_body + int(body)} 0 1 1 1 1 0 0 0 {_TRACKED}", body_lines % tuple(next(values))]
    return "\r\n".join(lines) + "\r\n"


def _pixels(joints: np.ndarray, focal: float, centre_x: float, centre_y: float) -> np.ndarray:
    """Where joints (..., 3) fall in a picture: (..., 2), to the right and down."""
    return focal * joints[..., :2] / joints[..., 2:] * [1, -1] + [centre_x, centre_y]


def write_skeleton(path: Path, clip: np.ndarray, first_body: int = _FIRST_BODY) -> None:
    """Writes one clip (3, T, V, M) as a `.skeleton` file; the file appears whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(skeleton_text(clip, first_body).encode("ascii"))


def write_ntu_folder(
    people: Synthetic, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Path]:
    """Writes a whole synthetic set as NTU RGB+D distributes its own: one `SsssCcccPpppRrrrAaaa.skeleton` file a clip.

    Returns:
        The files, in the order of their names.
    """
    paths = []
    for done, (clip, labels) in enumerate(people.clips(), 1):
        paths.append(folder / f"{labels['clip']}.skeleton")
        write_skeleton(paths[-1], clip, _FIRST_BODY + 10 * labels["subject"])
        progress(done, len(people))
    return paths
