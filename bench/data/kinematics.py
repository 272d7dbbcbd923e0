"""Forward kinematics of a person on the `ntu` layout: joint angles to bone directions to positions.

Body frame: x to the person's right, y up, z backwards, so that a person who faces the camera stands in the camera's own
axes. Angles are degrees in an array (T, K, 3): frames, the K joints of `JOINTS`, and the axes of `AXES`:

    bend    trunk: leaning forwards; shoulder, hip: swinging the limb forwards; elbow, knee: flexion; foot: toes up
    side    trunk: leaning to the right; limbs: away from the body; clavicle: shrugging
    twist   trunk: turning to the left; limbs: turning outwards; clavicle: pulling the shoulder forwards

Bend and side are one rotation vector (swing), twist a turn about the limb's own axis before it: no order of axes has to be
remembered and no posture of these actions comes near the singularity at 180 degrees. Legs hang on the upright, not on the
leaning pelvis, and a foot at zero is flat whatever the leg does, so that a bow does not lift the feet.
"""

import numpy as np

from bench.skeleton import get_layout

LAYOUT = get_layout("ntu")
AXES = ("bend", "side", "twist")
_ARM, _LEG = ("clavicle", "shoulder", "elbow", "wrist"), ("hip", "knee", "foot")
JOINTS = ("pelvis", "spine", "neck", *(f"{side} {joint}" for side in ("left", "right") for joint in (*_ARM, *_LEG)))
INDEX = {joint: k for k, joint in enumerate(JOINTS)}

# Sense of the rotation about x (bend), z (side) and y (twist) of each joint.
_SENSES = {"clavicle": (1, 1, 1), "shoulder": (1, 1, -1), "elbow": (1, 1, -1), "wrist": (1, 1, -1)} | {
    "hip": (1, 1, -1),
    "knee": (-1, 1, -1),
    "foot": (1, 1, -1),
}


def _sense(joint: str) -> tuple[int, int, int]:
    side, _, name = joint.partition(" ")
    if not name:
        return (-1, -1, 1)
    bend, away, out = _SENSES[name]
    mirror = 1 if side == "right" else -1
    return (bend, away * mirror, out * mirror)


_SENSE = np.array([_sense(joint) for joint in JOINTS], dtype=float)  # (K, 3)

# Bone that ends at each layout joint: the segment it is fixed to and its direction in that segment's frame. A limb hangs
# down, thumbs point forwards. `*` stands for either side; x is given for the right and mirrored for the left.
_BONES = {
    "spine base": ("pelvis", (0, 0, 0)),
    "spine mid": ("loin", (0, 1, 0.02)),
    "spine shoulder": ("chest", (0, 1, 0.04)),
    "neck": ("chest", (0, 1, -0.1)),
    "head": ("head", (0, 1, -0.12)),
    "* shoulder": ("* clavicle", (1, -0.14, 0)),
    "* elbow": ("* upper arm", (0, -1, 0)),
    "* wrist": ("* forearm", (0, -1, 0)),
    "* hand": ("* hand", (0, -1, 0)),
    "* hand tip": ("* hand", (0, -1, -0.1)),
    "* thumb": ("* hand", (0, -0.6, -0.8)),
    "* hip": ("pelvis", (1, -0.42, 0)),
    "* knee": ("* thigh", (0, -1, 0)),
    "* ankle": ("* shank", (0, -1, 0)),
    "* foot": ("* foot", (0, -0.42, -1)),
}
_SEGMENTS = (
    *("pelvis", "loin", "chest", "head"),
    *(
        f"{side} {name}"
        for side in ("left", "right")
        for name in ("clavicle", "upper arm", "forearm", "hand", "thigh", "shank", "foot")
    ),
)


def _bone(joint: str) -> tuple[int, np.ndarray]:
    side, _, rest = joint.partition(" ")
    if side not in ("left", "right"):
        segment, direction = _BONES[joint]
        return _SEGMENTS.index(segment), np.array(direction, dtype=float)
    segment, direction = _BONES[f"* {rest}"]
    mirror = (-1.0, 1.0, 1.0) if side == "left" else (1.0, 1.0, 1.0)
    return _SEGMENTS.index(segment.replace("*", side)), np.array(direction) * mirror


_OWNER = np.array([_bone(joint)[0] for joint in LAYOUT.joints])  # (V,)
_REST = np.array([_bone(joint)[1] for joint in LAYOUT.joints])  # (V, 3)
_REST /= np.maximum(np.linalg.norm(_REST, axis=1, keepdims=True), 1e-12)

