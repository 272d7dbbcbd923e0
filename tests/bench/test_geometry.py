"""Distances between poses: closed forms, and nothing where nobody is seen."""

import numpy as np
import pytest
import torch

from bench.metrics.geometry import MEASURES, fidelity
from bench.skeleton import get_layout

NTU = get_layout("ntu")
RATE = 20.0


def clip(frames=40, bodies=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, frames, 25, bodies, generator=generator, dtype=torch.float64) + 3


def still(frames=40):
    """Somebody who sways by millimetres."""
    return clip(1).expand(-1, -1, frames, -1, -1) + 0.0005 * clip(frames, seed=1)


def measured(raw, released):
    return dict(zip(MEASURES, fidelity(raw, released, NTU, RATE)[0].tolist(), strict=True))


def test_an_unchanged_clip():
    assert measured(still(), still()) == {**dict.fromkeys(MEASURES, 0), "jerk_ratio": 1}


def test_a_body_that_stands_elsewhere_is_the_same_pose():
    found = measured(still(), still() + torch.tensor([1.0, 2.0, 3.0])[:, None, None, None])
    assert found == pytest.approx({**dict.fromkeys(MEASURES, 0), "jerk_ratio": 1}, abs=1e-9)


def test_a_larger_body():
    """Lengths, speeds and jerks grow by a tenth; a constant body has lengths of a constant difference."""
    raw = clip(1).expand(-1, -1, 40, -1, -1) + torch.linspace(0, 1, 40).pow(2)[:, None, None]
    found = measured(raw, 1.1 * raw)
    child, parent = np.array(NTU.bones).T
    pose = raw[0, :, 0, :, 0].numpy()
    bones = np.linalg.norm(pose[:, child] - pose[:, parent], axis=0)
    assert found["bone_error"] == pytest.approx(0.1 * bones.mean())
    assert found["bone_spread"] == pytest.approx(0, abs=1e-6)
    assert found["mpjpe"] == pytest.approx(0.1 * np.linalg.norm(pose - pose[:, [NTU.root]], axis=0).mean())
    step = np.diff(np.linspace(0, 1, 40) ** 2)
    assert found["velocity_error"] == pytest.approx(0.1 * np.sqrt(3) * step.mean() * RATE, rel=1e-5)
    assert found["acceleration_error"] == pytest.approx(0.1 * np.sqrt(3) * np.diff(step).mean() * RATE**2, rel=1e-3)


def test_noise_shakes_and_stretches_bones_by_turns():
    raw = torch.zeros(1, 3, 40, 25, 1, dtype=torch.float64)
    raw[:, 1] = torch.arange(25.0)[:, None] + 1  # the bones lie along one axis
    raw += 0.01 * torch.linspace(0, 2, 40, dtype=torch.float64).pow(3)[:, None, None]
    sign = torch.tensor([1.0, -1.0]).repeat(20)[:, None]
    released = raw.clone()
    released[:, 1, :, 3] += 0.1 * sign  # the head, which one bone holds, up and down in every frame
    found = measured(raw, released)
    assert found["mpjpe"] == pytest.approx(0.1 / 25)
    assert found["bone_error"] == pytest.approx(0.1 / 24)
    assert found["bone_spread"] == pytest.approx(0.1 / 24)
    assert found["velocity_error"] == pytest.approx(0.2 * RATE / 25)
    assert found["acceleration_error"] == pytest.approx(0.4 * RATE**2 / 25)
    jerk = np.sqrt(3) * 0.01 * np.abs(np.diff(np.linspace(0, 2, 40) ** 3, 3)).mean()
    assert found["jerk_ratio"] == pytest.approx((24 * jerk + 0.8) / 25 / jerk, rel=0.01)


def test_feet_skate_where_the_raw_ones_stand():
    """One ankle stands for half the time and is released sliding at 1 m/s; what moves in the raw clip does not count."""
    raw = torch.zeros(1, 3, 21, 25, 1, dtype=torch.float64)
    raw[:, 1] = torch.arange(25.0)[:, None] + 1
    left, right = NTU.index("left ankle"), NTU.index("right ankle")
    raw[0, 0, :, right, 0] = torch.arange(21) * 2 / RATE  # 2 m/s throughout
    raw[0, 0, 11:, left, 0] = torch.arange(1, 11) * 2 / RATE  # from the eleventh step on
    released = raw.clone()
    released[0, 2, :, left, 0] = torch.arange(21) / RATE
    assert measured(raw, released)["foot_skate"] == pytest.approx(1.0)
    assert measured(raw, raw)["foot_skate"] == 0
    assert np.isnan(measured(2 * clip(), clip())["foot_skate"])  # nobody stands there


def test_only_what_both_show_counts():
    """A body that goes, and frames past the end, change nothing; nobody in common is nothing to compare."""
    raw, released = clip(bodies=2), clip(bodies=2, seed=1)
    raw[:, :, :, NTU.index("left ankle")] = 1.0  # one foot stands
    raw[:, :, 30:, :, 1] = 0
    released[:, :, :, :, 1] = 0
    raw[:, :, 35:] = released[:, :, 35:] = 0
    alone = fidelity(raw[:, :, :35, :, :1], released[:, :, :35, :, :1], NTU, RATE)
    torch.testing.assert_close(fidelity(raw, released, NTU, RATE), alone)
    assert fidelity(raw, torch.zeros_like(raw), NTU, RATE).isnan().all()
    short = fidelity(raw[:, :, :2], released[:, :, :2], NTU, RATE)
    assert short.isfinite().tolist() == [[True, True, True, True, False, False, True]]
