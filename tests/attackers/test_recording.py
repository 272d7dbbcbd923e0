"""The control of linkage: finds what the recording gives away, and nothing where it gives nothing away."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attackers.recording import NuisanceLinkage
from bench.metrics.verification import roc_auc
from bench.pairs import Pairs
from bench.presets import get_preset
from tests.anonymizers.samples import clip_set, noise_clips

PEOPLE, EACH = 10, 8


def drawn(rng, people):
    """Pairs of clips, as many of one person as of two; clips lie person by person."""
    first = rng.integers(people, size=400) * EACH + rng.integers(EACH, size=400)
    mated = np.arange(400) % 2 == 0
    own = first // EACH
    other = np.where(mated, own, (own + rng.integers(1, people, size=400)) % people)
    return Pairs(np.stack([first, other * EACH + rng.integers(EACH, size=400)], axis=1), mated, np.zeros(400, int))


def measured(tmp_path, lengths, nuisance, rows=None):
    """AUC on pairs that were not learnt from."""
    rng = np.random.default_rng(0)
    clips = replace(clip_set(noise_clips(PEOPLE * EACH, frames=2)), lengths=lengths, nuisance=nuisance)
    clips = clips if rows is None else clips.with_rows(rows * clips.rows)
    part, asked = SimpleNamespace(training_pairs=drawn(rng, PEOPLE)), drawn(rng, PEOPLE)
    NuisanceLinkage().fit(clips, part, get_preset("quick"), tmp_path, seed=0)
    scores = NuisanceLinkage().pair_scores(clips, clips, asked.clips, part, get_preset("quick"), tmp_path)
    return roc_auc(scores[asked.mated], scores[~asked.mated]), scores


def test_it_links_by_length_by_room_and_by_nothing_else(tmp_path):
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(PEOPLE), EACH)
    anything = torch.from_numpy(rng.integers(20, 60, size=len(person)))
    rooms = torch.from_numpy(np.stack([person % 5, rng.integers(3, size=len(person))], axis=1)).double()
    assert measured(tmp_path, torch.from_numpy(20 + 4 * person), None)[0] > 0.99
    assert measured(tmp_path, anything, rooms)[0] > 0.8
    blind, scores = measured(tmp_path, anything, None)
    assert blind == pytest.approx(0.5, abs=0.08)
    np.testing.assert_array_equal(measured(tmp_path, anything, None, rows=0)[1], scores)


def test_an_unknown_room_equals_no_other(tmp_path):
    unknown = torch.full((PEOPLE * EACH, 1), torch.nan, dtype=torch.float64)
    auc, _ = measured(tmp_path, torch.full((PEOPLE * EACH,), 30), unknown)
    assert auc == 0.5
