"""One's own data: what is read, what is refused, and how it is split."""

import math
import zipfile

import numpy as np
import pytest

from bench.data.dataset import DataError
from bench.data.own import OwnData, body_extent
from bench.data.prepare import prepare
from bench.protocols import ProtocolError, instantiate
from bench.registry import DATASETS
from bench.specs import parse_spec
from tests.tiny import bench

RNG = np.random.default_rng(0)
CLIPS = {f"c{i}": RNG.standard_normal((5 + i, 20, 3)) for i in range(16)}
LABELS = "clip,action,subject,performance,gender\n" + "".join(
    f"c{i},{i % 2 + 1},{i // 4 + 10},,{'FM'[i // 4 % 2]}\n" for i in range(16)
)
# Somebody of 1.6 m from ankles to head, arms hanging, 3 m before the sensor: joints of `kinect-v1`, metres.
TRUNK = [(0, 0.95, 3), (0, 1.1, 3), (0, 1.4, 3), (0, 1.7, 3)]
RIGHT_ARM = [(0.2, 1.3, 3), (0.25, 1.05, 3), (0.25, 0.8, 3), (0.25, 0.7, 3)]
RIGHT_LEG = [(0.1, 0.9, 3), (0.1, 0.5, 3), (0.1, 0.1, 3), (0.1, 0.1, 2.8)]
LEFT_ARM, LEFT_LEG = ([(-x, y, z) for x, y, z in limb] for limb in (RIGHT_ARM, RIGHT_LEG))
PERSON = np.array([*TRUNK, *LEFT_ARM, *RIGHT_ARM, *LEFT_LEG, *RIGHT_LEG])
WHOLE, UPPER, ARM = list(range(20)), list(range(12)), list(range(4, 8))


def people(joints, unit=1.0):
    """16 clips of this person, of whom these joints alone are seen."""
    pose = np.zeros((20, 3))
    pose[joints] = PERSON[joints] * unit
    return {f"c{i}": np.repeat(pose[None], 5 + i, axis=0) for i in range(16)}


def folder(path, clips=CLIPS, labels=LABELS):
    path.mkdir(exist_ok=True)
    np.savez(path / "clips.npz", **clips)
    (path / "labels.csv").write_text(labels)
    return path


def read(tmp_path, source, spec="own:joints=kinect-v1,rate=25"):
    return prepare(parse_spec(spec, DATASETS), source, tmp_path / "results")


def test_clips_and_labels_are_read(tmp_path):
    store = read(tmp_path, folder(tmp_path / "a"))
    assert len(store) == 16
    np.testing.assert_allclose(store.clip(3)[..., 0].transpose(1, 2, 0), CLIPS["c3"], rtol=1e-6)
    assert store.meta["frame_rate"] == 25
    assert store.layout.name == "kinect-v1"
    assert store.labels["performance"].tolist() == list(CLIPS)
    assert store.labels["gender"].tolist()[:5] == ["F"] * 4 + ["M"]


def test_several_bodies_are_read(tmp_path):
    clips = {**CLIPS, "c0": RNG.standard_normal((5, 2, 20, 3))}
    store = read(tmp_path, folder(tmp_path / "a", clips))
    assert store.num_bodies == 2
    np.testing.assert_allclose(store.clip(0), clips["c0"].transpose(3, 0, 2, 1), rtol=1e-6)


def test_a_clip_of_nobody_is_left_out(tmp_path):
    store = read(tmp_path, folder(tmp_path / "a", {**CLIPS, "c3": np.zeros((5, 20, 3))}))
    assert store.meta["skipped"] == [{"clip": "c3", "reason": "all coordinates are zero: no body"}]


