"""Verification metrics against closed forms, scikit-learn and cases made by hand."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from bench.metrics import verification as v

ORDINAL = (v.roc_auc, v.equal_error_rate, v.min_log_likelihood_ratio_cost, v.expected_disclosure, v.worst_disclosure)


def gaussians(shift, n=20_000, seed=0):
    """Scores of two unit normals; their log-likelihood ratio is shift * (s - shift / 2)."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, n), rng.normal(0, 1, n)


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.5])
def test_two_gaussians_have_closed_forms(shift):
    mated, others = gaussians(shift)
    assert v.roc_auc(mated, others) == pytest.approx(norm.cdf(shift / np.sqrt(2)), abs=0.01)
    assert v.equal_error_rate(mated, others) == pytest.approx(norm.cdf(-shift / 2), abs=0.01)
    assert v.true_accept_rate(mated, others, 0.01) == pytest.approx(norm.sf(norm.isf(0.01) - shift), abs=0.03)
    # Total variation is 2 Phi(shift / 2) - 1, and maximal linkability the logarithm of one more.
    assert v.maximal_linkability(mated, others) == pytest.approx(np.log2(2 * norm.cdf(shift / 2)), abs=0.02)
    ratios = shift * (mated - shift / 2), shift * (others - shift / 2)
    assert v.min_log_likelihood_ratio_cost(mated, others) == pytest.approx(v.log_likelihood_ratio_cost(*ratios), abs=0.01)


def test_d_sys_of_two_gaussians_is_its_integral():
    s = np.linspace(-8, 10, 200_001)
    p, q = norm.pdf(s, 1), norm.pdf(s)
    gain = np.where(p > q, 2 * p / (p + q) - 1, 0)
    assert v.linkability(*gaussians(1.0, 200_000)) == pytest.approx((p * gain).sum() * (s[1] - s[0]), abs=0.01)


def test_zebra_of_two_gaussians_is_its_integral():
    s = np.linspace(-8, 9, 4001)
    step, ratio = s[1] - s[0], np.exp(s - 0.5)
    prior = (np.arange(1000) + 0.5)[:, None] / 1000
    missed = (norm.pdf(s, 1) * np.log2(1 + (1 - prior) / (prior * ratio))).sum(1) * step
    accepted = (norm.pdf(s) * np.log2(1 + ratio * prior / (1 - prior))).sum(1) * step
    p = prior[:, 0]
    ideal = np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p) - p * missed - (1 - p) * accepted)
    assert v.expected_disclosure(*gaussians(1.0)) == pytest.approx(ideal, abs=0.005)


def test_perfect_separation_and_no_information():
    high, low = np.linspace(2, 3, 50), np.linspace(0, 1, 80)
    assert v.roc_auc(high, low) == v.true_accept_rate(high, low, 0.001) == v.linkability(high, low) == 1
    assert v.maximal_linkability(high, low) == pytest.approx(1)
    assert v.equal_error_rate(high, low) == pytest.approx(0, abs=1e-9)
    assert v.min_log_likelihood_ratio_cost(high, low) == 0
    assert v.expected_disclosure(high, low) == pytest.approx(v.FULL_DISCLOSURE, abs=1e-4)
    same = np.tile(np.arange(10.0), 20)
    assert v.roc_auc(same, same) == 0.5
    assert v.equal_error_rate(same, same) == pytest.approx(0.5)
    assert v.min_log_likelihood_ratio_cost(same, same) == pytest.approx(1)
    assert v.linkability(same, same) == 0
    assert v.expected_disclosure(same, same) == pytest.approx(0, abs=1e-9)
    assert v.maximal_linkability(same, same) == pytest.approx(0, abs=1e-9)
    assert v.worst_disclosure(same, same) == pytest.approx(0, abs=1e-9)
    constant = np.zeros(7)
    assert v.roc_auc(constant, constant) == 0.5
    assert v.true_accept_rate(constant, constant, 0.5) == 0  # a tie is refused rather than accepted too often


