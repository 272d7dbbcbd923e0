"""Masking by explanation, and deep retargeting: their parts against cases made by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from anonymizers.deep_retargeting import _schedule
from anonymizers.masking import ExplainMask, attribution
from anonymizers.networks.retargeting import FRAMES
from anonymizers.retargeting_training import Retargeter, _end_effectors, _find_quadruplets, _smoothness, body_windows
from bench.files import UserError
from bench.skeleton import get_layout
from tests.anonymizers.samples import batch_of, noise_clips
from tests.anonymizers.test_contract import make_clips, make_examples


def test_attribution_is_gradient_times_input():
    clips = noise_clips(2, 4)
    weight = torch.randn(3, 25, generator=torch.Generator().manual_seed(1))

    def model(x):
        return torch.stack([(x[:, :, 0, :, 0] * weight).sum(dim=(1, 2)), x.sum(dim=(1, 2, 3, 4)) * 0], dim=1)

    found = attribution(model, clips, torch.tensor([0, 1]))  # the second clip's right logit reads nothing
    assert torch.allclose(found, (clips[0, :, 0, :, 0] * weight).abs().sum(dim=0), atol=1e-5)


def test_masked_joints_are_at_the_origin_or_noisy_and_the_others_as_they_were():
    examples = make_examples(make_clips())
    fitted = ExplainMask(k=3).fit(examples)
    joints = fitted.state["joints"]
    assert len(fitted.info["masked"]) == 3
    assert sum(fitted.info["private"]) == pytest.approx(1)
    batch = batch_of(noise_clips(3, 20))
    zeroed = ExplainMask(k=3).transform(batch, fitted.state)
    noisy = ExplainMask(k=3, how="noise").transform(batch, fitted.state)
    others = [j for j in range(25) if j not in joints.tolist()]
    assert not zeroed[:, :, :, joints].any()
    assert torch.equal(zeroed[:, :, :, others], batch.clips[:, :, :, others])
    assert torch.equal(noisy[:, :, :, others], batch.clips[:, :, :, others])
    assert not torch.equal(noisy[:, :, :, joints[:1]], batch.clips[:, :, :, joints[:1]])


def test_more_joints_than_there_are_cannot_be_masked():
    with pytest.raises(UserError, match="only 25 joints"):
        ExplainMask(k=26).fit(make_examples(make_clips()))


@pytest.mark.parametrize("length", [1, 60, 75, 76, 90, 91, 135, 136, 300])
def test_windows_cover_every_frame_with_weights_that_add_up_to_one(length):
    total = torch.zeros(length)
    for start, which, weight in _schedule(torch.tensor([length])):
        assert which.tolist() == [0]
        stop = min(start + FRAMES, length)
        total[start:stop] += weight[0, : stop - start]
    assert torch.allclose(total, torch.ones(length), atol=1e-6)


def test_windows_hold_the_last_pose_and_are_about_the_centre():
    batch = batch_of(noise_clips(2, 80), [80, 30])
    windows, owners = body_windows(batch, torch.tensor([0, 1]), 0)
    centre = batch.layout.centre
    assert owners.tolist() == [0, 1]
    assert not windows[:, :, centre].any()
    expected = (batch.clips[1, :, 29] - batch.clips[1, :, 29, centre : centre + 1])[..., 0].T
    assert torch.equal(windows[1, 29:], expected.expand(FRAMES - 29, -1, -1))


def test_quadruplets_are_two_people_in_two_actions_of_one_group():
    people, actions = torch.tensor([0, 0, 1, 1, 0, 1, 2]), torch.tensor([0, 1, 0, 1, 0, 1, 0])
    groups = np.array([0, 0, 0, 0, 1, 1, 1])
    found = _find_quadruplets(people, actions, groups, torch.Generator().manual_seed(0))
    assert len(found)
    for x1, x2, y1, y2 in found.tolist():
        assert groups[[x1, x2, y1, y2]].max() == 0  # the other group has no such people
        assert (people[y1], actions[y1]) == (people[x2], actions[x1])
        assert (people[y2], actions[y2]) == (people[x1], actions[x2])
        assert people[x1] != people[x2]
        assert actions[x1] != actions[x2]


def test_without_two_people_in_two_actions_there_is_nothing_to_retarget():
    examples = make_examples(make_clips())
    part = dataclasses.replace(examples.parts["action"], subjects=np.zeros(12, dtype=int))
    lonely = dataclasses.replace(examples, parts={**examples.parts, "action": part})
    with pytest.raises(UserError, match="two people"):
        Retargeter(lonely, adversaries=False).train()


def test_end_effectors_of_ntu_are_the_published_ones():
    layout = get_layout("ntu")
    joints, chains = _end_effectors(layout)
    assert sorted(j + 1 for j in joints) == [4, 16, 20, 22, 23, 24, 25]
    published = {20: 5, 16: 5, 24: 8, 25: 8, 22: 8, 23: 8, 4: 5}  # joints from 1
    assert {joint + 1: int(length) for joint, length in zip(joints, chains, strict=True)} == published


def test_a_perfect_window_is_smooth_and_its_ends_are_right():
    retargeter = Retargeter(make_examples(make_clips()), adversaries=False)
    z = torch.randn(4, FRAMES, 25, 3)
    assert float(_smoothness(z, z)) == pytest.approx(0, abs=1e-6)
    assert float(retargeter._end_effector_error(z, z)) == 0
    assert float(_smoothness(z * 1.1, z)) > 0
    assert float(retargeter._end_effector_error(z * 1.1, z)) > 0


def test_a_window_is_reconstructed_better_after_training():
    examples = make_examples(make_clips())
    preset = dataclasses.replace(examples.preset, attack=dataclasses.replace(examples.preset.attack, most_steps=20, batch=6))
    retargeter = Retargeter(dataclasses.replace(examples, preset=preset), adversaries=True)
    retargeter.train()
    z = retargeter._windows(torch.arange(12))
    made = retargeter.decoder(retargeter.motion(z), retargeter.privacy(z)).detach()
    assert float((made - z).square().mean()) < 0.9 * float(z.square().mean())
