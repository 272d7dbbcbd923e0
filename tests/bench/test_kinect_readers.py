"""Readers of ETRI-Activity3D and NW-UCLA on files made by hand in the formats that their users describe."""

import json

import numpy as np
import pytest

from bench.data import etri, nw_ucla
from bench.data.dataset import DataError
from bench.data.prepare import prepare
from bench.data.sources import Member
from bench.protocols import ProtocolError, instantiate
from bench.registry import DATASETS
from bench.specs import parse_spec

AXES = ["3dX", "3dY", "3dZ", "depthX", "depthY", "orientationX", "orientationY", "orientationZ", "orientationW", "trackingState"]
HEADER = ["frameNum", "bodyindexID", "trackingID", *(f"joint{j}_{axis}" for j in range(1, 26) for axis in AXES)]


def member(text, name):
    data = text if isinstance(text, bytes) else text.encode()
    return Member(name, f"/data/{name}", "copy it again", lambda: data)


def prepared(name, source, results):
    return prepare(parse_spec(name, DATASETS), source, results)


def etri_text(bodies):
    """`bodies`: frame number and body to joints (25, 3)."""
    lines = [",".join(HEADER)]
    for (frame, body), joints in bodies.items():
        values = [f"{x:.7g},{y:.7g},{z:.7g},250.1,200.2,0.1,0.2,0.3,0.9,2" for x, y, z in joints]
        lines.append(",".join([str(frame), str(body), "72057594037931648", *values]))
    return "\r\n".join(lines) + "\r\n"


def poses(seed, frames):
    return np.round(np.random.default_rng(seed).normal(size=(frames, 25, 3)) * 0.2 + [0, 0, 3], 4)


# ETRI-Activity3D


def test_etri_clip():
    one, other = poses(0, 4), poses(1, 2)
    rows = {(7, 2): one[0], (8, 2): one[1], (8, 5): other[0], (9, 2): one[2], (9, 5): other[1], (12, 2): one[3]}
    slots = etri.read_clip(member(etri_text(rows), "a.csv"))
    assert slots.shape == (4, 25, 3, 2)
    np.testing.assert_array_equal(slots[..., 0], one)
    np.testing.assert_array_equal(slots[1:3, ..., 1], other)
    assert not slots[[0, 3], ..., 1].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the header lacks frameNum"),
        (etri_text({}).replace("joint25_3dZ", "joint25_z"), "the header lacks joint25_3dZ"),
        (etri_text({}), "the file is empty"),
        (etri_text({(0, 0): poses(0, 1)[0]}).replace(",250.1", ",2O5", 1), None),
        (etri_text({(0, 0): np.full((25, 3), 1e9)}), "not a place in metres"),
        (etri_text({(0, 0): poses(0, 1)[0]})[:900], "header lacks"),
        (etri_text({(0, 0): poses(0, 1)[0]})[:-100], "line 2: .* values, expected"),
    ],
)
def test_etri_damage(text, message):
    if message is None:  # what nobody reads may be anything
        assert etri.read_clip(member(text, "a.csv")) is not None
        return
    with pytest.raises(DataError, match=message):
        etri.read_clip(member(text, "a.csv"))


def test_etri_a_body_twice_in_a_frame():
    line = etri_text({(3, 1): poses(0, 1)[0]}).splitlines()
    with pytest.raises(DataError, match="a body occurs twice in a frame"):
        etri.read_clip(member("\n".join([*line, line[1]]), "a.csv"))


def etri_folder(folder):
    folder.mkdir()
    for person in (1, 2, 3, 60, 61, 63):
        for repetition in (1, 2):
            for camera in (1, 2):
                for action in (1, 2):
                    rows = {(t, 0): pose for t, pose in enumerate(poses(person + 100 * action, 5) + 0.01 * repetition)}
                    name = f"A{action:03d}_P{person:03d}_G{repetition:03d}_C{camera:03d}.csv"
                    (folder / name).write_text(etri_text(rows))
    return folder


