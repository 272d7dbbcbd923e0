"""Features of posture and movement, against closed forms."""

import numpy as np
import pytest
import torch

from attackers.movement import direction_features, flat_features, stats_features
from bench.skeleton import get_layout

LAYOUT = get_layout("kinect-v1")
BONE = {child: i for i, (child, _) in enumerate(LAYOUT.bones)}
EVERY = {
    "flat": flat_features,
    "stats": lambda clips: stats_features(clips, 30.0),
    "directions": lambda clips: direction_features(clips, LAYOUT, 30.0),
}
every_feature = pytest.mark.parametrize("features", EVERY.values(), ids=EVERY)


def walk(frames, seed=0, clips=3):
    """Smooth random clips (N, 3, T, 20, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((clips, 3, frames, 20, 1), generator=generator).cumsum(dim=2) * 0.02 + torch.arange(20)[:, None] * 0.1


@every_feature
def test_padding_and_other_bodies_change_nothing(features):
    clips = walk(40)
    padded = torch.cat([clips, torch.zeros(3, 3, 17, 20, 1)], dim=2)
    crowd = torch.cat([padded, walk(57, seed=1)], dim=4)
    assert torch.allclose(features(padded), features(clips), atol=2e-5)
    assert torch.equal(features(crowd), features(padded))


@every_feature
def test_a_body_that_never_moves_looks_the_same_for_any_number_of_frames(features):
    pose = torch.randn((1, 3, 1, 20, 1), generator=torch.Generator().manual_seed(0))
    clips = torch.zeros(5, 3, 97, 20, 1)
    for clip, frames in zip(clips, (1, 2, 7, 40, 97), strict=True):
        clip[:, :frames] = pose[0]
    found = features(clips)
    assert torch.equal(found, found[:1].expand_as(found))


@every_feature
def test_no_body_one_frame_and_gaps_give_finite_numbers(features):
    clips = torch.zeros(4, 3, 9, 20, 1)
    clips[1, :, 3] = 1.0
    clips[2, :, ::4] = walk(3)[0]
    clips[3] = walk(9)[0]
    clips[3, :, :, 4] = 0  # a joint that is never seen
    assert torch.isfinite(features(clips)).all()
    assert torch.isfinite(features(clips[:, :, :1])).all()


def test_flat_features_interpolate_between_the_first_and_the_last_frame():
    clips = torch.zeros(2, 3, 8, 20, 1)
    clips[0, 0, :, 0, 0] = torch.tensor([10.0, 11, 0, 13, 14, 15, 0, 0])  # frame 2 has no body, nor have the last two
    clips[1, 0, 3, 0, 0] = 5.0
    flat = flat_features(clips, frames=11).view(2, 11, 20, 3)
    assert flat[0, :, 0, 0].tolist() == [10.0 + 0.5 * k for k in range(11)]
    assert flat[1, :, 0, 0].tolist() == [5.0] * 11
    assert not flat[:, :, 1:].any()


@pytest.mark.parametrize("frame_rate", [30.0, 15.0])
def test_stats_by_hand_in_metres_and_seconds(frame_rate):
    """Joint 0 falls by g/2 t^2, joint 1 swings at 2 Hz: speeds, accelerations and frequencies do not hang on the frame rate."""
    seconds = torch.arange(int(4 * frame_rate), dtype=torch.float64) / frame_rate
    clips = torch.zeros(1, 3, len(seconds), 20, 1, dtype=torch.float64)
    clips[0, 1, :, 0, 0] = -4.9 * seconds**2
    clips[0, 0, :, 1, 0] = 1 + 0.1 * torch.sin(2 * torch.pi * 2 * seconds)
    sizes = {"mean": 60, "deviation": 60, "range": 60, "speed": 80, "acceleration": 80, "hertz": 20}
    found = dict(zip(sizes, stats_features(clips, frame_rate)[0].split(list(sizes.values())), strict=True))
    by_joint = {name: values.view(-1, 20) for name, values in found.items() if name in ("speed", "acceleration")}
    assert by_joint["acceleration"][:, 0].tolist() == pytest.approx([9.8] * 4, abs=1e-4)
    falling = 9.8 * (seconds[:-1] + 0.5 / frame_rate)
    assert by_joint["speed"][:, 0].tolist() == pytest.approx(np.quantile(falling, [0.25, 0.5, 0.75, 0.95]), abs=1e-4)
    assert found["hertz"][1] == 2.0
    assert not found["hertz"][2:].any()
    x = clips[0, 0, :, 1, 0].numpy()
    assert [found[name][3].item() for name in ("mean", "deviation", "range")] == pytest.approx(
        [x.mean(), x.std(), np.ptp(x)], abs=1e-5
    )


def rebuilt(clips, scale, shift):
    """The same bone directions on a body with other bone lengths, somewhere else."""
    body = clips[..., 0].double()
    out = torch.zeros_like(body)
    for joint in LAYOUT.order:
        parent = LAYOUT.parents[joint]
        if joint == parent:
            out[:, :, :, joint] = body[:, :, :, joint] + shift
        else:
            out[:, :, :, joint] = out[:, :, :, parent] + scale[joint] * (body[:, :, :, joint] - body[:, :, :, parent])
    return out[..., None]


def test_directions_know_neither_bone_lengths_nor_place():
    clips = walk(50).double()
    scale = torch.linspace(0.3, 3.0, 20, dtype=torch.float64)
    moved = rebuilt(clips, scale, torch.randn(3, 3, 50, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    assert not torch.allclose(stats_features(moved, 30.0), stats_features(clips, 30.0), atol=0.1)
    assert torch.allclose(direction_features(moved, LAYOUT, 30.0), direction_features(clips, LAYOUT, 30.0), atol=2e-5)


def forearm(angle):
    """A clip in which everything hangs straight down, but the left forearm at an angle (T,) in radians to the front."""
    clips = torch.zeros(1, 3, len(angle), 20, 1, dtype=torch.float64)
    way = torch.stack([torch.zeros_like(angle), -torch.cos(angle), torch.sin(angle)])
    down = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)[:, None]
    bent = {LAYOUT.index("left wrist"), LAYOUT.index("left hand")}
    for joint in LAYOUT.order[1:]:
        clips[0, :, :, joint, 0] = clips[0, :, :, LAYOUT.parents[joint], 0] + 0.3 * (way if joint in bent else down)
    return clips


def split(features):
    """Groups of one clip's direction features, one row a number and one column a bone."""
    pairs = sum(parent in BONE for _, parent in LAYOUT.bones)
    mean, deviation, bends, speed, swing = features[0].split([57, 57, 3 * pairs, 57, 6 * 19])
    return mean.view(19, 3).T, deviation.view(19, 3).T, bends.view(3, pairs), speed.view(3, 19), swing.view(6, 19)


