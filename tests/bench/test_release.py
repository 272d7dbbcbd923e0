"""Fitted anonymizers on disk, released files, and pictures."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from bench.cli import main
from bench.data.ntu_files import main_bodies, parse_skeleton
from bench.data.store import ClipStore
from bench.release import FittedAnonymizer, before_camera
from bench.report.viewer import project, save_animation, save_strip
from bench.skeleton import get_layout

SMALL = "synthetic:people=4,motions=2,replications=2,cameras=1"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def bench(results, *command, code=0):
    done = CliRunner().invoke(main, [*command, "--results", str(results)])
    assert done.exit_code == code, done.output
    return done.output


def release(results, out, *more, code=0):
    return bench(results, "anonymize", "--dataset", SMALL, "--out", str(out), *more, code=code)


def raw(results):
    folder = next((results / "stages" / "normalise").glob("*/clips"))
    return ClipStore.open(folder)


def test_a_release_is_a_clip_store_with_the_same_clips(results, tmp_path):
    release(results, tmp_path / "a", "--anonymizer", "coarsen-macro:step=0.1")
    made, source = ClipStore.open(tmp_path / "a"), raw(results)
    assert made.labels.equals(source.labels)
    assert np.array_equal(made.index, source.index)
    np.testing.assert_allclose(made.rows, np.round(source.rows / 0.1) * 0.1, atol=1e-6)
    assert made.meta["anonymizer"]["name"] == "coarsen-macro"
    assert "seed" not in json.dumps(made.meta)


def test_noise_is_secret_unless_a_seed_is_given(results, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", None), ("d", None)):
        release(results, tmp_path / name, "--anonymizer", "gauss", *(["--seed", seed] if seed else []))
    a, b, c, d = (ClipStore.open(tmp_path / name).rows for name in "abcd")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert not np.array_equal(c, d)


@pytest.mark.parametrize("spec", ["mean-skeleton", "blend:label-oracle:0.5", "smooth+param-dp"])
def test_a_fitted_anonymizer_is_loaded_and_releases_the_same(results, tmp_path, spec):
    kept = tmp_path / "weights"
    release(results, tmp_path / "a", "--anonymizer", spec, "--save-weights", str(kept), "--seed", "3")
    release(results, tmp_path / "b", "--weights", str(kept), "--seed", "3")
    assert np.array_equal(ClipStore.open(tmp_path / "a").rows, ClipStore.open(tmp_path / "b").rows)


def test_a_fitted_anonymizer_takes_other_people_of_the_same_layout(results, tmp_path):
    kept = tmp_path / "weights"
    release(results, tmp_path / "a", "--anonymizer", "mean-skeleton", "--save-weights", str(kept))
    others = "synthetic:people=6,motions=2,replications=1,cameras=1,seed=9"
    bench(tmp_path / "results", "anonymize", "--dataset", others, "--weights", str(kept), "--out", str(tmp_path / "b"))
    layout = get_layout("ntu")
    found = []
    for name in ("a", "b"):
        clip = ClipStore.open(tmp_path / name).clip(0)[..., 0]
        bones = clip[:, :, [c for c, _ in layout.bones]] - clip[:, :, [p for _, p in layout.bones]]
        found.append(np.linalg.norm(bones, axis=0).mean(axis=0))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_labels_of_unknown_people_are_unknown(results, tmp_path):
    release(results, tmp_path / "a", "--anonymizer", "label-oracle", "--save-weights", str(tmp_path / "w"))
    fitted = FittedAnonymizer.load(tmp_path / "w")
    table = raw(results).labels.copy()
    table.loc[0, "subject"] = 77
    codes = fitted.labels(table)
    assert codes["subject"][0] == -1
    assert codes["subject"][1:].tolist() == (table["subject"][1:] - 1).tolist()


def test_skeleton_files_are_read_back(results, tmp_path):
    release(results, tmp_path / "a", "--anonymizer", "identity", "--format", "skeleton")
    source = raw(results)
    files = sorted((tmp_path / "a").iterdir())
    assert [file.stem for file in files] == sorted(source.labels["clip"])
    i = source.labels["clip"].tolist().index(files[0].stem)
    read = main_bodies(parse_skeleton(files[0].read_bytes()))
    clip = source.clip(i)
    pairwise = [np.linalg.norm(c[:, :, 3] - c[:, :, 15], axis=0) for c in (read[..., :1], clip)]
    np.testing.assert_allclose(*pairwise, atol=1e-5)


def test_before_the_camera_a_body_stands_upright_and_in_front():
    clip = np.random.default_rng(0).standard_normal((3, 5, 25, 2)).astype(np.float32) * 4
    clip[..., 1] = 0
    out = before_camera(clip)
    np.testing.assert_allclose(out[1, ..., 0], clip[2, ..., 0], rtol=1e-6)
    assert out[2, ..., 0].min() >= 0.5 - 1e-5
    assert not out[..., 1].any()


def test_npz_files_hold_what_the_field_expects(results, tmp_path):
    release(results, tmp_path / "a.npz", "--anonymizer", "identity", "--format", "npz")
    source = raw(results)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        arrays = dict(data)
    subjects = source.labels["subject"].to_numpy()
    train = np.flatnonzero(subjects % 2 == 1)
    assert arrays["x_train"].shape == (len(train), source.lengths.max(), 150)
    assert arrays["x_test"].shape[0] == len(source) - len(train)
    clip = source.clip(train[1])
    seen = arrays["x_train"][1].reshape(-1, 2, 25, 3).transpose(3, 0, 2, 1)
    assert np.array_equal(seen[:, : clip.shape[1], :, :1], clip)
    assert not seen[..., 1].any()
    assert not seen[:, clip.shape[1] :].any()
    assert np.array_equal(arrays["y_train"].argmax(axis=1) + 1, source.labels["action"].to_numpy()[train])
    assert list(tmp_path.iterdir()) == [tmp_path / "a.npz"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "either --anonymizer or --weights"),
        (("--anonymizer", "gauss", "--weights", "w"), "either --anonymizer or --weights"),
        (("--anonymizer", "gaus"), "did you mean gauss"),
        (("--weights", "nowhere"), "holds no fitted anonymizer"),
    ],
)
def test_mistakes_are_told_in_one_line(results, tmp_path, more, message):
    told = release(results, tmp_path / "a", *more, code=2)
    assert message in told
    assert not (tmp_path / "a").exists()


def test_a_clip_of_which_nothing_is_left_is_named_and_no_weights_are_kept(results, tmp_path):
    kept = ("--save-weights", str(tmp_path / "w"))
    told = release(results, tmp_path / "a", "--anonymizer", "coarsen-macro:step=50", *kept, code=2)
    assert "leaves nothing of clip S001" in told
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(results, tmp_path):
    (tmp_path / "a").mkdir()
    assert "is there already" in release(results, tmp_path / "a", "--anonymizer", "identity", code=2)


def test_a_damaged_or_foreign_state_is_refused(results, tmp_path):
    kept = tmp_path / "w"
    release(results, tmp_path / "a", "--anonymizer", "null", "--save-weights", str(kept))
    (kept / "state.safetensors").write_bytes(b"nothing")
    assert "holds no fitted anonymizer" in release(results, tmp_path / "b", "--weights", str(kept), code=2)
    found = json.loads((kept / "anonymizer.json").read_text())
    (kept / "anonymizer.json").write_text(json.dumps({**found, "schema": 99}))
    assert "holds no fitted" in release(results, tmp_path / "b", "--weights", str(kept), code=2)


def test_clips_of_another_layout_are_refused(results, tmp_path):
    release(results, tmp_path / "a", "--anonymizer", "null", "--save-weights", str(tmp_path / "w"))
    fitted = FittedAnonymizer.load(tmp_path / "w")
    from tests.anonymizers.test_contract import make_clips

    with pytest.raises(Exception, match="fitted to clips of layout ntu"):
        next(fitted.release(make_clips("utd-mhad", 1), raw(results).labels, seed=0))


def test_pictures_are_made(results, tmp_path):
    bench(results, "anonymize", "--dataset", SMALL, "--anonymizer", "null", "--out", str(tmp_path / "null"))
    clip = raw(results).labels["clip"][0]
    one = ("--dataset", SMALL, "--clip", clip)
    bench(results, "view", *one, "--anonymizer", "null", "--out", str(tmp_path / "a.gif"))
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames > 10
    bench(results, "view", "--dataset", SMALL, "--out", str(tmp_path / "a.png"))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 400
    assert "has no clip" in bench(results, "view", "--dataset", SMALL, "--clip", "nobody", code=2)
    assert "must end in .gif or .png" in bench(results, "view", "--dataset", SMALL, "--out", str(tmp_path / "a.mp4"), code=2)


def test_height_is_up_on_the_paper():
    clip = np.zeros((3, 1, 2, 1))
    clip[2, 0, 1] = 1.0
    lower, upper = project(clip)[1, 0, :, 0]
    assert upper > lower
    assert project(clip)[0, 0, 0, 0] == project(clip)[0, 0, 1, 0]


@pytest.mark.parametrize("save", [save_strip, save_animation])
def test_absent_bodies_and_single_frames_can_be_drawn(tmp_path, save):
    clip = torch.randn(3, 1, 25, 2).numpy()
    clip[..., 1] = 0
    path = tmp_path / ("a.png" if save is save_strip else "a.gif")
    save({"raw": [clip], "nothing": [clip * 0]}, ["one"], get_layout("ntu"), 30.0, path)
    assert path.stat().st_size > 1000
