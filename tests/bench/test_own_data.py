"""One's own data: what is read, what is refused, and how it is split."""

import zipfile

import numpy as np
import pytest

from bench.data.dataset import DataError
from bench.data.own import OwnData
from bench.data.prepare import prepare
from bench.protocols import instantiate
from bench.registry import DATASETS
from bench.specs import parse_spec

RNG = np.random.default_rng(0)
CLIPS = {f"c{i}": RNG.standard_normal((5 + i, 20, 3)) for i in range(16)}
LABELS = "clip,action,subject,performance,gender\n" + "".join(
    f"c{i},{i % 2 + 1},{i // 4 + 10},,{'FM'[i // 4 % 2]}\n" for i in range(16)
)


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


def test_half_of_the_people_and_half_of_each_ones_performances_test(tmp_path):
    labels = read(tmp_path, folder(tmp_path / "a")).labels
    protocol = OwnData.protocols["halves"]
    action = instantiate(protocol, "action", labels, "own")
    assert set(labels["subject"].to_numpy()[action.test]) == {11, 13}
    subject = instantiate(protocol, "subject", labels, "own")
    for person in range(10, 14):
        tested = labels.iloc[subject.test]
        assert sorted(tested.loc[tested["subject"] == person, "action"]) == [1, 2]


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