_ANCESTORS = np.eye(LAYOUT.num_joints)  # (V, V): row v marks the bones between the root and joint v
for _joint in LAYOUT.order[1:]:
    _ANCESTORS[_joint] += _ANCESTORS[LAYOUT.parents[_joint]]

_FEET = [LAYOUT.index(f"{side} foot") for side in ("left", "right")]
_ANKLES = [LAYOUT.index(f"{side} ankle") for side in ("left", "right")]


def _about_vertical(angle: np.ndarray) -> np.ndarray:
    """Turns about y: angles (...) in radians to matrices (..., 3, 3)."""
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    one = zero + 1
    return np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], axis=-1).reshape(*angle.shape, 3, 3)


def _swing(bend: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Rotations about the horizontal vector (bend, 0, side) (...) in radians: (..., 3, 3), by Rodrigues' formula."""
    angle = np.hypot(bend, side)
    safe = np.maximum(angle, 1e-12)
    x, z = bend / safe, side / safe
    cos, sin = np.cos(angle), np.sin(angle)
    rest = 1 - cos
    cells = [cos + x * x * rest, -z * sin, x * z * rest, z * sin, cos, -x * sin, x * z * rest, x * sin, cos + z * z * rest]
    return np.stack(cells, axis=-1).reshape(*angle.shape, 3, 3)


def bone_directions(angles: np.ndarray) -> np.ndarray:
    """Unit vector along the bone that ends at each joint.

    Args:
        angles: (T, K, 3) joint angles in degrees.

    Returns:
        (T, V, 3); the root's is zero.
    """
    turned = np.radians(angles) * _SENSE
    spine = INDEX["spine"]
    turned = np.concatenate([turned, 0.5 * turned[:, spine : spine + 1]], axis=1)  # the loin bends half as far as the chest
    local = _swing(turned[..., 0], turned[..., 1]) @ _about_vertical(turned[..., 2])  # (T, K + 1, 3, 3)
    upright = _about_vertical(turned[:, INDEX["pelvis"], 2])
    pelvis = upright @ _swing(*turned[:, INDEX["pelvis"], :2].T)
    chest = pelvis @ local[:, spine]
    frames = [pelvis, pelvis @ local[:, -1], chest, chest @ local[:, INDEX["neck"]]]
    for side in ("left", "right"):
        own = {joint: local[:, INDEX[f"{side} {joint}"]] for joint in (*_ARM, *_LEG)}
        upper_arm = chest @ own["shoulder"]
        forearm = upper_arm @ own["elbow"]
        thigh = upright @ own["hip"]
        heading = upright @ _about_vertical(turned[:, INDEX[f"{side} hip"], 2])
        frames += [chest @ own["clavicle"], upper_arm, forearm, forearm @ own["wrist"]]
        frames += [thigh, thigh @ own["knee"], heading @ own["foot"]]
    directions = np.stack(frames, axis=1)[:, _OWNER] @ _REST[:, :, None]  # (T, V, 3, 1)
    return directions[..., 0]


def joint_positions(directions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions relative to the root from bone directions (T, V, 3) and bone lengths (V,) in metres: (T, V, 3)."""
    return _ANCESTORS @ (directions * lengths[:, None])


def root_path(directions: np.ndarray, lengths: np.ndarray, lift: np.ndarray) -> np.ndarray:
    """Where the root must be so that the person stands on the floor y = 0 without sliding.

    The lower foot touches the floor, raised by `lift` (T,) metres in a jump; whichever foot is lower stays where it stood
    at first, and both share this when they are equally low.

    Returns:
        (T, 3) metres.
    """
    joints = joint_positions(directions, lengths)
    soles = np.minimum(joints[:, _FEET, 1], joints[:, _ANKLES, 1])  # (T, 2)
    lowest = soles.min(axis=1, keepdims=True)
    weight = np.exp((lowest - soles) / 0.02)  # 2 cm apart: the lower foot carries nearly three quarters
    weight /= weight.sum(axis=1, keepdims=True)
    ankles = joints[:, _ANKLES][..., [0, 2]]  # (T, 2, 2)
    slide = (weight[..., None] * (ankles - ankles[:1])).sum(axis=1)
    return np.stack([-slide[:, 0], lift - lowest[:, 0], -slide[:, 1]], axis=1)
