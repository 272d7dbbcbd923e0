"""Readers of the small data sets: files made by hand, damage, and the counts of the real ones."""

import numpy as np
import pytest

from bench.data import kinder_gator, msr_action3d, msrc12, ucalgary, ui_prmd
from bench.data.dataset import DataError
from bench.data.normalisation import normalise_view
from bench.data.prepare import prepare
from bench.data.sources import Member
from bench.data.tables import joint_clip, read_numbers
from bench.protocols import instantiate
from bench.registry import DATASETS
from bench.skeleton import get_layout
from bench.specs import parse_spec


def member(text, name="file.txt"):
    data = text if isinstance(text, bytes) else text.encode()
    return Member(name, f"/data/{name}", "copy it again", lambda: data)


def prepared(name, source, results):
    return prepare(parse_spec(name, DATASETS), source, results)


# Tables of numbers


@pytest.mark.parametrize("separator", [None, ","])
def test_numbers_are_read_by_line(separator):
    between = separator or "  "
    text = f"1{between}2.5{between}-3e2\n\n4{between}5{between}6{between}7\n"
    assert read_numbers(member(text), 3, separator).tolist() == [[1, 2.5, -300], [4, 5, 6]]


def test_a_header_is_left_out():
    assert read_numbers(member("a,b\n1,2\n"), 2, ",", header=True).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("1,2\n3", "line 2: 1 values, expected 2"),
        ("1,2\n3,\n", "line 2: 2 values, expected 2"),
        ("1,2\n\nx,4\n", "line 3: 'x' is not a number"),
        ("1,nan\n", "line 1: value 2 is nan"),
        ("1,inf\n", "line 1: value 2 is inf"),
        (b"\x80\x04K\x01.", "line 1"),
        ("1,2\n" * 100_001, "expected at most 100000"),
    ],
)
def test_damage_is_named_with_its_line(text, message):
    with pytest.raises(DataError, match=message):
        read_numbers(member(text), 2, ",")


def test_absurd_places_are_refused():
    with pytest.raises(DataError, match="y of joint 2 in frame 1 is 1e"):
        joint_clip(member(""), np.array([[[0, 0, 0], [0, 1e9, 0]]]))


# MSR Action3D


def test_msr_frames_are_twenty_lines():
    lines = [f"{j} {10 * t} {100} 1" for t in range(2) for j in range(20)]
    clip = msr_action3d.read_clip(member("\n".join(lines)))
    assert clip.shape == (3, 2, 20, 1)
    assert clip[:, 1, 7, 0].tolist() == [7, 10, 100]
    with pytest.raises(DataError, match="39 lines are no whole number of frames"):
        msr_action3d.read_clip(member("\n".join(lines[:-1])))


def test_msr_screen_coordinates_become_metres_and_overflow_absent():
    lines = ["160 120 500 1"] * 18 + ["160 2147480000 500 1", "220 20 500 1"]
    clip = msr_action3d.read_clip(member("\n".join(lines)), "screen")[:, 0, :, 0]
    assert clip[:, 0] == pytest.approx([0, 0, 2])
    assert not clip[:, 18].any()
    assert clip[0, 19] > 0
    assert clip[1, 19] > 0  # up on the picture is up


# UTKinect


def line(number, value):
    return " ".join([str(number), *[str(value)] * 60])


def utkinect_folder(folder, labels="s01_e01\nwalk: 2 4\nsitDown: NaN NaN\n", cut=False):
    frames = [line(n, n / 10) for n in (1, 2, 3, 3, 4, 5)] + ([line(6, 1)[:20]] if cut else [])
    (folder / "joints_s01_e01.txt").write_text("\n".join(frames))
    (folder / "actionLabel_modified.txt").write_text(labels)
    (folder / "joints_s02_e01.txt").write_text("\n".join(frames))
    return folder


def test_utkinect_takes_are_cut_by_frame_numbers(tmp_path):
    source = utkinect_folder(tmp_path, cut=True)
    store = prepared("utkinect", source, tmp_path / "results")
    assert store.labels["clip"].tolist() == ["s01_e01_a01"]
    assert store.clip(0)[0, :, 0, 0] == pytest.approx([0.2, 0.3, 0.4])  # frame 3 once
    assert [skip["clip"] for skip in store.meta["skipped"]] == ["s01_e01_a02"]


@pytest.mark.parametrize("labels", ["s01_e01\nwalk 2 4\n", "walk: 2 4\n", "s01_e01\nflies: 2 4\n"])
def test_utkinect_labels_of_another_form_are_refused(tmp_path, labels):
    with pytest.raises(DataError, match="neither a recording"):
        prepared("utkinect", utkinect_folder(tmp_path, labels), tmp_path / "results")


def test_utkinect_without_its_labels_is_refused(tmp_path):
    utkinect_folder(tmp_path)
    (tmp_path / "actionLabel_modified.txt").unlink()
    with pytest.raises(DataError, match="lacks actionLabel_modified"):
        prepared("utkinect", tmp_path, tmp_path / "results")


# UI-PRMD


def test_ui_prmd_chains_add_up_and_turn():
    local = np.zeros((1, 22, 3))
    local[0, 1:, 1] = 10.0
    straight = ui_prmd.global_joints(local, np.zeros((1, 22, 3)))
    assert straight[0, 5].tolist() == [0, 50, 0]
    assert straight[0, 9].tolist() == [0, 60, 0]
    angles = np.zeros((1, 22, 3))
    angles[0, 0] = (0, 0, 90)  # the whole body about z: y becomes -x; arms start from the chest's own angles alone
    turned = ui_prmd.global_joints(local, angles)
    assert turned[0, 2] == pytest.approx([-20, 0, 0])
    assert turned[0, 17] == pytest.approx([-40, 0, 0])
    assert turned[0, 9] == pytest.approx([-20, 40, 0])


