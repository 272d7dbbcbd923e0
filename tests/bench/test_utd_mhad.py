"""The UTD-MHAD reader on the real files, where they are, and on made-up ones: whole, damaged and misplaced."""

import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from bench.data.dataset import DataError
from bench.data.store import ClipStore, ClipWriter
from bench.data.utd_mhad import UTDMHAD
from bench.protocols import instantiate
from bench.skeleton import get_layout

LAYOUT = get_layout("utd-mhad")
# Median of hip centre to head, plus left hip to knee to ankle, of each subject, in metres; measured apart from this reader.
HEIGHTS = {1: 1.44, 2: 1.33, 3: 1.33, 4: 1.33, 5: 1.51, 6: 1.62, 7: 1.32, 8: 1.42}


def read(source, path, progress=lambda done, total: None):
    with ClipWriter(path, LAYOUT, {"frame_rate": UTDMHAD.frame_rate}) as writer:
        UTDMHAD().read(Path(source), writer, progress)
    return ClipStore.open(path)


@pytest.fixture(scope="module")
def real(bench_data, tmp_path_factory) -> ClipStore:
    return read(bench_data / UTDMHAD.usual_source, tmp_path_factory.mktemp("utd-mhad") / "store")


def mat(array, variable="d_skel") -> bytes:
    file = io.BytesIO()
    savemat(file, {variable: array}, do_compression=True)  # as the real files are
    return file.getvalue()


def clip(seed=0, frames=6):
    return np.random.default_rng(seed).normal(size=(20, 3, frames)) + np.array([[0.0], [0.0], [3.0]])


NAMES = [f"a{a}_s{s}_t{t}_skeleton.mat" for a in (10, 2) for s in (1, 2) for t in (1, 3)]


