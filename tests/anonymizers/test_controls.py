"""The label oracle: another person's clip of the same action."""

import numpy as np
import pytest
import torch

from anonymizers.controls import LabelOracle
from bench.anonymizer import Examples
from bench.files import UserError
from bench.protocols import Part
from tests.anonymizers.samples import batch_of, clip_set


def world():
    """Clip (p, a) shows the constant 10 p + a + 1 everywhere; three people, two actions, twice."""
    people, actions = np.tile(np.arange(3), 4), np.repeat([0, 1, 0, 1], 3)
    values = torch.from_numpy(10.0 * people + actions + 1).float()
    clips = values.view(-1, 1, 1, 1, 1).expand(-1, 3, 6, 25, 1)
    count = np.arange(12)
    part = Part("action", (0, 1), actions, count, count[:0], count[:0], people, count)
    return clips, Examples(clip_set(clips), {"action": part}, None, 0)


def released(method, clips, lengths, actions, subjects, examples):
    labels = {"action": torch.tensor(actions), "subject": torch.tensor(subjects)}
    return method.transform(batch_of(clips, lengths, labels=labels), method.fit(examples).state)


def test_a_donor_does_the_same_action_and_is_somebody_else():
    _, examples = world()
    out = released(LabelOracle(), torch.ones(60, 3, 9, 25, 1), [9] * 60, [1] * 60, [2] * 60, examples)
    values = out.flatten(1).unique(dim=1)
    assert set(values.flatten().tolist()) == {2.0, 12.0}
    assert (out == out[:, :1, :1, :1]).all()


def test_a_clip_keeps_its_own_length_and_an_unknown_person_gets_anybody():
    _, examples = world()
    out = released(LabelOracle(), torch.ones(30, 3, 9, 25, 1), [4] * 30, [0] * 30, [-1] * 30, examples)
    assert not out[:, :, 4:].any()
    assert set(out[:, 0, 0, 0, 0].tolist()) == {1.0, 11.0, 21.0}


def test_an_unknown_action_gets_any_action():
    _, examples = world()
    out = released(LabelOracle(), torch.ones(60, 3, 5, 25, 1), [5] * 60, [-1] * 60, [0] * 60, examples)
    assert set(out[:, 0, 0, 0, 0].tolist()) == {11.0, 12.0, 21.0, 22.0}


def test_no_more_donors_are_kept_than_asked():
    _, examples = world()
    assert len(LabelOracle(donors=2).fit(examples).state["lengths"]) == 4
    assert len(LabelOracle().fit(examples).state["lengths"]) == 12


def test_without_actions_there_are_no_donors():
    _, examples = world()
    part = examples.parts["action"]
    nameless = Part("action", (), np.full(12, -1), *(part.train[:0],) * 3, part.subjects, part.performances)
    with pytest.raises(UserError, match="action labels"):
        LabelOracle().fit(Examples(examples.clips, {"action": nameless}, None, 0))
