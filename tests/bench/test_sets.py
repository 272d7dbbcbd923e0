"""Sets of pairs: by hand, against the closed form of two Gaussians, and with nothing to find."""

import numpy as np
import pytest
from scipy.stats import norm

from bench.metrics.sets import set_scores
from bench.metrics.verification import roc_auc


def test_pairs_of_the_same_two_people_are_put_together_by_hand():
    first, second = np.array([1, 1, 1, 1, 2, 1, 2]), np.array([1, 2, 1, 2, 1, 1, 2])
    scores = np.array([1.0, 5.0, 3.0, 7.0, 100.0, 5.0, 9.0])
    found, mated = set_scores(scores, first, second, 2, np.random.default_rng(0))
    # Person 1 has three mated pairs, of which one is left over; 1-2 has two; 2-1 and 2-2 have one each.
    assert len(found) == 2
    assert found[mated][0] in (2.0, 3.0, 4.0)
    assert found[~mated].tolist() == [6.0]


def test_each_pair_is_used_once_at_most():
    rng = np.random.default_rng(0)
    first, second = rng.integers(4, size=(2, 500))
    found, mated = set_scores(np.arange(500.0), first, second, 1, rng)
    assert sorted(found) == list(range(500))
    assert (mated == (first == second)[found.astype(int)]).all()


@pytest.mark.parametrize("size", [1, 5, 10])
def test_independent_pairs_add_up_as_gaussians_do(size):
    """Scores shifted by d have an AUC of Phi(d / sqrt 2); means of n by d * sqrt n."""
    rng = np.random.default_rng(1)
    first = rng.integers(10, size=60_000)
    second = np.where(rng.random(60_000) < 0.5, first, (first + rng.integers(1, 10, size=60_000)) % 10)
    scores = rng.normal(size=60_000) + 0.4 * (first == second)
    found, mated = set_scores(scores, first, second, size, rng)
    assert roc_auc(found[mated], found[~mated]) == pytest.approx(norm.cdf(0.4 * np.sqrt(size / 2)), abs=0.015)


def test_scores_without_information_stay_without_and_too_large_sets_are_none():
    rng = np.random.default_rng(2)
    first, second = rng.integers(3, size=(2, 30_000))
    found, mated = set_scores(rng.normal(size=30_000), first, second, 10, rng)
    assert roc_auc(found[mated], found[~mated]) == pytest.approx(0.5, abs=0.02)
    assert len(set_scores(np.ones(3), np.arange(3), np.arange(3), 2, rng)[0]) == 0
    with pytest.raises(ValueError, match="at least one pair"):
        set_scores(np.ones(3), np.arange(3), np.arange(3), 0, rng)