def test_etri(tmp_path):
    folder = etri_folder(tmp_path / "etri")
    two = {(t, body): pose for body in (0, 1) for t, pose in enumerate(poses(body, 5))}
    (folder / "A003P001G001C001.csv").write_text(etri_text(two))
    (folder / "A045P001G001C001.csv").write_text(etri_text({(0, 0): poses(0, 1)[0]}))
    gone = poses(0, 3)
    gone[1, 4] = np.nan
    (folder / "A004P001G001C001.csv").write_text(etri_text({(t, 0): pose for t, pose in enumerate(gone)}))
    (folder / "gender_age.txt").write_text("Number\tGender\tAge\n" + "".join(f"{p}\t{'mf'[p % 2]}\t30\n" for p in range(1, 101)))
    store = prepared("etri", folder, tmp_path / "results")
    assert len(store) == 48
    assert {skip["clip"]: skip["reason"] for skip in store.meta["skipped"]} == {
        "A003_P001_G001_C001": "shows several bodies",
        "A045_P001_G001_C001": "an action of two people",
        "A004_P001_G001_C001": "has coordinates that are not numbers",
    }
    row = store.labels.set_index("clip").loc["A002_P061_G002_C001"]
    assert (row["action"], row["subject"], row["camera"], row["replication"]) == (2, 61, 1, 2)
    assert (row["performance"], row["age_group"], row["gender"]) == ("A002_P061_G002", "young", "F")
    protocols = parse_spec("etri", DATASETS).value.protocols
    people = store.labels["subject"].to_numpy()
    part = instantiate(protocols["xsub"], "action", store.labels, "etri")
    assert set(people[part.test]) == {3, 60, 63}
    assert set(people[np.concatenate([part.train, part.validation])]) == {1, 2, 61}
    for target in ("subject", "gender", "age_group"):
        instantiate(protocols["xsub"], target, store.labels, "etri")
    reid = instantiate(protocols["xsub"], "subject", store.labels, "etri")
    assert not set(store.labels["performance"][reid.test]) & set(store.labels["performance"][reid.train])
    two_bodies = prepared("etri:bodies=two", folder, tmp_path / "results")
    assert len(two_bodies) == 50
    assert two_bodies.num_bodies == 2


def test_etri_without_the_owners_table(tmp_path):
    store = prepared("etri", etri_folder(tmp_path / "etri"), tmp_path / "results")
    with pytest.raises(ProtocolError, match="no gender labels"):
        instantiate(parse_spec("etri", DATASETS).value.protocols["xsub"], "gender", store.labels, "etri")


# NW-UCLA


def ucla_text(joints, **more):
    return json.dumps({"file_name": "a01_s01_e00_v01", "skeletons": np.asarray(joints).tolist(), "label": 1, **more})


def test_nw_ucla_clip():
    joints = np.random.default_rng(0).normal(size=(6, 20, 3)).astype(np.float32)
    clip = nw_ucla.read_clip(member(ucla_text(joints), "a01_s01_e00_v01.json"))
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip[..., 0], joints.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON with `skeletons`"),
        ("[1, 2]", "no JSON with `skeletons`"),
        (ucla_text(np.zeros((2, 20, 3)))[:-9], "no JSON with `skeletons`"),
        (ucla_text(np.zeros((2, 25, 3))), r"shape \(2, 25, 3\)"),
        (ucla_text([]), r"shape \(0,\)"),
        ('{"skeletons": ' + "[" * 100_000, "no JSON with `skeletons`"),
        ('{"skeletons": [[1], [1, 2]]}', "no JSON with `skeletons`"),
        (ucla_text(np.full((1, 20, 3), np.nan)), "x of joint 1 in frame 1 is nan"),
        (ucla_text(np.full((1, 20, 3), 1e7)), "x of joint 1 in frame 1 is 1e\\+07"),
        (ucla_text(np.zeros((1, 20, 3))).replace("0.0", "1" + "0" * 400, 1), "holds other things than numbers"),
        (ucla_text(np.zeros((1, 20, 3))).replace("0.0", '"0"', 1), "holds other things than numbers"),
        (ucla_text(np.zeros((1, 20, 3))).replace("0.0", "true"), "holds other things than numbers"),
        (b"\xff\xfe\x00", "no JSON with `skeletons`"),
    ],
)
def test_nw_ucla_damage(text, message):
    with pytest.raises(DataError, match=message):
        nw_ucla.read_clip(member(text, "a01_s01_e00_v01.json"))


def test_nw_ucla(tmp_path):
    folder = tmp_path / "all_sqe"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for person in (1, 2, 3, 4):
        for execution in (0, 1):
            for view in (1, 2, 3):
                for action in (1, 12):
                    name = f"a{action:02d}_s{person:02d}_e{execution:02d}_v{view:02d}.json"
                    (folder / name).write_text(ucla_text(rng.normal(size=(5, 20, 3))))
    (folder / "a02_s01_e00_v01.json").write_text(ucla_text(np.zeros((4, 20, 3))))
    store = prepared("nw-ucla", folder, tmp_path / "results")
    assert len(store) == 48
    assert store.meta["skipped"] == [{"clip": "a02_s01_e00_v01", "reason": "all coordinates are zero: no body"}]
    protocols = parse_spec("nw-ucla", DATASETS).value.protocols
    cameras = store.labels["camera"].to_numpy()
    assert set(cameras[instantiate(protocols["xview"], "action", store.labels, "nw-ucla").test]) == {3}
    reid = instantiate(protocols["xsub"], "subject", store.labels, "nw-ucla")
    assert set(store.labels["replication"].to_numpy()[reid.test]) == {2}
