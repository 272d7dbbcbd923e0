"""Skeleton layouts against the numbered lists that the data sets' owners give."""

import dataclasses

import pytest

from bench.skeleton import get_layout, layout_names

# Joints of Kinect v2, numbered from 1, as NTU RGB+D documents them.
NTU_JOINTS = {
    1: "spine base",
    2: "spine mid",
    3: "neck",
    4: "head",
    21: "spine shoulder",
    22: "left hand tip",
    23: "left thumb",
    24: "right hand tip",
    25: "right thumb",
    **dict(zip(range(5, 9), ("left shoulder", "left elbow", "left wrist", "left hand"), strict=True)),
    **dict(zip(range(9, 13), ("right shoulder", "right elbow", "right wrist", "right hand"), strict=True)),
    **dict(zip(range(13, 17), ("left hip", "left knee", "left ankle", "left foot"), strict=True)),
    **dict(zip(range(17, 21), ("right hip", "right knee", "right ankle", "right foot"), strict=True)),
}
# (child, parent), numbered from 1: the graph of the published networks, and the tree of forward kinematics.
# fmt: off
NTU_EDGES = {
    (1, 2), (2, 21), (3, 21), (4, 3), (5, 21), (6, 5), (7, 6), (8, 7), (9, 21), (10, 9), (11, 10), (12, 11), (13, 1), (14, 13),
    (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19), (22, 23), (23, 8), (24, 25), (25, 12),
}
NTU_BONES = {
    (2, 1), (21, 2), (3, 21), (4, 3), (5, 21), (6, 5), (7, 6), (8, 7), (22, 8), (23, 8), (9, 21), (10, 9), (11, 10), (12, 11),
    (24, 12), (25, 12), (13, 1), (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19),
}
NTU_MIRROR = {(5, 9), (6, 10), (7, 11), (8, 12), (13, 17), (14, 18), (15, 19), (16, 20), (22, 24), (23, 25)}
NTU_PARTS = {
    "head": {3, 4}, "torso": {1, 2, 21}, "left arm": {5, 6, 7, 8, 22, 23}, "right arm": {9, 10, 11, 12, 24, 25},
    "left leg": {13, 14, 15, 16}, "right leg": {17, 18, 19, 20},
}
# fmt: on
_ARMS_AND_LEGS = [
    f"{side} {joint}"
    for joints in (("shoulder", "elbow", "wrist", "hand"), ("hip", "knee", "ankle", "foot"))
    for side in ("left", "right")
    for joint in joints
]


def from_one(pairs):
    return {tuple(j + 1 for j in pair) for pair in pairs}


def test_ntu_is_as_documented():
    layout = get_layout("ntu")
    assert {j + 1: name for j, name in enumerate(layout.joints)} == NTU_JOINTS
    assert from_one(layout.edges) == NTU_EDGES
    assert len(layout.edges) == 24
    assert from_one(layout.bones) == NTU_BONES
    assert from_one(layout.mirror) == NTU_MIRROR
    assert {part: {j + 1 for j in joints} for part, joints in layout.parts.items()} == NTU_PARTS
    assert {j + 1 for j in layout.noisy} == {8, 12, 16, 20, 22, 23, 24, 25}
    assert (layout.root, layout.centre, layout.spine, layout.shoulders) == (0, 1, (0, 1), (4, 8))


def test_kinect_v1_orders():
    utd, sdk = get_layout("utd-mhad"), get_layout("kinect-v1")
    assert list(utd.joints) == ["head", "shoulder centre", "spine", "hip centre", *_ARMS_AND_LEGS]
    assert list(sdk.joints) == ["hip centre", "spine", "shoulder centre", "head", *_ARMS_AND_LEGS]
    by_name = [{(lay.joints[c], lay.joints[p]) for c, p in lay.bones} for lay in (utd, sdk)]
    assert by_name[0] == by_name[1]
    assert ("head", "shoulder centre") in by_name[0]
    assert utd.joints[utd.root] == "hip centre"


@pytest.mark.parametrize("name", layout_names())
def test_is_a_symmetric_tree(name):
    layout = get_layout(name)
    assert sorted(layout.order) == list(range(layout.num_joints))
    place = {joint: k for k, joint in enumerate(layout.order)}
    assert all(place[parent] < place[child] for child, parent in layout.bones)
    assert len(layout.bones) == layout.num_joints - 1
    assert len(set(layout.edges)) == layout.num_joints - 1
    swap = layout.mirror_permutation
    assert [swap[swap[j]] for j in range(layout.num_joints)] == list(range(layout.num_joints))
    for pairs in (layout.bones, layout.edges):  # the mirror image of an edge is an edge
        assert {(swap[a], swap[b]) for a, b in pairs} == set(pairs)
    assert swap[layout.shoulders[0]] == layout.shoulders[1]
    assert all(layout.joints[left].replace("left", "right") == layout.joints[right] for left, right in layout.mirror)
    assert layout.index(layout.joints[-1]) == layout.num_joints - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": (0, 0, 0)}, "25 joints but 3 parents"),
        ({"parents": (1, 0, *get_layout("ntu").parents[2:])}, "one root"),
        ({"parents": (0, 1, *get_layout("ntu").parents[2:])}, "one root"),
        ({"parents": (0, 0, 3, 2, *get_layout("ntu").parents[4:])}, "do not hang on the root"),
        ({"centre": 25}, r"\[25\] are not in 0..24"),
        ({"edges": ((0, 99),)}, r"\[99\] are not in 0..24"),
        ({"parts": {"head": (3,)}}, "parts must hold each"),
    ],
)
def test_refuses_what_is_no_tree(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(get_layout("ntu"), **change)


def test_unknown_names_say_what_there_is():
    with pytest.raises(LookupError, match="did you mean utd-mhad"):
        get_layout("utd-mahd")
    with pytest.raises(LookupError, match="there are kinect-v1"):
        get_layout("zzz")
    with pytest.raises(LookupError, match="no joint 'tail'"):
        get_layout("ntu").index("tail")
