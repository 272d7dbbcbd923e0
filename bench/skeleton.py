"""Skeleton layouts: what the joints of a sensor are and how they hang together.

A layout is data, not behaviour: networks take their graph from it, anonymizers their kinematic tree and body parts, and
normalisation the joints that fix a body's frame of reference. Nothing here knows a data set.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

# Side-specific names carry this prefix; mirror pairs are derived from it.
_LEFT, _RIGHT = "left ", "right "


@dataclass(frozen=True)
class Layout:
    """The joints of one sensor or file format.

    Args:
        name: Name of the layout, e.g. `ntu`.
        joints: Joint names in array order; index `v` is the joint axis of every clip. Names of sided joints start with
            "left " or "right ".
        parents: Index of each joint's parent in the kinematic tree; the root is its own parent.
        edges: Graph edges (child, parent) as graph networks use them; by default the kinematic tree's bones. They differ
            for `ntu`, where the published graph hangs the hand tip on the thumb.
        centre: Joint that normalisation moves to the origin.
        spine: (lower, upper) joint whose direction normalisation turns upright.
        shoulders: (left, right) joint whose direction normalisation turns to the first axis.
        parts: Joint indices of each body part; every joint belongs to exactly one part.
        noisy: Joints whose position the sensor guesses more than it measures; body-size features leave them out.

    Raises:
        ValueError: if the tree has a cycle, several roots or an index out of range, or the parts do not cover each joint once.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    centre: int
    spine: tuple[int, int]
    shoulders: tuple[int, int]
    parts: Mapping[str, tuple[int, ...]] = field(hash=False)
    edges: tuple[tuple[int, int], ...] = ()
    noisy: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.joints)
        if len(self.parents) != count:
            raise ValueError(f"layout {self.name}: {count} joints but {len(self.parents)} parents")
        used = (*self.parents, self.centre, *self.spine, *self.shoulders, *self.noisy, *(j for edge in self.edges for j in edge))
        outside = sorted({j for j in used if not 0 <= j < count})
        if outside:
            raise ValueError(f"layout {self.name}: joint indices {outside} are not in 0..{count - 1}")
        roots = [j for j, parent in enumerate(self.parents) if j == parent]
        if len(roots) != 1:
            raise ValueError(f"layout {self.name}: a kinematic tree has one root, got {roots}")
        if len(self.order) != count:
            raise ValueError(
                f"layout {self.name}: {count - len(self.order)} joints do not hang on the root {self.joints[roots[0]]!r}"
            )
        covered = sorted(j for part in self.parts.values() for j in part)
        if covered != list(range(count)):
            raise ValueError(f"layout {self.name}: parts must hold each of the {count} joints once, got {covered}")
        if not self.edges:
            object.__setattr__(self, "edges", self.bones)

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @property
    def root(self) -> int:
        """Root of the kinematic tree."""
        return next(j for j, parent in enumerate(self.parents) if j == parent)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Joints from the root outwards: each parent stands before its children."""
        order = [self.root]
        for joint in order:
            order += [child for child, parent in enumerate(self.parents) if parent == joint and child != joint]
        return tuple(order)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) of the kinematic tree in joint order; the root has none."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if child != parent)

    @cached_property
    def mirror(self) -> tuple[tuple[int, int], ...]:
        """(left, right) joint pairs."""
        index = {joint: j for j, joint in enumerate(self.joints)}
        return tuple(
            (j, index[_RIGHT + joint.removeprefix(_LEFT)]) for j, joint in enumerate(self.joints) if joint.startswith(_LEFT)
        )

    @property
    def mirror_permutation(self) -> tuple[int, ...]:
        """Joint order after swapping left and right."""
        swap = dict(self.mirror) | {right: left for left, right in self.mirror}
        return tuple(swap.get(j, j) for j in range(self.num_joints))

    def index(self, joint: str) -> int:
        """Array index of a joint name.

        Raises:
            LookupError: if the layout has no such joint.
        """
        if joint not in self.joints:
            raise LookupError(f"layout {self.name} has no joint {joint!r}; it has {', '.join(self.joints)}")
        return self.joints.index(joint)


def _layout(
    name: str,
    tree: str,
    *,
    centre: str,
    spine: tuple[str, str],
    parts: Mapping[str, str],
    noisy: str = "",
    edges: str = "",
) -> Layout:
    """Builds a layout from joint names: `tree` lists `joint<parent` in array order, separated by commas."""
    pairs = [tuple(part.strip() for part in item.split("<")) for item in tree.split(",")]
    joints = tuple(pair[0] for pair in pairs)
    at = {joint: j for j, joint in enumerate(joints)}

    def indices(names: str) -> tuple[int, ...]:
        return tuple(at[item.strip()] for item in names.split(",") if item.strip())

    return Layout(
        name=name,
        joints=joints,
        parents=tuple(at[pair[-1]] for pair in pairs),
        centre=at[centre],
        spine=(at[spine[0]], at[spine[1]]),
        shoulders=(at["left shoulder"], at["right shoulder"]),
        parts={part: indices(names) for part, names in parts.items()},
        noisy=indices(noisy),
        edges=tuple((at[c.strip()], at[p.strip()]) for c, p in (item.split("<") for item in edges.split(",") if item)),
    )


_NTU_TREE = (
    "spine base, spine mid<spine base, neck<spine shoulder, head<neck, "
    "left shoulder<spine shoulder, left elbow<left shoulder, left wrist<left elbow, left hand<left wrist, "
    "right shoulder<spine shoulder, right elbow<right shoulder, right wrist<right elbow, right hand<right wrist, "
    "left hip<spine base, left knee<left hip, left ankle<left knee, left foot<left ankle, "
    "right hip<spine base, right knee<right hip, right ankle<right knee, right foot<right ankle, "
    "spine shoulder<spine mid, left hand tip<left hand, left thumb<left hand, right hand tip<right hand, right thumb<right hand"
)
# The published graph (2s-AGCN, MS-G3D, Shift-GCN) hangs the hand tip on the thumb; the kinematic tree above does not.
_NTU_GRAPH = (
    "spine base<spine mid, spine mid<spine shoulder, neck<spine shoulder, head<neck, left shoulder<spine shoulder, "
    "left elbow<left shoulder, left wrist<left elbow, left hand<left wrist, right shoulder<spine shoulder, "
    "right elbow<right shoulder, right wrist<right elbow, right hand<right wrist, left hip<spine base, "
    "left knee<left hip, left ankle<left knee, left foot<left ankle, right hip<spine base, right knee<right hip, "
    "right ankle<right knee, right foot<right ankle, left hand tip<left thumb, left thumb<left hand, "
    "right hand tip<right thumb, right thumb<right hand"
)
_KINECT_V1 = {  # joint -> parent; the two 20-joint layouts differ in their order only
    "hip centre": "hip centre",
    "spine": "hip centre",
    "shoulder centre": "spine",
    "head": "shoulder centre",
    **{
        f"{side} {joint}": (f"{side} {parent}" if parent not in ("shoulder centre", "hip centre") else parent)
        for side in ("left", "right")
        for joint, parent in (
            ("shoulder", "shoulder centre"),
            ("elbow", "shoulder"),
            ("wrist", "elbow"),
            ("hand", "wrist"),
            ("hip", "hip centre"),
            ("knee", "hip"),
            ("ankle", "knee"),
            ("foot", "ankle"),
        )
    },
}
_KINECT_V1_PARTS = {
    "head": "head",
    "torso": "hip centre, spine, shoulder centre",
    "left arm": "left shoulder, left elbow, left wrist, left hand",
    "right arm": "right shoulder, right elbow, right wrist, right hand",
    "left leg": "left hip, left knee, left ankle, left foot",
    "right leg": "right hip, right knee, right ankle, right foot",
}


def _kinect_v1(name: str, order: str) -> Layout:
    limb_joints = {"arm": ("shoulder", "elbow", "wrist", "hand"), "leg": ("hip", "knee", "ankle", "foot")}
    joints: list[str] = []
    for item in (piece.strip() for piece in order.split(",")):
        side, _, limb = item.partition(" ")
        joints += [f"{side} {joint}" for joint in limb_joints[limb]] if limb in limb_joints else [item]
    return _layout(
        name,
        ", ".join(f"{joint}<{_KINECT_V1[joint]}" for joint in joints),
        centre="spine",
        spine=("hip centre", "spine"),
        parts=_KINECT_V1_PARTS,
        noisy="left hand, right hand, left foot, right foot",
    )


_LAYOUTS = {
    layout.name: layout
    for layout in (
        # Kinect v2, as in NTU RGB+D and ETRI-Activity3D.
        _layout(
            "ntu",
            _NTU_TREE,
            centre="spine mid",
            spine=("spine base", "spine mid"),
            parts={
                "head": "neck, head",
                "torso": "spine base, spine mid, spine shoulder",
                "left arm": "left shoulder, left elbow, left wrist, left hand, left hand tip, left thumb",
                "right arm": "right shoulder, right elbow, right wrist, right hand, right hand tip, right thumb",
                "left leg": "left hip, left knee, left ankle, left foot",
                "right leg": "right hip, right knee, right ankle, right foot",
            },
            noisy="left hand, right hand, left foot, right foot, left hand tip, left thumb, right hand tip, right thumb",
            edges=_NTU_GRAPH,
        ),
        # Kinect v1 in the order of Microsoft's SDK.
        _kinect_v1("kinect-v1", "hip centre, spine, shoulder centre, head, left arm, right arm, left leg, right leg"),
        # The same joints in the order of MSR Action3D's files.
        _kinect_v1(
            "msr-action3d",
            "left shoulder, right shoulder, shoulder centre, spine, left hip, right hip, hip centre, "
            "left elbow, right elbow, "
            "left wrist, right wrist, left hand, right hand, left knee, right knee, left ankle, right ankle, "
            "left foot, right foot, head",
        ),
        # Kinect v2 as UI-PRMD's authors reduced it; upper arm, forearm, upper leg and so on are named by the joint they begin at.
        _layout(
            "ui-prmd",
            "waist, spine<waist, chest<spine, neck<chest, head<neck, head tip<head, "
            "left collar<chest, left shoulder<left collar, left elbow<left shoulder, left hand<left elbow, "
            "right collar<chest, right shoulder<right collar, right elbow<right shoulder, right hand<right elbow, "
            "left hip<waist, left knee<left hip, left ankle<left knee, left toes<left ankle, "
            "right hip<waist, right knee<right hip, right ankle<right knee, right toes<right ankle",
            centre="spine",
            spine=("waist", "spine"),
            parts={
                "head": "neck, head, head tip",
                "torso": "waist, spine, chest",
                "left arm": "left collar, left shoulder, left elbow, left hand",
                "right arm": "right collar, right shoulder, right elbow, right hand",
                "left leg": "left hip, left knee, left ankle, left toes",
                "right leg": "right hip, right knee, right ankle, right toes",
            },
            noisy="head tip, left toes, right toes",
        ),
        # Kinect v2 as UCalgary's gait data has it.
        _layout(
            "ucalgary-gait",
            "left foot<left ankle, left ankle<left knee, left knee<left hip, left hip<spine base, "
            "right foot<right ankle, right ankle<right knee, right knee<right hip, right hip<spine base, "
            "spine base, spine mid<spine base, neck<spine mid, head<neck, left shoulder<neck, right shoulder<neck, "
            "left wrist<left elbow, right wrist<right elbow, left elbow<left shoulder, right elbow<right shoulder",
            centre="spine mid",
            spine=("spine base", "spine mid"),
            parts={
                "head": "neck, head",
                "torso": "spine base, spine mid",
                "left arm": "left shoulder, left elbow, left wrist",
                "right arm": "right shoulder, right elbow, right wrist",
                "left leg": "left hip, left knee, left ankle, left foot",
                "right leg": "right hip, right knee, right ankle, right foot",
            },
            noisy="left foot, right foot",
        ),
        # The same joints in the order of UTD-MHAD's files.
        _kinect_v1("utd-mhad", "head, shoulder centre, spine, hip centre, left arm, right arm, left leg, right leg"),
    )
}


def get_layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        LookupError: if there is none; the message names those that are close.
    """
    if name in _LAYOUTS:
        return _LAYOUTS[name]
    close = difflib.get_close_matches(name, _LAYOUTS)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(_LAYOUTS))}"
    raise LookupError(f"no skeleton layout named {name!r}; {hint}")


def layout_names() -> list[str]:
    return sorted(_LAYOUTS)
