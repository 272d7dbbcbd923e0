import dataclasses

import numpy as np
import pytest
import torch

from bench.data.clips import ClipSet, fits, rotate_about_vertical
from bench.data.store import ClipStore, ClipWriter
from bench.skeleton import get_layout

LENGTHS, BODIES = (5, 9, 3), (1, 2, 1)


@pytest.fixture
def clips(tmp_path):
    """Three clips whose coordinates say where they come from: clip * 1000 + frame * 10 + body + 1."""
    layout = get_layout("kinect-v1")
    with ClipWriter(tmp_path / "store", layout, {"frame_rate": 30}) as writer:
        for i, (length, bodies) in enumerate(zip(LENGTHS, BODIES, strict=True)):
            frame, body = np.meshgrid(np.arange(length), np.arange(bodies), indexing="ij")
            value = (i * 1000 + frame * 10 + body + 1)[None, :, None, :]
            clip = np.broadcast_to(value, (3, length, 20, bodies)).astype(np.float32)
            writer.add(clip, {"clip": f"c{i}", "action": 1, "subject": 1, "performance": f"p{i}"})
    return ClipSet.from_store(ClipStore.open(tmp_path / "store"))


def test_whole_clips_are_padded_with_zeros(clips):
    whole = clips.whole(torch.arange(3))
    assert whole.shape == (3, 3, 9, 20, 2)
    assert whole[1, 0, :, 0, 1].tolist() == [1002 + 10 * t for t in range(9)]
    assert whole[0, 2, :, 7, 0].tolist() == [1, 11, 21, 31, 41, 0, 0, 0, 0]
    assert not whole[0, ..., 1].any()
    assert not whole[2, ..., 1].any()


def frames_of(windows, i):
    return ((windows[i, 0, :, 0, 0] - 1 - 1000 * i) / 10).tolist()


def test_middle_windows_by_hand(clips):
    every = torch.arange(3)
    assert frames_of(clips.windows(every, 3, "uniform"), 1) == [1, 4, 7]
    assert frames_of(clips.windows(every, 6, "uniform"), 2) == [0, 0, 1, 1, 2, 2]
    assert frames_of(clips.windows(every, 5, "window"), 1) == [2, 3, 4, 5, 6]
    assert frames_of(clips.windows(every, 5, "window"), 2) == [0, 1, 2, 0, 1]
    assert frames_of(clips.windows(every, 7, "cyclic"), 2) == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(ValueError, match="sampling must be one of uniform, window, cyclic, got 'all'"):
        clips.windows(every, 5, "all")


def test_random_windows_stay_in_the_clip_and_depend_on_the_generator_alone(clips):
    every = torch.arange(3).repeat(100)
    for sampling in ("uniform", "window"):
        draw = [clips.windows(every, 4, sampling, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
        assert torch.equal(draw[0], draw[1])
        assert not torch.equal(draw[0], draw[2])
        seen = {f for i in range(1, 300, 3) for f in ((draw[0][i, 0, :, 0, 0] - 1001) / 10).tolist()}
        assert seen == set(range(9))


def test_subset_shares_rows(clips):
    part = clips.subset(np.array([2, 0]))
    assert part.rows is clips.rows
    assert part.names.tolist() == ["c2", "c0"]
    assert torch.equal(part.whole(torch.tensor([1])), clips.whole(torch.tensor([0])))
    with pytest.raises(ValueError, match="expected rows of shape"):
        clips.with_rows(clips.rows[1:])


def test_rotation_keeps_lengths_height_and_absent_bodies(clips):
    batch = torch.randn(4, 3, 5, 20, 2)
    batch[..., 1] = 0
    turned = rotate_about_vertical(batch, 30, torch.Generator().manual_seed(0))
    assert torch.allclose(turned.norm(dim=1), batch.norm(dim=1), atol=1e-5)
    assert torch.allclose(turned[:, 2], batch[:, 2], atol=1e-6)
    assert not turned[..., 1].any()
    angle = torch.atan2(turned[:, 1], turned[:, 0])[..., 0] - torch.atan2(batch[:, 1], batch[:, 0])[..., 0]
    angle = torch.rad2deg((angle + torch.pi) % (2 * torch.pi) - torch.pi)
    assert torch.allclose(angle, angle[:, :1, :1].expand_as(angle), atol=1e-2)  # one angle a clip
    assert angle.abs().max() <= 30.1
    assert angle[:, 0, 0].std() > 1


def moving(layout, length=6, bodies=2):
    """Two clips of random joints; in the first, body 1 is away in frames 2 and 3."""
    rows = torch.randn((2, length, bodies, 3, layout.num_joints), generator=torch.Generator().manual_seed(0))
    rows[0, 2:4, 1] = 0
    index = torch.arange(2)
    names = np.array(["a", "b"], dtype=object)
    return ClipSet(
        rows.flatten(0, 2), index * length * bodies, index * 0 + length, index * 0 + bodies, names, layout, bodies, 30.0
    )


@pytest.mark.parametrize("name", ["ntu", "kinect-v1"])
def test_bones_add_up_to_joints(name):
    layout = get_layout(name)
    clips = moving(layout)
    joints, bone = (dataclasses.replace(clips, stream=stream).whole(torch.arange(2)) for stream in ("joint", "bone"))
    hangs = dict(layout.edges)
    root = next(joint for joint in range(layout.num_joints) if joint not in hangs)
    assert not bone[:, :, :, root].any()
    for joint in range(layout.num_joints):
        total, at = torch.zeros_like(bone[:, :, :, 0]), joint
        while at != root:
            total, at = total + bone[:, :, :, at], hangs[at]
        assert torch.allclose(total, joints[:, :, :, joint] - joints[:, :, :, root], atol=1e-5)
    assert not bone[0, :, 2:4, :, 1].any()


def test_motion_adds_up_to_the_way_and_ends_with_the_clip():
    clips = moving(get_layout("kinect-v1"))
    joints, motion = (dataclasses.replace(clips, stream=stream).whole(torch.arange(2)) for stream in ("joint", "joint-motion"))
    assert torch.allclose(motion[1].cumsum(1)[:, :-1], joints[1, :, 1:] - joints[1, :, :1], atol=1e-5)
    assert not motion[:, :, -1].any()
    assert not motion[0, :, 1:4, :, 1].any()  # the body goes, is away, and comes back: that is no movement
    assert motion[0, :, 0, :, 1].any()
    assert motion[0, :, 4, :, 1].any()
    bones_move = dataclasses.replace(clips, stream="bone-motion").whole(torch.arange(2))
    bone = dataclasses.replace(clips, stream="bone").whole(torch.arange(2))
    assert torch.allclose(bones_move[1, :, :-1], bone[1, :, 1:] - bone[1, :, :-1], atol=1e-5)


def test_motion_in_a_window_is_that_of_the_clip():
    """The last frame of a window moves on as well: what follows it in the clip is known."""
    clips = dataclasses.replace(moving(get_layout("kinect-v1")), stream="joint-motion")
    whole = clips.whole(torch.tensor([1]))
    assert torch.equal(clips.windows(torch.tensor([1]), 4, "window"), whole[:, :, 1:5])
    with pytest.raises(ValueError, match="stream must be one of joint, bone, joint-motion, bone-motion, got 'bones'"):
        dataclasses.replace(clips, stream="bones")


def test_rows_stay_where_they_are_if_a_gpu_has_no_room_for_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    gpu = torch.device("cuda", 0)
    assert fits(399, gpu)
    assert not fits(400, gpu)
    assert fits(10**12, torch.device("cpu"))
