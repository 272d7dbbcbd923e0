"""Perturbations against closed forms, scipy and cases made by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.signal import savgol_filter
from scipy.stats import kstest

from anonymizers.gait import AmplitudeEqualise, FrequencyEqualise, fit_sinusoids
from anonymizers.noise import LaplaceDP, laplace
from anonymizers.spatial import height
from bench.registry import ANONYMIZERS
from bench.specs import parse_spec
from tests.anonymizers.samples import batch_of, clip_set, noise_clips


def released(spec, batch, state=None):
    return parse_spec(spec, ANONYMIZERS).value.transform(batch, state or {})


@pytest.mark.parametrize("name", ["gauss", "gauss-static"])
def test_gaussian_noise_has_the_standard_deviation_that_it_says(name):
    batch = batch_of(noise_clips(200 if name == "gauss-static" else 20))
    moved = released(f"{name}:std=0.2", batch) - batch.clips
    assert float(moved.std()) == pytest.approx(0.2, rel=0.03)
    assert float(moved.mean()) == pytest.approx(0, abs=0.01)
    assert not (released(f"{name}:std=0", batch) - batch.clips).any()
    still = bool(torch.allclose(moved.std(dim=2), torch.zeros(()), atol=1e-6))
    assert still == (name == "gauss-static")


def test_laplace_noise_follows_the_laplace_distribution():
    drawn = laplace(torch.rand(20000, generator=torch.Generator().manual_seed(0)))
    assert kstest(drawn.numpy(), "laplace").pvalue > 0.01
    assert torch.isfinite(laplace(torch.tensor([0.0, 1 - 2**-24]))).all()


def test_laplace_dp_clips_and_scales_by_the_sensitivity_of_a_whole_frame():
    batch = batch_of(torch.full((50, 3, 20, 25, 1), 9.0))
    moved = released("laplace-dp:epsilon=1000,bound=1.5", batch) - 1.5
    assert float(moved.abs().mean()) == pytest.approx(2 * 1.5 * 75 / 1000, rel=0.03)  # the mean of |Laplace| is its scale


def test_laplace_dp_states_the_budget_of_a_whole_clip():
    from tests.anonymizers.test_contract import make_clips, make_examples

    info = LaplaceDP(epsilon=10.0).fit(make_examples(make_clips())).info
    assert info == {"epsilon_per_frame": 10.0, "epsilon_of_longest_clip": 600.0}  # 30 frames of two bodies
    longer = dataclasses.replace(make_examples(make_clips()), release_frames=100)  # a clip that may not be learnt from
    assert LaplaceDP(epsilon=10.0).fit(longer).info["epsilon_of_longest_clip"] == 1000.0


def test_smoothing_is_a_moving_average_that_leaves_absent_frames_out():
    clips = noise_clips(2, 30)
    clips[0, :, 10] = 0
    batch = batch_of(clips, [30, 17])
    out = released("smooth:window=5", batch)
    assert torch.allclose(out[0, :, 20], clips[0, :, 18:23].mean(dim=1), atol=1e-6)
    assert torch.allclose(out[0, :, 11], clips[0, :, [9, 11, 12, 13]].mean(dim=1), atol=1e-6)
    assert torch.allclose(out[1, :, 16], clips[1, :, 14:17].mean(dim=1), atol=1e-6)  # the clip ends there
    assert not out[0, :, 10].any()
    assert torch.equal(released("smooth:window=4", batch), out)


def test_savgol_agrees_with_scipy():
    clips = noise_clips(2, 50)
    clips[0, 0, 7, 3] = 5  # an outlier
    out = released("smooth:window=9,method=savgol", batch_of(clips))
    expected = savgol_filter(clips.numpy(), 9, 2, axis=2)
    np.testing.assert_allclose(out[:, :, 4:-4], expected[:, :, 4:-4], atol=1e-5)


def test_savgol_keeps_a_parabola_even_at_its_ends_and_over_gaps():
    time = torch.arange(20.0).view(1, 1, -1, 1, 1)
    clips = (0.01 * time**2 - 0.3 * time + 1).expand(1, 3, 20, 25, 1).clone()
    clips[:, :, 9] = 0
    out = released("smooth:window=7,method=savgol", batch_of(clips))
    assert torch.allclose(out, clips, atol=1e-5)


def test_downsampling_holds_or_joins_every_nth_frame():
    clips = noise_clips(1, 10)
    held = released("downsample:every=4", batch_of(clips))
    assert torch.equal(held[:, :, 5], clips[:, :, 4])
    assert torch.equal(held[:, :, 8], clips[:, :, 8])
    joined = released("downsample:every=4,fill=linear", batch_of(clips))
    assert torch.allclose(joined[:, :, 5], 0.75 * clips[:, :, 4] + 0.25 * clips[:, :, 8], atol=1e-6)
    assert torch.equal(joined[:, :, 9], clips[:, :, 8])  # no kept frame follows


def test_resampling_agrees_with_numpy_and_keeps_lines():
    clips = noise_clips(1, 31)
    out = released("resample:frames=7", batch_of(clips))[0, 1, :, 3, 0]
    knots = np.linspace(0, 30, 7)
    carried = np.interp(knots, np.arange(31), clips[0, 1, :, 3, 0].numpy())
    np.testing.assert_allclose(out, np.interp(np.arange(31), knots, carried), atol=1e-5)
    line = torch.arange(1.0, 13.0).view(1, 1, -1, 1, 1).expand(1, 3, 12, 25, 1)
    assert torch.allclose(released("resample:frames=5", batch_of(line)), line, atol=1e-5)


def test_trajectory_and_variation_add_up_to_the_clip():
    batch = batch_of(noise_clips(2, 20), [20, 13])
    for method in ("mean", "ends"):
        slow = released(f"remove-variation:half_window=2,method={method}", batch)
        fast = released(f"remove-trajectory:half_window=2,method={method}", batch)
        assert torch.allclose(slow + fast, batch.clips, atol=1e-6)
    assert torch.allclose(slow[0, :, 7], (batch.clips[0, :, 5] + batch.clips[0, :, 9]) / 2, atol=1e-6)


def test_motion_only_releases_differences_or_moves_a_template():
    clips = noise_clips(1, 8)
    state = {"pose": torch.ones(3, 25)}
    steps = released("motion-only", batch_of(clips), state)
    assert torch.equal(steps[:, :, 3], clips[:, :, 3] - clips[:, :, 2])
    assert torch.equal(steps[:, :, 0], steps[:, :, 1])
    late = clips.clone()
    late[:, :, :3] = 0
    entered = released("motion-only", batch_of(late), state)
    assert not entered[:, :, :3].any()
    assert torch.equal(entered[:, :, 3], clips[:, :, 4] - clips[:, :, 3])  # its first difference
    assert torch.equal(entered[:, :, 4:], steps[:, :, 4:])
    moved = released("motion-only:method=template", batch_of(clips), state)
    assert torch.allclose(moved[:, :, 5], 1 + clips[:, :, 5] - clips[:, :, 0], atol=1e-6)


def test_static_poses():
    clips = noise_clips(2, 9)
    batch = batch_of(clips, [9, 5])
    assert torch.allclose(released("static-pose", batch)[1, :, 4], clips[1, :, :5].mean(dim=1), atol=1e-6)
    assert torch.equal(released("static-pose:pose=first", batch)[1, :, 4], clips[1, :, 0])


def test_coarsening_splits_coordinates_into_coarse_and_fine_digits():
    batch = batch_of(noise_clips())
    coarse = released("coarsen-macro:step=0.05", batch)
    assert float((coarse - batch.clips).abs().max()) <= 0.025 + 1e-6
    assert float((coarse / 0.05 - (coarse / 0.05).round()).abs().max()) < 1e-4
    fine = released("coarsen-micro:step=0.1", batch)
    assert fine.min() >= 0
    assert fine.max() <= 0.1
    assert float(((batch.clips - fine) / 0.1 - ((batch.clips - fine) / 0.1).round()).abs().max()) < 1e-3


@pytest.mark.parametrize("layout", ["ntu", "utd-mhad", "kinect-v1"])
def test_parts_are_dropped_or_kept(layout):
    batch = batch_of(noise_clips(layout=layout), layout=layout)
    for part in ("head", "torso", "hips", "left-arm", "right-leg"):
        dropped, kept = (released(f"{verb}-part:part={part}", batch) for verb in ("drop", "keep"))
        assert torch.equal(dropped + kept, batch.clips)
        assert kept.any()
        assert dropped.any()
    hips = released("keep-part:part=hips", batch).any(dim=1).any(dim=1)[0, :, 0].nonzero()[:, 0].tolist()
    assert hips == sorted({batch.layout.root, batch.layout.index("left hip"), batch.layout.index("right hip")})


def test_normalised_bodies_have_one_height_extent_or_spread():
    batch = batch_of(noise_clips(4, 30), [30, 30, 11, 4])
    tall = released("normalise:size=1.7", batch)
    assert torch.allclose(height(batch_of(tall, [30, 30, 11, 4])), torch.tensor(1.7), atol=1e-4)
    wide = released("normalise:mode=axis,size=2", batch)
    for clip, length in zip(wide, (30, 30, 11, 4), strict=True):
        extent = clip[:, :length].amax(dim=(1, 2)) - clip[:, :length].amin(dim=(1, 2))
        assert torch.allclose(extent, torch.tensor(2.0), atol=1e-4)
    scores = released("normalise:mode=zscore,size=10", batch)
    assert torch.allclose(scores[2, :, :11].std(dim=1, unbiased=False), torch.tensor(1.0), atol=1e-4)
    assert torch.allclose(scores[2, :, :11].mean(dim=1), torch.tensor(0.0), atol=1e-5)


def walker(frequency, amplitude, frames=90):
    """A pose that swings along one direction as a sinusoid."""
    time = torch.arange(frames) / 30
    pose, along = torch.randn(2, 75, generator=torch.Generator().manual_seed(3))
    along = along / along.norm()
    poses = pose + amplitude * torch.sin(2 * math.pi * frequency * time + 0.4)[:, None] * along
    return poses.view(frames, 3, 25).permute(1, 0, 2)[None, ..., None], along


def test_sinusoids_find_amplitude_and_frequency_of_a_pendulum():
    clips, along = walker(1.3, 0.25)
    batch = batch_of(clips)
    found = fit_sinusoids(batch.clips, batch.present, 30.0)
    assert float(found.frequency[0, 0]) == pytest.approx(1.3, abs=0.03)
    assert float(found.amplitude[0, 0]) == pytest.approx(0.25, abs=0.01)
    assert float(found.amplitude[0, 1:].max()) < 1e-4
    assert float((found.axes[0, 0].float() @ along).abs()) == pytest.approx(1, abs=1e-3)
    poses = found.poses(90, 30.0)[0].float().view(90, 3, 25).permute(1, 0, 2)
    assert float((poses - clips[0, ..., 0]).abs().max()) < 0.02


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_bodies_there_for_a_moment_only_stay_at_their_mean(frames):
    clips = noise_clips(1, frames)
    group = {"amplitude": torch.ones(4), "frequency": torch.ones(4)}
    out = AmplitudeEqualise().transform(batch_of(clips), group)
    assert torch.allclose(out, clips.mean(dim=2, keepdim=True).expand_as(clips), atol=1e-5)


def test_walkers_get_the_groups_amplitude_or_frequency():
    slow, fast = walker(1.0, 0.1)[0], walker(2.0, 0.3)[0]
    from bench.anonymizer import Examples

    examples = Examples(clip_set(torch.cat([slow, fast])), {}, None, 0)
    for method, expected in ((AmplitudeEqualise(), (0.2, 1.0)), (FrequencyEqualise(), (0.1, 1.5))):
        batch = batch_of(slow)
        out = batch_of(method.transform(batch, method.fit(examples).state))
        found = fit_sinusoids(out.clips, out.present, 30.0)
        assert float(found.amplitude[0, 0]) == pytest.approx(expected[0], rel=0.1)
        assert float(found.frequency[0, 0]) == pytest.approx(expected[1], abs=0.11)
