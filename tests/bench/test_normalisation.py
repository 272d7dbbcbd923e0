"""The vectorised normalisation against a plain one, written frame by frame from its published description."""

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bench.data import normalisation
from bench.data.normalisation import normalise_store, normalise_view, pad_cyclic
from bench.data.ntu import NTU60
from bench.data.store import ClipStore, ClipWriter
from bench.skeleton import get_layout

NTU = get_layout("ntu")


def between(start, end):
    """Rotation from one direction to another by the shorter way; none where a direction or the way is undefined."""
    pivot = np.cross(start, end)
    if np.abs(start).sum() < 1e-6 or np.abs(pivot).sum() < 1e-6:
        return Rotation.identity()
    angle = np.arccos(np.clip(start @ end / np.linalg.norm(start) / np.linalg.norm(end), -1, 1))
    return Rotation.from_rotvec(angle * pivot / np.linalg.norm(pivot)) if angle >= 1e-6 else Rotation.identity()


def plain(clip, layout, frames):
    """Null frames, centre and rotation of one clip (3, T, V, M), by loops: (3, frames, V, M)."""
    total, bodies = clip.shape[1], clip.shape[3]
    out = np.zeros((bodies, frames, clip.shape[2], 3))
    for m in range(bodies):
        body = [clip[:, t, :, m].T.astype(float) for t in range(total)]
        if not body[0].any():
            body = [frame for frame in body if frame.any()]
        while body and not body[-1].any():
            body.pop()
        for t in range(frames if body else 0):
            out[m, t] = body[t % len(body)]
    absent = ~out.any(axis=-1)
    for t in range(frames):
        centre = out[0, t, layout.centre].copy()
        for m in range(bodies):
            for v in range(out.shape[2]):
                if not absent[m, t, v]:
                    out[m, t, v] -= centre
    for (start, end), axis in ((layout.spine, [0, 0, 1]), (layout.shoulders, [1, 0, 0])):
        turn = between(out[0, 0, end] - out[0, 0, start], np.array(axis, dtype=float))
        for m in range(bodies):
            for t in range(frames):
                out[m, t] = turn.apply(out[m, t])
    return out.transpose(3, 1, 2, 0)


def longest(clip):
    """Frames up to the last of the longest body, once late bodies are moved to the front."""
    present = clip.any(axis=(0, 2)).T  # (M, T)
    return max(
        int(there.sum()) if not there[0] else int(np.flatnonzero(there)[-1]) + 1 if there.any() else 0 for there in present
    )


def people(rng, clips, total, layout, bodies=2):
    """Random clips (N, 3, T, V, M): standing people about 3 m away."""
    base = rng.normal(size=(clips, 3, 1, layout.num_joints, bodies)) * 0.4 + np.array([0.2, 0.1, 3]).reshape(3, 1, 1, 1)
    return (base + rng.normal(size=(clips, 3, total, layout.num_joints, bodies)) * 0.1).astype(np.float32)


def ragged(seed, layout=NTU, clips=24, total=40, bodies=2):
    """Clips whose bodies come late, leave early, are away in between or altogether, or lack a joint."""
    rng = np.random.default_rng(seed)
    out, lengths = people(rng, clips, total, layout, bodies), rng.integers(1, total + 1, size=clips)
    for clip, length in zip(out, lengths, strict=True):
        clip[:, length:] = 0
        for m in range(bodies):
            start, end = (rng.integers(0, length), rng.integers(1, length + 1)) if rng.random() < 0.5 else (0, length)
            if rng.random() < 0.5:
                clip[:, :start, :, m] = 0
            if rng.random() < 0.5:
                clip[:, end:, :, m] = 0
            if rng.random() < 0.4:
                clip[:, rng.random(total) < 0.2, :, m] = 0
            if rng.random() < 0.2:
                clip[..., m] = 0
            if rng.random() < 0.3:
                clip[:, rng.integers(0, total), rng.integers(0, layout.num_joints), m] = 0
    return out, lengths


