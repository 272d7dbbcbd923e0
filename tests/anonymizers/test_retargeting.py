"""Bodies with other bones: exact on hand-made bodies, and what it takes from attackers."""

import numpy as np
import pytest
import torch

from anonymizers.kinematics import bone_directions, bone_vectors, hold, median_lengths, put_together
from anonymizers.retargeting import MeanSkeleton, ParameterDP, QuantiseBones, subject_lengths
from bench.anonymizer import Examples
from bench.files import UserError
from bench.protocols import Part
from bench.skeleton import get_layout
from tests.anonymizers.samples import batch_of, clip_set, noise_clips

LAYOUT = get_layout("ntu")


def people(sizes, clips_each=2, frames=12):
    """Clips of people whose bones are all `size` long, each moving in its own way, and what may be learnt from them."""
    subjects = np.repeat(np.arange(len(sizes)), clips_each)
    vectors = bone_directions(noise_clips(len(subjects), frames))
    lengths = torch.tensor(sizes)[subjects].view(-1, 1, 1, 1, 1)
    clips = put_together(torch.zeros(len(subjects), 3, frames, 1), vectors * lengths, LAYOUT)
    clips = clips - clips[:, :, :, LAYOUT.centre : LAYOUT.centre + 1]
    clips[:, :, :, LAYOUT.centre] = 0
    count = np.arange(len(subjects))
    part = Part("action", (0,), np.zeros_like(count), count, count[:0], count[:0], subjects, count)
    return clips, Examples(clip_set(clips), {"action": part}, None, 0)


def bones(clips):
    """(N, bones) median lengths, and the largest deviation from them over time."""
    lengths = bone_vectors(clips, LAYOUT).norm(dim=1)[:, :, [child for child, _ in LAYOUT.bones], 0]
    middle = lengths.median(dim=1).values
    return middle, float((lengths - middle[:, None]).abs().max())


def test_a_body_is_put_together_from_its_own_bones():
    clips = noise_clips(2, 9, bodies=2)
    vectors = bone_vectors(clips, LAYOUT)
    assert torch.allclose(put_together(clips[:, :, :, LAYOUT.root], vectors, LAYOUT), clips, atol=1e-5)
    assert not vectors[:, :, :, LAYOUT.root].any()


def test_directions_are_held_where_a_bone_has_no_length():
    clips = noise_clips(1, 5)
    child, parent = LAYOUT.bones[3]
    clips[:, :, 2:4, child] = clips[:, :, 2:4, parent]
    directions = bone_directions(bone_vectors(clips, LAYOUT))[0, :, :, child, 0]
    assert torch.allclose(directions.norm(dim=0), torch.ones(5), atol=1e-5)
    assert torch.equal(directions[:, 2], directions[:, 1])
    assert torch.equal(directions[:, 3], directions[:, 1])


def test_what_is_missing_at_the_start_is_taken_from_the_first_valid_frame():
    values = torch.arange(1.0, 6.0).view(1, 1, 5, 1, 1)
    valid = torch.tensor([False, True, False, False, True]).view(1, 1, 5, 1, 1)
    assert hold(values, valid).flatten().tolist() == [2, 2, 2, 2, 5]
    assert not hold(values, torch.zeros_like(valid)).any()


def test_lengths_are_medians_over_the_frames_that_are_there():
    clips, _ = people([0.3])
    clips[:, :, :5] = 0
    batch = batch_of(clips)
    lengths = median_lengths(bone_vectors(batch.clips, LAYOUT), batch.present)
    assert torch.allclose(lengths[:, [child for child, _ in LAYOUT.bones]], torch.tensor(0.3), atol=1e-5)


@pytest.mark.parametrize(("template", "expected"), [("mean", {0.3}), ("constant", {0.2, 0.3, 0.4}), ("random", {0.2, 0.3, 0.4})])
def test_everybody_gets_the_bones_of_the_template(template, expected):
    clips, examples = people([0.2, 0.3, 0.4], clips_each=10)
    method = MeanSkeleton(template=template)
    out = method.transform(batch_of(clips), method.fit(examples).state)
    lengths, drift = bones(out)
    assert drift < 1e-5
    assert float((lengths - lengths[:, :1]).abs().max()) < 1e-5
    found = {round(float(length), 3) for length in lengths[:, 0]}
    assert found == expected if template == "random" else len(found) == 1 and found <= expected
    before, after = (bone_directions(bone_vectors(c, LAYOUT)) for c in (clips, out))
    assert torch.allclose(before, after, atol=1e-4)


def test_nothing_of_the_source_is_left_but_directions():
    small, examples = people([0.2, 0.2])
    method = MeanSkeleton()
    state = method.fit(examples).state
    tall = small * 1.7  # the same movement by a taller person
    assert torch.allclose(method.transform(batch_of(small), state), method.transform(batch_of(tall), state), atol=1e-5)


def test_the_path_is_scaled_by_the_legs_or_removed():
    clips, examples = people([0.2, 0.4], clips_each=1)
    walk = torch.linspace(0, 2, 12).view(1, 1, -1, 1, 1)
    walking = clips + walk
    scaled, still = (MeanSkeleton(path=path) for path in ("scaled", "removed"))
    state = scaled.fit(examples).state
    out = scaled.transform(batch_of(walking), state)[:, :, :, LAYOUT.centre, 0]
    assert torch.allclose(out[0], (walk * 0.3 / 0.2).flatten().expand(3, -1), atol=1e-4)
    assert torch.allclose(out[1], (walk * 0.3 / 0.4).flatten().expand(3, -1), atol=1e-4)
    assert not still.transform(batch_of(walking), state)[:, :, :, LAYOUT.centre].any()


def test_bones_are_those_of_the_nearest_typical_person():
    clips, examples = people([0.2, 0.21, 0.4, 0.41])
    method = QuantiseBones(k=2)
    lengths, _ = bones(method.transform(batch_of(clips), method.fit(examples).state))
    assert torch.allclose(lengths[:, 0], torch.tensor([0.205] * 4 + [0.405] * 4), atol=1e-4)
    with pytest.raises(UserError, match="only 4 people"):
        QuantiseBones(k=5).fit(examples)


def test_subject_lengths_are_medians_over_clips():
    _, examples = people([0.2, 0.4])
    found = subject_lengths(examples)
    assert torch.allclose(found[:, LAYOUT.bones[0][0]], torch.tensor([0.2, 0.4]), atol=1e-5)


def test_private_builds_are_noise_at_a_small_budget_and_the_truth_at_a_large_one():
    clips, examples = people([0.2, 0.3, 0.4], clips_each=4)
    exact, noisy = ParameterDP(epsilon=1e6), ParameterDP(epsilon=0.5)
    fitted = exact.fit(examples)
    assert fitted.info == {"epsilon_per_clip": 1e6, "epsilon_of_person_with_most_clips": 4e6}
    truth = torch.tensor([0.2, 0.3, 0.4]).repeat_interleave(4)
    lengths, _ = bones(exact.transform(batch_of(clips), fitted.state))
    assert torch.allclose(lengths[:, 0], truth, atol=1e-3)
    lengths, _ = bones(noisy.transform(batch_of(clips), fitted.state))
    assert float(lengths.min()) >= 0.16 - 1e-5  # the range of the training people, a fifth wider on either side
    assert float(lengths.max()) <= 0.44 + 1e-5
    assert float(lengths.std()) > 0.1
    left, right = LAYOUT.index("left elbow"), LAYOUT.index("right elbow")
    children = [child for child, _ in LAYOUT.bones]
    assert torch.allclose(lengths[:, children.index(left)], lengths[:, children.index(right)], atol=1e-5)