def test_cases_by_hand():
    mated, others = np.array([0.9, 0.8, 0.4]), np.array([0.7, 0.3, 0.2, 0.1])
    assert v.roc_auc(mated, others) == pytest.approx(11 / 12)
    assert v.true_accept_rate(mated, others, 0.0) == pytest.approx(2 / 3)
    assert v.true_accept_rate(mated, others, 0.25) == 1
    # The hull runs straight from (FAR 0, FRR 1/3) to (1/4, 0): it meets the diagonal at x = 1/3 (1 - 4 x), so x = 1/7.
    assert v.equal_error_rate(mated, others) == pytest.approx(1 / 7)
    assert v.log_likelihood_ratio_cost(np.zeros(3), np.zeros(2)) == pytest.approx(1)
    # Scores in one bin each: three of four mated pairs are alone in the upper half, where a quarter of the others are.
    m, q = np.array([1.0, 1, 1, 0]), np.array([1.0, 0, 0, 0])
    assert v.linkability(m, q, bins=2) == pytest.approx(0.75 * (2 * 3 / 4 - 1))
    assert v.maximal_linkability(m, q, bins=2) == pytest.approx(np.log2(1.5))


def test_agrees_with_scikit_learn_with_ties():
    rng = np.random.default_rng(1)
    mated, others = rng.integers(2, 9, 300).astype(float), rng.integers(0, 7, 500).astype(float)
    scores, truth = np.concatenate([mated, others]), np.repeat([1, 0], [300, 500])
    assert v.roc_auc(mated, others) == pytest.approx(roc_auc_score(truth, scores))
    far, tar, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert v.true_accept_rate(mated, others, 0.3) == pytest.approx(tar[far <= 0.3].max())


@pytest.mark.parametrize("metric", ORDINAL)
def test_only_the_order_of_scores_counts(metric):
    mated, others = gaussians(1.0, 300)
    assert metric(np.exp(mated) * 3, np.exp(others) * 3) == pytest.approx(metric(mated, others))


def test_a_resample_is_the_same_as_repeating_its_people():
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    mated, scores = first == second, rng.normal(size=60)

    class Fixed:
        @staticmethod
        def multinomial(n, shares, size):
            return np.tile([2, 0, 1, 1], (size, 1))

    m, q = v._resampled(scores, mated, first, second, Fixed(), 1)
    drawn = np.array([2, 0, 1, 1])
    times = np.where(mated, drawn[first], drawn[first] * drawn[second])
    repeated, kind = np.repeat(scores, times), np.repeat(mated, times)
    assert v._auc(m, q)[0] == pytest.approx(v.roc_auc(repeated[kind], repeated[~kind]))
    assert v._equal_error_rate(m, q)[0] == pytest.approx(v.equal_error_rate(repeated[kind], repeated[~kind]))


def test_intervals_over_people_are_wider_than_those_over_pairs():
    rng = np.random.default_rng(3)
    people = np.arange(12)
    first, second = (
        np.repeat(people, 200),
        np.concatenate([np.repeat(people, 100).reshape(12, 100), rng.integers(0, 12, (12, 100))], 1).ravel(),
    )
    mated = first == second
    ease = rng.normal(1, 1, 12)  # some people are easier to link than others
    scores = rng.normal(size=len(first)) + mated * ease[first]
    found = v.measure_linkage(scores, mated, first, second, np.random.default_rng(0))
    assert found.auc.low < found.auc.value < found.auc.high
    assert found.eer.low < found.eer.value < found.eer.high
    assert found.auc.value == pytest.approx(v.roc_auc(scores[mated], scores[~mated]))
    pairs = [v.roc_auc(rng.choice(scores[mated], mated.sum()), rng.choice(scores[~mated], (~mated).sum())) for _ in range(200)]
    assert found.auc.high - found.auc.low > 2 * (np.quantile(pairs, 0.975) - np.quantile(pairs, 0.025))
