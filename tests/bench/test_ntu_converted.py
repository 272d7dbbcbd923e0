"""NTU RGB+D in the forms of other projects: the same clips under the same names as from the owners' files."""

import pickle

import numpy as np
import pytest

from bench.data.dataset import DataError
from bench.data.normalisation import normalise_clip
from bench.data.ntu import XSUB_60
from bench.data.ntu_format import write_ntu_folder
from bench.data.prepare import prepare
from bench.data.synthetic import Synthetic
from bench.registry import DATASETS
from bench.skeleton import get_layout
from bench.specs import parse_spec

NTU = get_layout("ntu")
FRAMES = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Clips of three people as the owners' files give them, one of them with a second body that comes late and leaves early."""
    folder = tmp_path_factory.mktemp("ntu")
    write_ntu_folder(Synthetic(people=3, motions=2, replications=2, cameras=1), folder / "clips")
    return prepare(parse_spec("ntu60", DATASETS), folder / "clips", folder / "results")


def read(form, source, results):
    return prepare(parse_spec(f"ntu60:form={form}", DATASETS), source, results)


def names_and_actions(store):
    return store.labels["clip"].tolist(), [int(action) - 1 for action in store.labels["action"]]


def padded(clip, frames=FRAMES):
    return np.concatenate([clip, np.zeros((3, frames - clip.shape[1], *clip.shape[2:]), np.float32)], axis=1)


def two_bodies(clip):
    return np.concatenate([clip, np.zeros((*clip.shape[:3], 2 - clip.shape[3]), np.float32)], axis=3)


def same_labels(found, store):
    columns = list(store.labels)
    one, other = (s.labels[columns].sort_values("clip").reset_index(drop=True) for s in (found, store))
    return one.equals(other)


def by_name(store):
    return dict(zip(store.labels["clip"], store, strict=True))


# 2s-AGCN


def write_agcn(folder, store, side="train", actions=None):
    folder.mkdir(exist_ok=True)
    names, known = names_and_actions(store)
    clips = np.stack([two_bodies(normalise_clip(clip, NTU, FRAMES)) for clip in store])
    np.save(folder / f"{side}_data_joint.npy", clips)
    with (folder / f"{side}_label.pkl").open("wb") as file:
        pickle.dump(([f"{name}.skeleton" for name in names], actions or known), file)


def test_2s_agcn(tmp_path, store):
    write_agcn(tmp_path / "xsub", store, "val")
    found = read("2s-agcn", tmp_path / "xsub", tmp_path / "results")
    assert same_labels(found, store)
    for name, clip in by_name(found).items():
        np.testing.assert_array_equal(clip, normalise_clip(by_name(store)[name], NTU))


def test_2s_agcn_bodies_seen_for_different_times(tmp_path):
    """Body 1 is away for the last frames; the published padding repeats each body at its own period, body 0 decides."""
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(3, 20, 25, 2)).astype(np.float32)
    clip[:, 12:, :, 1] = 0
    np.save(tmp_path / "train_data_joint.npy", normalise_clip(clip, NTU, FRAMES)[None])
    (tmp_path / "train_label.pkl").write_bytes(pickle.dumps((["S001C001P001R001A051.skeleton"], [50])))
    found = read("2s-agcn", tmp_path, tmp_path / "results")
    np.testing.assert_array_equal(found.clip(0), normalise_clip(clip, NTU))


def test_2s_agcn_refusals(tmp_path, store):
    with pytest.raises(DataError, match="no 2s-AGCN arrays"):
        read("2s-agcn", tmp_path, tmp_path / "results")
    write_agcn(tmp_path / "xsub", store)
    write_agcn(tmp_path / "xview", store)
    with pytest.raises(DataError, match=r"is there twice in .*; name the folder of one split"):
        read("2s-agcn", tmp_path, tmp_path / "results")
    (tmp_path / "xview" / "train_label.pkl").unlink()
    with pytest.raises(DataError, match=r"needs train_label.pkl beside it"):
        read("2s-agcn", tmp_path / "xview", tmp_path / "results")
    write_agcn(tmp_path / "xview", store, actions=[5] * len(store))
    with pytest.raises(DataError, match="S001C001P001R001A001 is labelled 5, expected 0"):
        read("2s-agcn", tmp_path / "xview", tmp_path / "results")
    data = (tmp_path / "xsub" / "train_data_joint.npy").read_bytes()
    (tmp_path / "xsub" / "train_data_joint.npy").write_bytes(data[:-1])
    with pytest.raises(DataError, match="is no whole array"):
        read("2s-agcn", tmp_path / "xsub", tmp_path / "results")
    np.save(tmp_path / "xsub" / "train_data_joint.npy", np.zeros((2, 3, 5, 25, 2), np.float32))
    with pytest.raises(DataError, match=rf"has shape \(2, 3, 5, 25, 2\), expected \({len(store)}, 3, frames, 25, 2\)"):
        read("2s-agcn", tmp_path / "xsub", tmp_path / "results")
    assert not (tmp_path / "results" / "data" / "ntu60").exists()


# CTR-GCN


def write_ctr_gcn(folder, store, stem="NTU60_CS", first=lambda name: int(name[9:12])):
    """Files by the recipe of that project: sides and order by the value of one label, then as listed."""
    folder.mkdir(exist_ok=True)
    names, actions = names_and_actions(store)
    (folder / "skes_available_name.txt").write_text("\n".join(names))
    train = {"NTU60_CS": XSUB_60, "NTU60_CV": (2, 3)}[stem]
    arrays = {}
    for side in ("train", "test"):
        of_side = [k for k, name in enumerate(names) if (first(name) in train) == (side == "train")]
        of_side.sort(key=lambda k: first(names[k]))
        clips = [padded(two_bodies(store.clip(k))).transpose(1, 3, 2, 0).reshape(FRAMES, 150) for k in of_side]
        arrays[f"x_{side}"] = np.stack(clips).astype(np.float32)
        arrays[f"y_{side}"] = np.eye(60)[[actions[k] for k in of_side]]
    np.savez(folder / f"{stem}.npz", **arrays)


