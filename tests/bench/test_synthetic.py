from dataclasses import replace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.data.kinematics import AXES, INDEX, JOINTS, LAYOUT, bone_directions, joint_positions
from bench.data.motions import ACTIONS
from bench.data.ntu_format import skeleton_text, write_ntu_folder
from bench.data.people import STATURE, bone_lengths, gender_of, person_style
from bench.data.rooms import SETUPS, camera
from bench.data.store import ClipStore, ClipWriter
from bench.data.synthetic import Synthetic
from bench.protocols import instantiate

SMALL = Synthetic(people=4, motions=3, replications=2, cameras=2)
CHILD, PARENT = (list(side) for side in zip(*LAYOUT.bones, strict=True))


def lengths_of(joints):
    """(..., V, 3) to (..., bones)."""
    return np.linalg.norm(joints[..., CHILD, :] - joints[..., PARENT, :], axis=-1)


def styles(dynamics, count=3):
    drawn = [person_style(0, number, dynamics) for number in range(1, count + 1)]
    return [np.concatenate([np.ravel(value) for value in vars(style).values()]) for style in drawn]


def features(dataset):
    """Bone lengths, the way bones point (turned as the published normalisation does), and labels of every clip."""
    bones, ways, labels = [], [], []
    for clip, row in dataset.clips():
        joints = clip[..., 0].transpose(1, 2, 0).astype(float)  # (T, V, 3)
        low, middle, high = np.quantile(lengths_of(joints), [0.25, 0.5, 0.75], axis=0)
        bones.append(np.concatenate([middle, high - low]))
        up, side = joints[0, 1] - joints[0, 0], joints[0, 8] - joints[0, 4]
        up /= np.linalg.norm(up)
        side -= side @ up * up
        side /= np.linalg.norm(side)
        vectors = (joints[:, CHILD] - joints[:, PARENT]) @ np.stack([side, np.cross(up, side), up], axis=1)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        ways.append(np.concatenate([vectors.mean(0).ravel(), vectors.std(0).ravel()]))
        labels.append((row["subject"], row["replication"], row["action"], row["gender"] == "F"))
    return np.array(bones), np.array(ways), np.array(labels)


def success(values, target, train):
    """Per clip of the test part: whether linear discriminant analysis names its class."""
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    return model.fit(values[train], target[train]).predict(values[~train]) == target[~train]


# --- labels, counts, order -------------------------------------------------------------------------------------------


def test_counts_labels_and_order():
    rows = [labels for _, labels in SMALL.clips()]
    assert len(rows) == len(SMALL) == 4 * 3 * 2 * 2
    names = [row["clip"] for row in rows]
    assert names == sorted(set(names))
    for row in rows:
        tail = f"P{row['subject']:03d}R{row['replication']:03d}A{row['action']:03d}"
        assert row["clip"] == f"S{row['setup']:03d}C{row['camera']:03d}{tail}"
        assert row["performance"] == f"S{row['setup']:03d}{tail}"
    assert {row["gender"] for row in rows} == {"F", "M"}
    assert len({row["performance"] for row in rows}) == 4 * 3 * 2
    assert set(SMALL.actions()) == {row["action"] for row in rows}
    assert len(ACTIONS) >= 12
    assert len({action.name for action in ACTIONS}) == len(ACTIONS)