def test_rotations_turn_about_x_then_y_then_z():
    from scipy.spatial.transform import Rotation

    angles = np.random.default_rng(0).uniform(-180, 180, (7, 3))
    np.testing.assert_allclose(
        ui_prmd._rotations(angles), Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), atol=1e-12
    )


def test_ui_prmd_clips_need_both_files_of_one_length(tmp_path):
    row = ",".join(["1"] * 66)
    (tmp_path / "m01_s01_e01_positions.txt").write_text(row)
    with pytest.raises(DataError, match="no counterpart"):
        prepared("ui-prmd", tmp_path, tmp_path / "results")
    (tmp_path / "m01_s01_e01_angles.txt").write_text(f"{row}\n{row}")
    with pytest.raises(DataError, match=r"1 frames, but .* has 2"):
        prepared("ui-prmd", tmp_path, tmp_path / "results")


# MSRC-12


def test_msrc_windows_are_two_seconds_or_up_to_half_way():
    times = np.arange(0, 10_000_000, 100_000.0)
    found = msrc12.windows(times, np.array([2e6, 5e6, 6e6]))
    assert [(times[w[0]], times[w[-1]] + 1e5) for w in found] == [(1e6, 3e6), (4e6, 5.5e6), (5.5e6, 7e6)]
    assert msrc12.windows(times, np.array([])) == []


def test_msrc_tags_are_brought_to_microseconds():
    tags = msrc12.read_tags(member("XQPCTick;Tag\r\n49875000;G1 lift\r\n"))
    assert tags == pytest.approx([1_000_000.5])
    with pytest.raises(DataError, match=r"line 2: .* is not of the form"):
        msrc12.read_tags(member("XQPCTick;Tag\nnothing\n"))


# UCalgary


def test_ucalgary_joints_that_jump_are_put_between_their_neighbours():
    joints = np.full((4, 2, 3), 2.0)
    joints[:, 0, 0] = [0, 9, 9, 3]
    joints[1:3, 0, 2] = 0
    out = ucalgary.mended(joints)
    assert out[:, 0, 0] == pytest.approx([0, 1, 2, 3])
    assert (out[..., 2] == 2).all()
    assert np.array_equal(out[:, 1], joints[:, 1])


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ((10, 1, "N", b"x", None), "copy of subject 4"),
        ((3, 7, "OA", b"x", None), "to be ignored"),
        ((3, 1, "N", b" \n", None), "empty"),
        ((3, 1, "N", b"x", "s03_r2"), "same bytes as s03_r2"),
        ((3, 1, "N", b"x", None), "^$"),
    ],
)
def test_ucalgary_runs_are_left_out_by_rules(where, reason):
    import re

    assert re.search(reason, ucalgary._left_out(*where))


# Kinder-Gator


def test_kinder_gator_actions_and_people(tmp_path):
    (tmp_path / "participants.csv").write_text("id,group,sex,age\n1,adult,F,20\n2,child,M,6\n")
    found = kinder_gator.read_participants(tmp_path)
    assert found[1] == {"age_group": "adult", "age": 20, "sex": "F", "gender": "F"}
    assert found[2]["gender"] == ""
    assert kinder_gator.read_participants(tmp_path / "nowhere.tar.xz")[1] == found[1]  # beside the archive
    (tmp_path / "participants.csv").write_text("id,group\n1,adult\n")
    with pytest.raises(DataError, match="no table with id, group"):
        kinder_gator.read_participants(tmp_path)
    (tmp_path / "participants.csv").write_text(f'id,group,sex,age\n1,"{"adult" * 50_000}",F,20\n')
    with pytest.raises(DataError, match=r"no table with id, group.*field larger than field limit"):
        kinder_gator.read_participants(tmp_path)
    assert len(set(kinder_gator._ACTIONS)) == 58


# The real ones: counts as their descriptions state them


REAL = {
    "msr-action3d": ("MSRAction3D", 566, 1, 10, 20),
    "msr-action3d:coordinates=screen": ("MSRAction3D", 566, 1, 10, 20),
    "utkinect": ("UTKinect-Action3D", 199, 1, 10, 10),
    "ui-prmd": ("UI-PRMD", 1000, 0, 10, 10),
    "msrc-12": ("MSRC-12", None, 0, 18, 4),
    "kinder-gator": ("Kinder-Gator", 811, 0, 14, 58),
    "ucalgary-gait": ("UCalgary-gait", None, None, 18, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_data_is_read_whole(name, bench_data, tmp_path):
    folder, clips, left_out, people, actions = REAL[name]
    store = prepared(name, bench_data / folder, tmp_path)
    labels = store.labels
    assert clips in (None, len(store))
    assert left_out in (None, len(store.meta["skipped"]))
    assert labels["subject"].nunique() == people
    assert labels["action"].nunique() == actions
    spec = parse_spec(name, DATASETS)
    for protocol in spec.value.protocols.values():
        for target in protocol.splits:
            if target != "correct":  # only correct executions are at hand
                instantiate(protocol, target, labels, name)
    # bodies stand: heads above hips, and lengths of limbs of people
    layout = get_layout(store.layout.name)
    some = [store.clip(i) for i in range(0, len(store), max(1, len(store) // 40))]
    for clip in some:
        whole, _ = normalise_view(clip[None], np.array([clip.shape[1]]), layout)
        first = whole[0, :, 0, :, 0]
        if first.any():
            assert first[2, layout.index("head")] > first[2, layout.index("left hip")]
            thigh = np.linalg.norm(first[:, layout.index("left knee")] - first[:, layout.index("left hip")])
            assert 0.1 < thigh < 0.9