def test_ctr_gcn(tmp_path, store):
    write_ctr_gcn(tmp_path / "ctr", store)
    found = read("ctr-gcn", tmp_path / "ctr", tmp_path / "results")
    assert same_labels(found, store)
    assert found.labels["clip"].tolist() != store.labels["clip"].tolist()  # training people come first
    for name, clip in by_name(found).items():
        np.testing.assert_array_equal(clip, by_name(store)[name])


def test_ctr_gcn_refusals(tmp_path, store):
    folder = tmp_path / "ctr"
    write_ctr_gcn(folder, store)
    names = (folder / "skes_available_name.txt").read_text()
    (folder / "skes_available_name.txt").write_text("\n".join(reversed(names.split())))
    with pytest.raises(DataError, match=r"is labelled 1, expected 0|is labelled 0, expected 1"):
        read("ctr-gcn", folder, tmp_path / "results")
    (folder / "skes_available_name.txt").write_text("\n".join(names.split()[:-1]))
    with pytest.raises(DataError, match=r"x_\w+ has shape|y_\w+ has shape"):
        read("ctr-gcn", folder, tmp_path / "results")
    (folder / "skes_available_name.txt").unlink()
    with pytest.raises(DataError, match=r"names no clip: put skes_available_name.txt"):
        read("ctr-gcn", folder, tmp_path / "results")
    (folder / "skes_available_name.txt").write_text(names)
    whole = (folder / "NTU60_CS.npz").read_bytes()
    (folder / "NTU60_CS.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"y_train (is no array|cannot be read)"):
        read("ctr-gcn", folder, tmp_path / "results")
    np.savez(folder / "NTU60_CS.npz", x_train=np.zeros(3))
    with pytest.raises(DataError, match="y_train is no array"):
        read("ctr-gcn", folder, tmp_path / "results")
    np.savez(folder / "NTU60_CS.npz", y_train=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"y_train has shape .* of object"):
        read("ctr-gcn", folder, tmp_path / "results")


# PYSKL


def annotations(store, kind="f4"):
    names, actions = names_and_actions(store)
    return [
        {
            "frame_dir": name,
            "label": action,
            "keypoint": np.array(clip.transpose(3, 1, 2, 0), kind),
            "total_frames": clip.shape[1],
        }
        for name, action, clip in zip(names, actions, store, strict=True)
    ]


VAST = ["ha"]
for _ in range(30):
    VAST = [VAST] * 10  # its text would have 10**30 words


@pytest.mark.parametrize(("protocol", "kind"), [(2, "f4"), (4, "f4"), (5, "f4"), (2, "f2")])
def test_pyskl(tmp_path, store, protocol, kind):
    path = tmp_path / "ntu60_3danno.pkl"
    path.write_bytes(pickle.dumps({"split": {"xsub_train": []}, "annotations": annotations(store, kind)}, protocol))
    found = read("pyskl", path, tmp_path / "results")
    assert same_labels(found, store)
    for name, clip in by_name(found).items():
        np.testing.assert_array_equal(clip, by_name(store)[name].astype(kind).astype("f4"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 7}, "is labelled 7, expected 0"),
        ({"label": "0"}, "is labelled a str, expected 0"),
        ({"label": 10**5000}, "is labelled a int, expected 0"),
        ({"label": VAST}, "is labelled a list, expected 0"),
        ({"frame_dir": VAST}, "'a list' is no name of a clip"),
        ({"frame_dir": "x" * 10**6}, "'x{60}' is no name of a clip"),
        ({"frame_dir": "../../etc/passwd"}, "is no name of a clip"),
        ({"keypoint": np.zeros((1, 4, 17, 2), np.float32)}, r"has shape \(1, 4, 17, 2\), expected \(bodies, frames, 25, 3\)"),
        ({"keypoint": None}, "has shape None"),
        ({"keypoint": np.full((1, 4, 25, 3), np.nan, np.float32)}, "a coordinate is not a place in metres"),
    ],
)
def test_pyskl_refusals(tmp_path, store, change, message):
    clips = annotations(store)
    clips[0].update(change)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"annotations": clips}))
    with pytest.raises(DataError, match=message):
        read("pyskl", tmp_path, tmp_path / "results")


@pytest.mark.parametrize("form", ["2s-agcn", "ctr-gcn", "pyskl"])
def test_clips_of_another_data_set_and_listed_ones_are_left_out(tmp_path, store, form):
    folder = tmp_path / "data"
    if form == "pyskl":
        folder.mkdir()
        (folder / "ntu60_3danno.pkl").write_bytes(pickle.dumps({"annotations": annotations(store)}))
    else:
        (write_agcn if form == "2s-agcn" else write_ctr_gcn)(folder, store)
    listed = store.labels["clip"].tolist()[3]
    (folder / "NTU_RGBD_samples_with_missing_skeletons.txt").write_text(f"prose\n{listed}\n")
    found = read(form, folder, tmp_path / "results")
    assert set(store.labels["clip"]) - set(found.labels["clip"]) == {listed}
    assert found.meta["skipped"] == [{"clip": listed, "reason": "on the owners' list of missing skeletons"}]