def fill(folder, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(mat(clip(seed)))
    return folder


def pack_tar(archive, folder):
    with tarfile.open(archive, "w:xz") as file:
        file.add(folder, "Skeleton")
    return archive


def pack_zip(archive, folder):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.iterdir():
            file.write(path, f"Skeleton/{path.name}")
    return archive


def test_real_counts(real):
    assert len(real) == 861
    assert int(real.lengths.sum()) == real.meta["frames"] == 58_299
    assert (real.lengths.min(), np.median(real.lengths), real.lengths.max()) == (41, 67, 125)
    assert real.num_bodies == 1
    assert real.meta["skipped"] == []
    labels = real.labels
    trials = Counter(zip(labels["action"], labels["subject"], strict=True))
    assert len(trials) == 27 * 8
    assert {pair for pair, count in trials.items() if count != 4} == {(8, 1), (23, 6), (27, 8)}
    assert set(trials.values()) == {3, 4}
    assert "gender" not in labels
    assert labels["clip"].tolist() == sorted(labels["clip"])
    assert labels["clip"].equals(labels["performance"])
    assert labels.loc[0].to_dict() == {
        "clip": "a01_s01_t01",
        "action": 1,
        "subject": 1,
        "performance": "a01_s01_t01",
        "replication": 1,
        "height_class": "medium",  # measured
    }


def test_real_bodies(real):
    """Heights and places come out as measured elsewhere, so joints, axes and units are in order."""
    depth = real.rows[:, 2]
    assert (round(float(depth.min()), 2), round(float(depth.max()), 2)) == (1.77, 4.05)
    heights = {subject: [] for subject in HEIGHTS}
    for clip, subject in zip(real, real.labels["subject"], strict=True):
        joint = {name: clip[:, :, j, 0] for j, name in enumerate(LAYOUT.joints)}
        bones = (("hip centre", "head"), ("left hip", "left knee"), ("left knee", "left ankle"))
        heights[subject].append(sum(np.linalg.norm(joint[a] - joint[b], axis=0) for a, b in bones))
    measured = {subject: float(np.median(np.concatenate(values))) for subject, values in heights.items()}
    assert measured == pytest.approx(HEIGHTS, abs=0.006)
    up = np.mean([clip[1, :, LAYOUT.index("head"), 0].mean() - clip[1, :, LAYOUT.index("left foot"), 0].mean() for clip in real])
    assert 1.3 < up < 1.8


def test_real_splits(real):
    protocol = UTDMHAD.protocols["trial/1"]
    action = instantiate(protocol, "action", real.labels, "utd-mhad")
    subject = instantiate(protocol, "subject", real.labels, "utd-mhad")
    assert (len(action.classes), len(action.train) + len(action.validation), len(action.test)) == (27, 431, 430)
    assert (len(subject.classes), len(subject.train) + len(subject.validation)) == (8, 432)
    assert len(UTDMHAD().actions()) == 27
    assert UTDMHAD().actions()[22] == "jogging in place"


def test_real_members_match_scipy(real, bench_data):
    """Two clips of the archive, unpacked and loaded apart from the reader."""
    from scipy.io import loadmat

    names = real.labels["clip"].tolist()
    with tarfile.open(bench_data / "UTD-MHAD" / "UTD-MHAD_Skeleton.tar.xz") as file:
        for member, name in (
            ("Skeleton/a10_s1_t1_skeleton.mat", "a10_s01_t01"),
            ("Skeleton/a9_s8_t4_skeleton.mat", "a09_s08_t04"),
        ):
            array = loadmat(io.BytesIO(file.extractfile(member).read()))["d_skel"]
            back = real.clip(names.index(name))[..., 0]  # (3, T, V)
            for frame in range(array.shape[2]):
                for joint in range(20):
                    np.testing.assert_array_equal(back[:, frame, joint], array[joint, :, frame].astype(np.float32))


def test_folders_and_archives_are_the_same(tmp_path):
    folder = fill(tmp_path / "top" / "Skeleton")
    (folder / "Skeleton_joint_order.txt").write_text("1. head;")
    (folder / "._a2_s1_t1_skeleton.mat").write_bytes(b"a Mac's shadow of the file")
    seen = []
    store = read(folder, tmp_path / "store", lambda done, total: seen.append((done, total)))
    assert seen == [(k + 1, 8) for k in range(8)]
    assert store.labels["clip"].tolist() == [f"a{a:02d}_s0{s}_t0{t}" for a in (2, 10) for s in (1, 2) for t in (1, 3)]
    np.testing.assert_array_equal(store.clip(4)[..., 0], clip(0).astype(np.float32).transpose(1, 2, 0))
    assert read(folder.parent, tmp_path / "parent").fingerprint == store.fingerprint
    for k, pack in enumerate((lambda d: pack_tar(d / "x.tar.xz", folder), lambda d: pack_zip(d / "x.zip", folder))):
        (tmp_path / f"archive{k}").mkdir()
        archive = pack(tmp_path / f"archive{k}")
        assert read(archive, tmp_path / f"a{k}").fingerprint == store.fingerprint
        assert read(archive.parent, tmp_path / f"b{k}").fingerprint == store.fingerprint
    pack_tar(folder.parent / "x.tar.xz", folder)
    beside = read(folder.parent, tmp_path / "beside")
    assert beside.fingerprint == store.fingerprint
    assert beside.meta["skipped"] == [{"clip": "x.tar.xz", "reason": "not opened: unpacked clips lie beside it"}]


def changed(index, value):
    array = clip()
    array[index] = value
    return array


BAD = {
    "empty": (b"", "not a whole MATLAB v5 file"),
    "text": (b"1 2 3\n" * 100, "not a whole MATLAB v5 file"),
    "NaN": (mat(changed((4, 1, 2), np.nan)), "y of joint 5 in frame 3 is nan"),
    "infinite": (mat(changed((0, 0, 0), np.inf)), "x of joint 1 in frame 1 is inf"),
    "another variable": (mat(clip(), "d_iner"), "no variable 'd_skel'"),
    "joints and axes swapped": (mat(clip().transpose(1, 0, 2)), r"shape \(3, 20, 6\) of float64, expected \(20, 3, frames\)"),
    "25 joints": (mat(np.ones((25, 3, 6))), r"shape \(25, 3, 6\)"),
    "flat": (mat(np.ones((20, 3))), r"shape \(20, 3\)"),
    "no frames": (mat(np.ones((20, 3, 0))), r"shape \(20, 3, 0\)"),
    "letters": (mat("twenty joints"), "no real array of numbers"),
    "cells": (mat(np.array([[1, "a"]], dtype=object)), "no real array of numbers"),
    "nobody": (mat(clip() * 0), "no body"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_file_is_named(tmp_path, case):
    folder = fill(tmp_path / "Skeleton")
    content, message = BAD[case]
    (folder / NAMES[3]).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(folder, tmp_path / "store")
    assert str(folder / NAMES[3]) in str(caught.value)
    assert "copy it again, or delete it to leave the clip out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["Skeleton"]  # no half-written store


@pytest.mark.parametrize("compress", [True, False])
def test_cut_file_is_named(tmp_path, compress):
    file = io.BytesIO()
    savemat(file, {"d_skel": clip()}, do_compression=compress)
    whole = file.getvalue()
    folder = fill(tmp_path / "Skeleton", NAMES[:1])
    for size in [0, 1, 100, 127, 128, 130, 136, 150, len(whole) // 2, len(whole) - 200, len(whole) - 20]:
        (folder / NAMES[0]).write_bytes(whole[:size])
        with pytest.raises(DataError, match=f"{NAMES[0]}: .*copy it again"):
            read(folder, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_damaged_member_of_an_archive_is_named(tmp_path):
    folder = fill(tmp_path / "Skeleton")
    (folder / NAMES[3]).write_bytes(BAD["NaN"][0])
    archive = pack_tar(tmp_path / "x.tar.xz", folder)
    with pytest.raises(DataError, match=rf"Skeleton/{NAMES[3]} of .*x\.tar\.xz: .*copy x\.tar\.xz again, or unpack it"):
        read(archive, tmp_path / "store")


@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.98])
def test_cut_archive_is_named(tmp_path, pack, share):
    name = "x.tar.xz" if pack is pack_tar else "x.zip"
    archive = pack(tmp_path / name, fill(tmp_path / "Skeleton"))
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    with pytest.raises(DataError, match=f"{name} is damaged or cut short .*copy it again") as caught:
        read(archive, tmp_path / "store")
    assert "\n" not in str(caught.value)


def test_flipped_byte_in_a_zip_is_named(tmp_path):
    archive = pack_zip(tmp_path / "x.zip", fill(tmp_path / "Skeleton"))
    with zipfile.ZipFile(archive) as file:
        where = file.getinfo(f"Skeleton/{NAMES[0]}").header_offset + 300
    data = bytearray(archive.read_bytes())
    data[where] ^= 0xFF
    archive.write_bytes(bytes(data))
    with pytest.raises(DataError, match=rf"Skeleton/{NAMES[0]} of .*x\.zip cannot be read"):
        read(archive, tmp_path / "store")


def test_wrong_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    (tmp_path / "clip.mat").write_bytes(mat(clip()))
    with pytest.raises(DataError, match=r"no UTD-MHAD clips \(a1_s1_t1_skeleton.mat, \.\.\.\) in .*empty"):
        read(tmp_path / "empty", tmp_path / "store")
    with pytest.raises(DataError, match=r"clip.mat is neither a folder nor an archive"):
        read(tmp_path / "clip.mat", tmp_path / "store")
    twice = fill(tmp_path / "twice" / "one", NAMES[:1]).parent
    fill(twice / "two", NAMES[:1])
    with pytest.raises(DataError, match=f"{NAMES[0]} occurs twice"):
        read(twice, tmp_path / "store")