def test_a_folder_without_labels_says_what_belongs_there(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv is not there; --source takes a folder with clips\.npz and labels\.csv"):
        read(tmp_path, tmp_path)


@pytest.mark.parametrize("joints", [WHOLE, UPPER, ARM], ids=["whole", "upper", "arm"])
@pytest.mark.parametrize("size", [0.4, 1, 1.4], ids=["infant", "adult", "giant"])
def test_bodies_in_metres_are_read_also_if_little_of_them_is_seen(tmp_path, joints, size):
    assert len(read(tmp_path, folder(tmp_path / "a", people(joints, size)))) == 16


def test_a_few_wild_clips_do_not_decide_on_the_unit(tmp_path):
    clips = people(WHOLE)
    for i in range(7):
        clips[f"c{i}"] = clips[f"c{i}"] * 100  # seven of sixteen
    clips["c9"][:2, 3] = 900  # in two frames, the head is far off
    clips["c10"][:, [*range(3), *range(4, 20)]] = 0  # one joint is no body
    assert len(read(tmp_path, folder(tmp_path / "a", clips))) == 16


@pytest.mark.parametrize("joints", [WHOLE, UPPER, ARM], ids=["whole", "upper", "arm"])
@pytest.mark.parametrize(
    ("unit", "remedy"),
    [
        (100, "coordinates are in metres; these look like centimetres: divide by 100"),
        (1000, "coordinates are in metres; these look like millimetres: divide by 1000"),
        (1e5, "coordinates are in metres"),
        (1e-3, "coordinates are in metres"),
    ],
)
def test_another_unit_than_metres_is_refused(tmp_path, joints, unit, remedy):
    source = folder(tmp_path / "a", people(joints, unit))
    with pytest.raises(DataError, match=rf"clips\.npz: the body of the median clip would be .* m across.*; {remedy}$"):
        read(tmp_path, source)
    assert not list((tmp_path / "results" / "data").glob("own*"))


def test_millimetres_are_a_mistake_of_the_command(tmp_path):
    source = folder(tmp_path / "a", people(WHOLE, 1000))
    told = bench("data", "prepare", "own:joints=kinect-v1", "--source", str(source), results=tmp_path / "results")
    assert told.exit_code == 2
    assert "would be 1600 m across, expected 0.02 to 10; coordinates are in metres; these look like millimetres" in told.output


def test_the_extent_of_a_body_is_that_of_its_joints_along_the_widest_axis():
    clip = np.zeros((3, 5, 4, 2))
    clip[:, 0, :2, 0] = [[1, 1.2], [2, 2.7], [3, 3.1]]  # 0.7 along the second axis
    clip[:, 1, :2, 0] = [[1, 0.5], [2, 2], [3, 3]]  # 0.5 along the first
    clip[:, 2, :2, 0] = [[1, 1], [2, 2], [3, 94]]  # a mistake
    clip[:, 3, 0, 0] = 5  # one joint, and in the last frame none
    clip[:, :, 1, 1] = 8  # another body
    assert body_extent(clip) == pytest.approx(0.7)
    assert math.isnan(body_extent(clip[:, 3:]))


def test_what_is_replaced_is_told(tmp_path):
    said = []

    def prepared(source, rate):
        spec = parse_spec(f"own:joints=kinect-v1,rate={rate}", DATASETS)
        return prepare(spec, source, tmp_path / "results", say=said.append)

    one, other = folder(tmp_path / "one"), folder(tmp_path / "other", people(WHOLE))
    prepared(one, 25)
    prepared(one, 25)
    assert said == []
    prepared(one, 24)
    prepared(other, 24)
    for line, rate in zip(said, (25, 24), strict=True):
        assert line.startswith(f"own: replaced the 16 clips that were prepared before as own:joints=kinect-v1,rate={rate}")
        assert "--results" in line
    (tmp_path / "results" / "data" / "own" / "index.npy").unlink()
    prepared(one, 25)  # what cannot be read is replaced without a word
    assert len(said) == 2


def test_a_gender_that_is_only_tested_names_folds_that_ask_for_it(tmp_path):
    """People take turns, F and M, as do those who train and those who test."""
    labels = read(tmp_path, folder(tmp_path / "a")).labels
    protocol = OwnData.protocols["halves"]
    with pytest.raises(ProtocolError, match="gender M is tested but never in training; --protocol 2-fold has people of each"):
        instantiate(protocol, "gender", labels, "own")
    for fold in (1, 2):
        part = instantiate(protocol.fold(fold, 2), "gender", labels, "own")
        assert {*part.labels[part.train]} == {*part.labels[part.test]} == {0, 1}


def test_a_gender_of_one_person_alone_cannot_be_asked_for(tmp_path):
    labels = read(tmp_path, folder(tmp_path / "a", labels=LABELS.replace(",13,,M", ",13,,F"))).labels
    with pytest.raises(
        ProtocolError, match="two people of each gender, one to learn from and one to be tested, and only one is M"
    ):
        instantiate(OwnData.protocols["halves"], "gender", labels, "own")


def test_half_of_the_people_and_half_of_each_ones_performances_test(tmp_path):
    labels = read(tmp_path, folder(tmp_path / "a")).labels
    protocol = OwnData.protocols["halves"]
    action = instantiate(protocol, "action", labels, "own")
    assert set(labels["subject"].to_numpy()[action.test]) == {11, 13}
    subject = instantiate(protocol, "subject", labels, "own")
    for person in range(10, 14):
        tested = labels.iloc[subject.test]
        assert sorted(tested.loc[tested["subject"] == person, "action"]) == [1, 2]


def test_people_are_asked_for_in_other_actions_and_in_other_setups(tmp_path):
    """Actions 1 and 2 take turns; of three set-ups a person's last one tests, and who was in one alone does not take part."""
    of = {f"c{i}": 1 if i < 4 else i % 4 // 2 + 1 + (i == 15) for i in range(16)}
    rows = [line.split(",") for line in LABELS.splitlines()[1:]]
    labels = "clip,action,subject,performance,gender,setup\n" + "".join(f"{','.join(row)},{of[row[0]]}\n" for row in rows)
    labels = read(tmp_path, folder(tmp_path / "a", labels=labels)).labels
    part = instantiate(OwnData.protocols["xaction"], "subject", labels, "own")
    assert {*labels["action"].to_numpy()[part.test]} == {2}
    assert {*labels["action"].to_numpy()[[*part.train, *part.validation]]} == {1}
    part = instantiate(OwnData.protocols["xsetup-reid"], "subject", labels, "own")
    assert labels["clip"].to_numpy()[part.test].tolist() == ["c6", "c7", "c10", "c11", "c15"]
    assert {*labels["clip"].to_numpy()[[*part.train, *part.validation]]} == {"c4", "c5", "c8", "c9", "c12", "c13", "c14"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": {**CLIPS, "c0": np.zeros((4, 19, 3))}}, r"c0 of .*shape \(4, 1, 19, 3\)"),
        ({"clips": {**CLIPS, "c0": np.full((4, 20, 3), np.nan)}}, "not a place in metres"),
        ({"clips": {**CLIPS, "c0": np.full((4, 20, 3), 1e9)}}, "not a place in metres"),
        ({"clips": {**CLIPS, "c0": np.array(["x"])}}, "expected .* of numbers"),
        ({"clips": {**CLIPS, "more": CLIPS["c0"]}}, "more has no labels"),
        ({"clips": {"c0": CLIPS["c0"]}}, "c1 has no clip .15 such"),
        ({"labels": "clip,action\nc0,1\n"}, "no column subject"),
        ({"labels": LABELS.replace("c3,2,10", "c3,two,10")}, "line 5: action 'two' is no whole number"),
        ({"labels": LABELS.replace("c3,2,10", "c3,2,")}, "line 5: no subject"),
        ({"labels": LABELS + "c0,1,10,,F\n"}, "clip c0 is there twice"),
        ({"labels": LABELS + "c0,1\n"}, "not as many cells"),
        ({"labels": "clip,action,subject\n"}, "names no clip"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, folder(tmp_path / "a", **change))
    assert not list((tmp_path / "results" / "data").glob("own*"))


def test_nothing_is_unpickled(tmp_path):
    source = folder(tmp_path / "a", {**CLIPS, "c0": np.array([{"harm": 1}], dtype=object)})
    with pytest.raises(DataError, match="no array of numbers"):
        read(tmp_path, source)


def test_a_bomb_is_not_unpacked(tmp_path):
    source = folder(tmp_path / "a")
    with zipfile.ZipFile(source / "clips.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in CLIPS:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                for _ in range(1100 if name == "c0" else 1):
                    member.write(bytes(2**20))
    with pytest.raises(DataError, match="bytes unpacked, expected at most"):
        read(tmp_path, source)


def test_a_cut_archive_is_named(tmp_path):
    source = folder(tmp_path / "a")
    data = (source / "clips.npz").read_bytes()
    (source / "clips.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, source)