def test_it_reads_into_a_store_that_its_protocol_can_split(tmp_path):
    seen = []
    with ClipWriter(tmp_path / "store", LAYOUT, {}) as writer:
        SMALL.read(None, writer, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (48, 48)
    labels = ClipStore.open(tmp_path / "store").labels
    for target, classes in (("action", 3), ("subject", 4), ("gender", 2)):
        part = instantiate(SMALL.protocols["xrep"], target, labels, "synthetic")
        assert len(part.classes) == classes
        assert part.prior == pytest.approx(part.chance)


@pytest.mark.parametrize("people", [4, 8, 20, 100])
def test_gender_is_balanced_on_both_sides_and_in_every_room(people):
    everybody = range(1, people + 1)
    women = {number for number in everybody if gender_of(number) == "F"}
    train = set(Synthetic.protocols["xrep"].splits["gender"].train)
    assert len(women) == people // 2
    assert len(women & train) == people // 4


def test_people_are_usually_but_not_always_in_their_room():
    rooms = {}
    for _, row in Synthetic(people=8, motions=10, cameras=1).clips():
        rooms.setdefault(row["subject"], []).append(row["setup"])
    shares = [max(map(seen.count, set(seen))) / len(seen) for seen in rooms.values()]
    assert 0.7 < np.mean(shares) < 1
    assert {room for seen in rooms.values() for room in seen} <= set(range(1, SETUPS + 1))


@pytest.mark.parametrize(
    ("wrong", "message"), [({"people": 1}, "people must be"), ({"motions": 99}, "motions must be"), ({"body": -1.0}, "body must")]
)
def test_parameters_out_of_range_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        Synthetic(**wrong)


# --- determinism -----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_clips_and_another_seed_others():
    first, again = ([clip for clip, _ in SMALL.clips()] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = [clip for clip, _ in replace(SMALL, seed=1).clips()]
    assert not any(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_more_people_actions_and_replications_leave_the_others_as_they_were():
    few = {row["clip"]: clip for clip, row in replace(SMALL, cameras=1).clips()}
    many = {row["clip"]: clip for clip, row in Synthetic(people=6, motions=4, replications=3).clips()}
    assert set(few) < set(many)
    assert all(np.array_equal(clip, many[name]) for name, clip in few.items())


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_bones_keep_their_lengths_and_stand_for_a_person_of_that_stature():
    for number in (1, 2):
        lengths = bone_lengths(0, number, 1.0)
        measured = lengths_of(SMALL.world(number, 1, 2))
        assert np.allclose(measured, lengths[CHILD], atol=1e-9)
    women, men = (
        np.array([bone_lengths(0, number, 1.0) for number in range(1, 401) if gender_of(number) == gender]) for gender in "FM"
    )
    assert np.median(men[:, 1] / women[:, 1]) == pytest.approx(STATURE["M"][0] / STATURE["F"][0], rel=0.02)
    assert women[:, 5].std() / women[:, 5].mean() == pytest.approx(np.hypot(0.064 / 1.629, 0.028), rel=0.15)


def test_a_person_stands_as_tall_as_their_bones_add_up():
    upright = bone_directions(np.zeros((1, len(JOINTS), len(AXES))))
    lengths = bone_lengths(0, 1, 0.0)  # the mean of both sexes: 1.69 m
    joints = joint_positions(upright, lengths)[0]
    head, foot = joints[LAYOUT.index("head"), 1], joints[LAYOUT.index("left foot"), 1]
    assert 0.88 < (head - foot) / 1.6925 < 0.97  # the head joint lies below the top of the head
    assert joints[LAYOUT.index("right shoulder"), 0] > 0 > joints[LAYOUT.index("left shoulder"), 0]
    assert joints[LAYOUT.index("left foot"), 2] < joints[LAYOUT.index("left ankle"), 2]  # toes towards the camera


@pytest.mark.parametrize(
    ("angle", "joint", "towards"),
    [
        ("right shoulder bend", "right elbow", (0, 0, -1)),  # forwards
        ("right shoulder side", "right elbow", (1, 0, 0)),  # to the right
        ("left shoulder side", "left elbow", (-1, 0, 0)),
        ("left elbow bend", "left wrist", (0, 0, -1)),
        ("right hip bend", "right knee", (0, 0, -1)),
        ("left knee bend", "left ankle", (0, 0, 1)),  # backwards
    ],
)
def test_joints_bend_the_right_way(angle, joint, towards):
    angles = np.zeros((1, len(JOINTS), len(AXES)))
    name, _, axis = angle.rpartition(" ")
    angles[0, INDEX[name], AXES.index(axis)] = 90
    assert np.allclose(bone_directions(angles)[0, LAYOUT.index(joint)], towards, atol=1e-12)


def test_body_zero_makes_all_bones_equal_to_the_last_bit_and_grows_smoothly():
    assert np.array_equal(bone_lengths(0, 1, 0.0), bone_lengths(3, 2, 0.0))
    small, large = (np.log(bone_lengths(0, 1, dial)[CHILD] / bone_lengths(0, 1, 0.0)[CHILD]) for dial in (0.5, 1.0))
    assert np.allclose(large, 2 * small)


# --- motion ----------------------------------------------------------------------------------------------------------


def test_dynamics_zero_leaves_only_chance():
    assert not any(style.any() for style in styles(0.0))
    one, two = styles(1.0, count=2)
    assert not np.allclose(one, two)
    assert np.allclose(styles(2.0, count=1)[0], 2 * one)
    still = replace(SMALL, dynamics=0.0)
    assert not np.array_equal(still.perform(1, 1, 1).angles[:36], still.perform(1, 2, 1).angles[:36])


@pytest.mark.parametrize("action", range(1, len(ACTIONS) + 1))
def test_people_move_like_people(action):
    people = Synthetic(motions=len(ACTIONS))
    for person in (1, 2, 3, 4):
        joints = people.world(person, 1, action)
        done = people.perform(person, 1, action)
        assert 36 <= len(joints) <= 100
        soles = joints[:, [LAYOUT.index(f"{side} {joint}") for side in ("left", "right") for joint in ("foot", "ankle")], 1]
        assert np.allclose(soles.min(axis=1), done.lift, atol=1e-9)
        assert -1e-9 <= done.lift.min() <= done.lift.max() < 0.4
        speeds = np.linalg.norm(np.diff(joints, axis=0), axis=-1) * people.frame_rate
        assert np.quantile(speeds, 0.995) < 8
        assert speeds.max() < 14  # a hand tip in a punch
        assert (np.abs(joints[..., [0, 2]]) < 1.8).all()
        assert joints[..., 1].max() < 2.8
        for joint in ("left elbow", "right elbow", "left knee", "right knee"):
            assert done.angles[:, INDEX[joint], 0].min() > 0
            assert done.angles[:, INDEX[joint], 0].max() < 170


def test_only_the_jump_leaves_the_floor():
    heights = {a: max(SMALL.perform(p, 1, a).lift.max() for p in (1, 2)) for a in range(1, len(ACTIONS) + 1)}
    assert [ACTIONS[a - 1].name for a, height in heights.items() if height > 0] == ["jump"]


# --- rooms and cameras -----------------------------------------------------------------------------------------------


def test_setup_zero_makes_all_rooms_equal():
    point = np.random.default_rng(0).normal(size=(5, 25, 3))
    views = [camera(0, room, 1, 0.0).film(point, np.random.default_rng(1)) for room in (1, 2)]
    assert np.array_equal(*views)
    views = [camera(0, room, 1, 1.0).film(point, np.random.default_rng(1)) for room in (1, 2)]
    assert not np.allclose(*views, atol=1e-3)


def test_cameras_film_one_moment_from_three_sides():
    people = Synthetic(people=2, motions=1, setup=0.0)
    clips = {row["clip"]: clip for clip, row in people.clips()}
    views = [clip for name, clip in sorted(clips.items()) if name.endswith("P001R001A001")]
    assert len(views) == 3
    assert len({clip.shape for clip in views}) == 1
    frontal = [view[0, 0, 8, 0] - view[0, 0, 4, 0] for view in views]  # right minus left shoulder, to the side
    assert frontal[1] > max(frontal[0], frontal[2]) > 0
    for view in views:
        assert view.dtype == np.float32
        assert 1.5 < view[2].min() < view[2].max() < 4.5  # about three metres away
    away = [view[2, 0, 8, 0] - view[2, 0, 4, 0] for view in views]
    assert away[0] * away[2] < 0  # either shoulder is nearer to one of the outer cameras


def test_noise_is_a_centimetre_and_larger_at_hands_and_feet():
    people = Synthetic(people=2, motions=1)
    still = np.zeros((4000, 25, 3))
    seen = camera(0, 1, 2, 0.0).film(still, np.random.default_rng(0))[..., 0]
    spread = seen.std(axis=1).mean(axis=0)  # (V,)
    assert spread[LAYOUT.index("left knee")] == pytest.approx(0.007, rel=0.1)
    assert spread[LAYOUT.index("left hand tip")] == pytest.approx(0.012, rel=0.1)
    ahead = np.corrcoef(seen[0, :-1, 5], seen[0, 1:, 5])[0, 1]
    assert 0.5 < ahead < 0.8
    assert people.frame_rate == 30


# --- what leaks ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leaks():
    """Share of the clips of a second replication whose person is named (16 people: chance 0.0625), by dial and feature."""
    out = {}
    for dials in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)):
        body, dynamics, setup = dials
        bones, ways, labels = features(Synthetic(people=16, motions=5, body=body, dynamics=dynamics, setup=setup))
        train = labels[:, 1] == 1
        out[dials] = [success(values, labels[:, 0], train).mean() for values in (bones, ways)]
    return out


# 240 test clips, 80 performances: three standard errors of chance are 0.047 if clips are independent, 0.081 if a
# performance's three clips stand and fall together.
CHANCE = 1 / 16
CLOSE = 0.06


def test_bones_tell_people_apart_by_body_size_and_by_nothing_else(leaks):
    assert leaks[1.0, 0.0, 0.0][0] > 0.5
    assert abs(leaks[0.0, 1.0, 0.0][0] - CHANCE) < CLOSE
    assert abs(leaks[0.0, 0.0, 0.0][0] - CHANCE) < CLOSE


def test_ways_of_moving_tell_people_apart_by_dynamics_and_not_without(leaks):
    assert leaks[0.0, 1.0, 0.0][1] > 0.4
    assert abs(leaks[0.0, 0.0, 0.0][1] - CHANCE) < CLOSE


def test_rooms_alone_tell_people_apart_a_little():
    bones, ways, labels = features(Synthetic(people=16, motions=5, body=0.0, dynamics=0.0, setup=3.0))
    train = labels[:, 1] == 1
    assert success(np.hstack([bones, ways]), labels[:, 0], train).mean() > 0.1


def test_actions_and_gender_of_unseen_people_can_be_read():
    bones, ways, labels = features(Synthetic(people=16, motions=5, replications=1))
    train = labels[:, 0] % 2 == 1
    assert success(ways, labels[:, 2], train).mean() > 0.9
    assert success(np.hstack([bones, ways]), labels[:, 3], train).mean() > 0.6


# --- .skeleton files -------------------------------------------------------------------------------------------------


def test_the_text_of_a_tiny_clip():
    clip = np.zeros((3, 2, 2, 2), np.float32)  # two frames, two joints, two bodies
    clip[:, 0, :, 0] = [[0.5, -0.25], [0.0, 1.0], [2.0, 4.0]]
    clip[:, 1, :, 1] = [[0.1, 0.0], [0.0, 0.0], [1.0, 1.0]]  # body 0 has left, body 1 has come
    assert skeleton_text(clip).split("\r\n") == [
        "2",
        "1",
        "72057594037927936 0 1 1 1 1 0 0 0 2",
        "2",
        "0.5 0 2 347.2500 212.0000 1225.0000 540.0000 0 0 0 0 2",
        "-0.25 1 4 233.1875 120.7500 893.7500 275.0000 0 0 0 0 2",
        "1",
        "72057594037927937 0 1 1 1 1 0 0 0 2",
        "2",
        "0.100000001 0 1 292.5000 212.0000 1066.0000 540.0000 0 0 0 0 2",
        "0 0 1 256.0000 212.0000 960.0000 540.0000 0 0 0 0 2",
        "",
    ]


def test_a_frame_without_bodies_is_listed_as_such_and_nothing_may_lie_behind_the_camera():
    clip = np.zeros((3, 2, 25, 1), np.float32)
    clip[2, 1] = 3
    assert skeleton_text(clip).split("\r\n")[:3] == ["2", "0", "1"]
    with pytest.raises(ValueError, match="in front of the camera, got z = -3"):
        skeleton_text(-clip)
    with pytest.raises(ValueError, match="shape"):
        skeleton_text(clip[..., 0])


def test_a_folder_of_files_gives_every_coordinate_back(tmp_path):
    people = Synthetic(people=2, motions=1, replications=1, cameras=1)
    paths = write_ntu_folder(people, tmp_path)
    assert sorted(tmp_path.iterdir()) == paths
    for path, (clip, labels) in zip(paths, people.clips(), strict=True):
        assert path.name == labels["clip"] + ".skeleton"
        lines = path.read_bytes().decode("ascii").split("\r\n")
        joints = [line.split()[:3] for line in lines if line.count(" ") == 11]
        back = np.array(joints, dtype=np.float32).reshape(clip.shape[1], 25, 3).transpose(2, 0, 1)
        assert np.array_equal(back, clip[..., 0])
        assert int(lines[0]) == clip.shape[1]