@pytest.mark.parametrize(("name", "bodies"), [("ntu", 2), ("ntu", 3), ("utd-mhad", 1), ("kinect-v1", 2)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_plain_one(name, bodies, seed):
    layout = get_layout(name)
    clips, lengths = ragged(seed, layout, bodies=bodies)
    before = clips.copy()
    to_50, _ = normalise_view(clips, lengths, layout, frames=50)
    own, own_lengths = normalise_view(clips, lengths, layout)
    np.testing.assert_array_equal(clips, before)
    assert own.shape == clips.shape
    assert own.dtype == np.float32
    for k, clip in enumerate(clips):
        expected = plain(clip[:, : lengths[k]], layout, 50)
        np.testing.assert_allclose(to_50[k], expected, atol=2e-6)
        assert own_lengths[k] == longest(clip)
        np.testing.assert_allclose(own[k, :, : own_lengths[k]], expected[:, : own_lengths[k]], atol=2e-6)
        assert not own[k, :, own_lengths[k] :].any()
        np.testing.assert_array_equal((to_50[k] != 0).any(axis=(0, 2)), (expected != 0).any(axis=(0, 2)))


def test_golden(bench_data, golden, tmp_path):
    """The three real clips after the published reading and normalisation, by both ways to 300 frames."""
    with ClipWriter(tmp_path / "s", NTU, {}) as writer:
        NTU60().read(bench_data / "NTU-RGBD-samples", writer, lambda done, total: None)
    store = ClipStore.open(tmp_path / "s")
    clips = np.zeros((3, 3, store.lengths.max(), 25, 2), np.float32)
    for k, clip in enumerate(store):
        clips[k, :, : clip.shape[1], :, : clip.shape[3]] = clip
    exact, _ = normalise_view(clips, store.lengths, NTU, frames=300)
    own, lengths = normalise_view(clips, store.lengths, NTU)
    repeated = pad_cyclic(own, lengths, 300)
    with np.load(golden / "ntu_normalised.npz", allow_pickle=False) as published:
        order = [published["names"].tolist().index(f"{name}.skeleton") for name in store.labels["clip"]]
        expected = published["clips"][order]
    assert expected.dtype == exact.dtype == np.float32
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(repeated, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(exact == 0, expected == 0)


def test_properties():
    clips, lengths = people(np.random.default_rng(0), 5, 30, NTU), np.full(5, 30)
    clips[1, ..., 1] = 0
    out, _ = normalise_view(clips, lengths, NTU)
    assert not out[1, ..., 1].any()
    assert not out[:, :, :, NTU.centre, 0].any()  # the centre stays at the origin
    left, right = (out[:, :, 0, j, 0] for j in NTU.shoulders)
    direction = right - left
    np.testing.assert_allclose(
        direction / np.linalg.norm(direction, axis=1, keepdims=True), np.tile([1, 0, 0], (5, 1)), atol=1e-6
    )
    for child, parent in NTU.bones:  # lengths stay: that is the leak
        before = np.linalg.norm(clips[:, :, :, child, 0] - clips[:, :, :, parent, 0], axis=1)
        np.testing.assert_allclose(np.linalg.norm(out[:, :, :, child, 0] - out[:, :, :, parent, 0], axis=1), before, atol=1e-5)
    # Handedness stays, too: a rotation, not a reflection.
    sides = [np.linalg.det((c[:, :, 0, 1:4, 0] - c[:, :, 0, :1, 0]).astype(float)) for c in (clips, out)]
    np.testing.assert_allclose(sides[0], sides[1], rtol=1e-4)
    # A clip does not depend on its batch, to the last bit.
    alone, _ = normalise_view(clips[3:4, :, :17], lengths[:1] - 13, NTU)
    np.testing.assert_array_equal(normalise_view(clips, lengths - 13, NTU)[0][3, :, :17], alone[0])


def test_empty_frames_and_clips():
    rng = np.random.default_rng(1)
    clips = people(rng, 4, 10, NTU)
    clips[0] = 0  # nobody
    clips[1, :, :3] = 0  # nobody at first
    clips[2, :, 8:] = 0  # nobody at last
    clips[3, :, 4:6] = 0  # nobody in between: stays empty
    out, lengths = normalise_view(clips, np.full(4, 10), NTU)
    assert lengths.tolist() == [0, 7, 8, 10]
    assert not out[0].any()
    np.testing.assert_array_equal(out[1, :, :7], normalise_view(clips[1:2, :, 3:], np.array([7]), NTU)[0][0])
    assert [frame.any() for frame in out[3].transpose(1, 0, 2, 3)] == [True] * 4 + [False] * 2 + [True] * 4
    assert not pad_cyclic(out, lengths, 12)[0].any()
    assert np.isfinite(out).all()


def test_body_that_leaves_is_repeated():
    """Body 1 is there for 4 of 10 frames: frames 4.. show it again, centred where body 0 then is."""
    clips = people(np.random.default_rng(2), 1, 10, NTU)
    clips[0, :, 4:, :, 1] = 0
    repeated = clips.copy()
    repeated[0, ..., 1] = clips[0, ..., 1][:, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]]
    lengths = np.array([10])
    np.testing.assert_array_equal(normalise_view(clips, lengths, NTU)[0], normalise_view(repeated, lengths, NTU)[0])


@pytest.mark.parametrize("direction", [[0, 0, 0], [0, 0, 0.5], [0, 0, -0.5]])
def test_degenerate_spine_turns_nothing(direction):
    clip = people(np.random.default_rng(3), 1, 2, NTU)
    (bottom, top), (left, right) = NTU.spine, NTU.shoulders
    clip[0, :, 0, top, 0] = clip[0, :, 0, bottom, 0] + np.float32(direction)
    clip[0, :, 0, right, 0] = clip[0, :, 0, left, 0] + np.float32([0.5, 0, 0])
    out, _ = normalise_view(clip, np.array([2]), NTU)
    centred = clip - clip[:, :, :, NTU.centre : NTU.centre + 1, :1]
    np.testing.assert_allclose(out, centred, atol=1e-6)


@pytest.mark.parametrize("direction", [[0, 0, 0], [0.4, 0, 0], [-0.4, 0, 0]])
def test_degenerate_shoulders_turn_nothing(direction):
    """The spine is upright already; shoulders at one place, along the first axis or exactly against it."""
    clip = people(np.random.default_rng(4), 1, 2, NTU)
    (bottom, top), (left, right) = NTU.spine, NTU.shoulders
    clip[0, :, 0, top, 0] = clip[0, :, 0, bottom, 0] + np.float32([0, 0, 0.5])
    clip[0, :, 0, right, 0] = clip[0, :, 0, left, 0] + np.float32(direction)
    out, _ = normalise_view(clip, np.array([2]), NTU)
    centred = clip - clip[:, :, :, NTU.centre : NTU.centre + 1, :1]
    np.testing.assert_allclose(out, centred, atol=1e-6)


def test_pad_cyclic():
    clips = np.arange(2 * 3 * 4).reshape(2, 1, 4, 3, 1).repeat(3, axis=1).astype(np.float32)
    out = pad_cyclic(clips, np.array([3, 4]), frames=8)
    np.testing.assert_array_equal(out[0], clips[0][:, [0, 1, 2, 0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(out[1], clips[1][:, [0, 1, 2, 3, 0, 1, 2, 3]])
    np.testing.assert_array_equal(pad_cyclic(clips, np.array([3, 4]), frames=2), clips[:, :, :2])


@pytest.mark.parametrize(
    ("clips", "lengths", "frames", "message"),
    [
        (np.ones((2, 3, 5, 20, 1)), [5, 5], None, r"expected clips of shape \(N, 3, T, 25, M\), got \(2, 3, 5, 20, 1\)"),
        (np.ones((3, 5, 25, 1)), [5], None, "expected clips of shape"),
        (np.ones((2, 3, 5, 25, 1)), [5], None, "expected 2 lengths"),
        (np.ones((2, 3, 5, 25, 1)), [5, 6], None, r"lengths must be in 1\.\.5, got 6"),
        (np.ones((2, 3, 5, 25, 1)), [0, 5], None, r"lengths must be in 1\.\.5, got 0"),
        (np.ones((2, 3, 5, 25, 1)), [5, 5], 4, "5 frames, which do not fit into 4"),
    ],
)
def test_refuses_wrong_shapes(clips, lengths, frames, message):
    with pytest.raises(ValueError, match=message):
        normalise_view(clips, np.array(lengths), NTU, frames)


def test_no_clips():
    out, lengths = normalise_view(np.zeros((0, 3, 5, 25, 2), np.float32), np.zeros(0), NTU)
    assert out.shape == (0, 3, 5, 25, 2)
    assert lengths.shape == (0,)


def make_store(path, clips, lengths):
    with ClipWriter(path, NTU, {"frame_rate": 30.0}) as writer:
        for k, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
            more = {"gender": "FM"[k % 2] if k % 3 else "", "camera": k % 3 + 1}
            writer.add(clip[:, :length], {"clip": f"c{k}", "action": k % 4 + 1, "subject": 7, "performance": f"00{k}", **more})
    return ClipStore.open(path)


def normalised(store, path, method="view"):
    with ClipWriter(path, NTU, {"frame_rate": 30.0}) as writer:
        normalise_store(store, writer, method)
    return ClipStore.open(path)


def test_store(tmp_path):
    clips, lengths = ragged(5)
    somebody = np.array([clip[:, :length].any() for clip, length in zip(clips, lengths, strict=True)])
    clips, lengths = clips[somebody], lengths[somebody]
    store = make_store(tmp_path / "raw", clips, lengths)
    out = normalised(store, tmp_path / "view")
    assert normalised(store, tmp_path / "none", "none").fingerprint == store.fingerprint
    assert out.labels.equals(store.labels)
    assert out.labels["gender"].isna().any()
    expected, new_lengths = normalise_view(clips, lengths, NTU)
    assert out.lengths.tolist() == new_lengths.tolist()
    for k, clip in enumerate(out):
        np.testing.assert_array_equal(clip, expected[k, :, : new_lengths[k], :, : clip.shape[3]])
    assert normalisation.VERSION >= 1


def test_store_unknown_method(tmp_path):
    store = make_store(tmp_path / "raw", *ragged(6, clips=3))
    with pytest.raises(ValueError, match="must be one of view, none, got 'views'"):
        normalised(store, tmp_path / "out", "views")
    assert not (tmp_path / "out").exists()


def test_store_memory_is_flat(tmp_path):
    peaks = []
    for count in (40, 320):
        clips = people(np.random.default_rng(7), count, 90, NTU, bodies=1)
        store = make_store(tmp_path / f"raw{count}", clips, np.full(count, 90))
        len(store.labels)  # the table is small, but pandas is not
        del clips
        tracemalloc.start()
        normalised(store, tmp_path / f"out{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 280 * 90 * 3 * 25 * 4 / 10  # a tenth of what there is more to hold