FOREARM = BONE[LAYOUT.index("left wrist")]


@pytest.mark.parametrize("frame_rate", [30.0, 60.0])
def test_a_forearm_that_turns_steadily_by_hand(frame_rate):
    seconds = torch.arange(int(2 * frame_rate), dtype=torch.float64) / frame_rate
    mean, deviation, bends, speed, _ = split(direction_features(forearm(1.5 * seconds), LAYOUT, frame_rate))
    assert speed[1, FOREARM].item() == pytest.approx(1.5, abs=1e-3)
    assert speed[1].count_nonzero() == 2  # forearm and hand
    assert deviation.count_nonzero() == 4
    middle = [0, -np.sin(3) / 3, (1 - np.cos(3)) / 3]  # mean of the direction over 0 to 3 rad
    assert mean[:, FOREARM].tolist() == pytest.approx(middle, abs=0.02)
    assert bends[1].max().item() == pytest.approx(1.5, abs=0.03)
    assert bends.count_nonzero() == 3


def test_a_forearm_that_swings_by_hand():
    """At 1 Hz, of which smoothing over 0.4 s leaves sin(0.4 pi) / (0.4 pi (1 - 0.4^2)) = 0.901."""
    seconds = torch.arange(300, dtype=torch.float64) / 30
    *_, swing = split(direction_features(forearm(0.05 * torch.sin(2 * torch.pi * seconds)), LAYOUT, 30.0))
    assert swing[1, FOREARM].item() == pytest.approx(0.05 * 0.901, rel=0.01)
    assert swing[[0, 2, 3, 4, 5], FOREARM].abs().max() < 0.001
