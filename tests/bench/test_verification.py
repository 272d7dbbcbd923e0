"""Verification metrics against closed forms, scikit-learn and cases made by hand."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score, roc_curve

from bench.metrics import verification as v
from bench.metrics.uncertainty import People

ORDINAL = (v.roc_auc, v.equal_error_rate, v.min_log_likelihood_ratio_cost, v.expected_disclosure, v.worst_disclosure)
METRICS = (*ORDINAL, v.log_likelihood_ratio_cost, v.linkability, v.maximal_linkability)


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
    assert v.expected_disclosure(high, low) == pytest.approx(1 / np.log(4), abs=1e-12)
    assert v.log_likelihood_ratio_cost(high * 1000, low - 1000) == pytest.approx(0, abs=1e-9)
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


def test_zebra_by_hand():
    # Two scores: the upper holds 3 of 4 mated and 1 of 4 other pairs, so calibrated ratios are 3 and 1/3.
    m, q = np.array([1.0, 1, 1, 0]), np.array([1.0, 0, 0, 0])
    assert v.min_log_likelihood_ratio_cost(m, q) == pytest.approx(0.75 * np.log2(4 / 3) + 0.25 * np.log2(4))  # entropy of 1/4
    # What a ratio r costs over all priors is (a - ln r) / (2 a^2) with a = r - 1, integrated by parts.
    cost = 0.75 * (2 - np.log(3)) / 8 + 0.25 * (-2 / 3 + np.log(3)) / (8 / 9)
    assert v.expected_disclosure(m, q) == pytest.approx((0.5 - 2 * cost) / np.log(2), abs=1e-12)
    # With one pair of each kind added at both ends the ratios are 4/2 and 2/4, of 6 and 6.
    assert v.worst_disclosure(m, q) == pytest.approx(np.log10(2))
    # Separation of 7 from 11: ratios (8/9) / (1/13) and (1/9) / (12/13).
    assert v.worst_disclosure(np.ones(7), np.zeros(11)) == pytest.approx(np.log10(8 * 13 / 9))
    grades = {0.0: "0", 0.3: "A", 1.0: "A", 1.5: "B", 3.0: "C", 4.5: "D", 5.5: "E", 6.1: "F", np.inf: "F"}
    assert [v.disclosure_grade(worst) for worst in grades] == list(grades.values())
    with pytest.raises(ValueError, match=r"must be >= 0, got -0\.1"):
        v.disclosure_grade(-0.1)


@pytest.mark.parametrize("a", [1e-6, 0.0029, 0.0031, -0.0029, -0.0031, 0.5])
def test_the_integral_over_priors_is_smooth_about_a_ratio_of_one(a):
    prior = (np.arange(200_000) + 0.5) / 200_000
    numeric = np.mean(prior * np.log1p((1 - prior) / (prior * (1 + a))))
    assert v._missed_over_priors(np.array([1 + a]))[0] == pytest.approx(numeric, abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_equal_error_rate_is_the_lowest_crossing_of_chords_of_the_roc(seed):
    rng = np.random.default_rng(seed)
    mated, others = rng.integers(1, 12, 30).astype(float), rng.integers(0, 9, 25).astype(float)
    thresholds = np.append(np.unique(np.concatenate([mated, others])), np.inf)
    points = [(np.mean(others >= t), np.mean(mated < t)) for t in thresholds]
    crossings = []
    for far, frr in points:
        for to_far, to_frr in points:
            if far >= frr and to_far < to_frr:
                share = (far - frr) / (far - frr + to_frr - to_far)
                crossings.append(frr + share * (to_frr - frr))
    assert v.equal_error_rate(mated, others) == pytest.approx(min(crossings), abs=1e-12)


def test_a_reliably_wrong_attacker():
    mated, others = gaussians(1.0, 500)
    for blind in (v.linkability, v.maximal_linkability):  # to the order
        assert blind(-mated, -others) == pytest.approx(blind(mated, others), abs=0.01)
    assert v.roc_auc(-mated, -others) == pytest.approx(1 - v.roc_auc(mated, others))
    assert v.equal_error_rate(-mated, -others) == pytest.approx(0.5, abs=0.01)
    assert v.min_log_likelihood_ratio_cost(-mated, -others) == pytest.approx(1, abs=0.02)
    assert v.expected_disclosure(-mated, -others) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.3, 0.7)])
def test_far_is_never_exceeded_whatever_ties(shares):
    rng = np.random.default_rng(4)
    mated, others = rng.integers(0, 6, 40).astype(float), rng.integers(0, 6, 70).astype(float)
    for far in np.linspace(*shares, 9):
        allowed = [t for t in np.arange(8) if np.mean(others >= t) <= far]
        assert v.true_accept_rate(mated, others, far) == np.mean(mated >= min(allowed))


def test_agrees_with_scikit_learn_with_ties():
    rng = np.random.default_rng(1)
    mated, others = rng.integers(2, 9, 300).astype(float), rng.integers(0, 7, 500).astype(float)
    scores, truth = np.concatenate([mated, others]), np.repeat([1, 0], [300, 500])
    assert v.roc_auc(mated, others) == pytest.approx(roc_auc_score(truth, scores))
    far, tar, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert v.true_accept_rate(mated, others, 0.3) == pytest.approx(tar[far <= 0.3].max())
    assert v.equal_error_rate(mated, others) <= np.min(np.maximum(far, 1 - tar))


@pytest.mark.parametrize("decimals", [0, 9])
def test_calibration_is_isotonic_regression_in_which_both_classes_weigh_the_same(decimals):
    rng = np.random.default_rng(8)
    mated, others = rng.normal(0.5, 1, 30).round(decimals), rng.normal(0, 1, 70).round(decimals)
    scores, truth = np.concatenate([mated, others]), np.repeat([1, 0], [30, 70])
    share = np.where(truth == 1, 1 / 30, 1 / 70)
    p = IsotonicRegression(y_min=0, y_max=1).fit(scores, truth, share).predict(scores)
    bits = -np.log2(np.where(truth == 1, p, 1 - p))
    assert v.min_log_likelihood_ratio_cost(mated, others) == pytest.approx((bits @ share) / 2)


@pytest.mark.parametrize("metric", [*METRICS, lambda m, q, weights=None: v.true_accept_rate(m, q, 0.2, weights)])
def test_weights_count_pairs_as_often(metric):
    rng = np.random.default_rng(5)
    mated, others = rng.normal(0.7, 1, 60).round(1), rng.normal(0, 1, 90).round(1)
    often = rng.integers(0, 4, 60), rng.integers(0, 4, 90)
    repeated = metric(np.repeat(mated, often[0]), np.repeat(others, often[1]))
    assert metric(mated, others, weights=often) == pytest.approx(repeated, abs=1e-12)
    assert metric(mated, others) != pytest.approx(repeated, abs=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_wrong_scores_and_weights_are_refused(metric):
    one, two = np.ones(1), np.arange(2.0)
    for args, message in (
        ((np.empty(0), two), r"at least one score of mated pairs, on one axis, got shape \(0,\)"),
        ((two, two[None]), r"score of non-mated pairs, on one axis, got shape \(1, 2\)"),
        ((two, np.array([np.nan, 1])), "numbers as scores of non-mated pairs, got 1 NaN in 2"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(*args)
    for weights, message in (
        ((one, two), r"a weight for each of 2 mated pairs, got shape \(1,\)"),
        ((two, -two), r">= 0 and not all 0, got -1.0 at least"),
        ((two, 0 * two), r">= 0 and not all 0, got 0.0 at least"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(two, two, weights=weights)


def test_what_single_metrics_refuse():
    with pytest.raises(ValueError, match=r"far is a share of non-mated pairs and must be within 0 to 1, got 1\.5"):
        v.true_accept_rate(np.ones(2), np.ones(2), 1.5)
    with pytest.raises(ValueError, match=r"finite scores, which bins can hold, got 1\.0 to inf"):
        v.linkability(np.array([1.0, np.inf]), np.ones(2))


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


def test_every_resample_counts_pairs_by_the_people_drawn():
    rng = np.random.default_rng(6)
    first, second = rng.integers(0, 9, 4000), rng.integers(0, 9, 4000)
    mated = first == second
    scores = rng.normal(size=4000) + mated  # more distinct scores than resamples tell apart
    draws = v._CHUNK + 3
    m, q = v._resampled(scores, mated, first, second, np.random.default_rng(7), draws)
    drawn = People.resample(np.arange(9), np.random.default_rng(7), draws=draws).weights[1:]
    auc, eer = v._auc(m, q), v._equal_error_rate(m, q)
    for b in (0, v._CHUNK - 1, v._CHUNK, draws - 1):
        weights = drawn[b][first[mated]], drawn[b][first[~mated]] * drawn[b][second[~mated]]
        assert auc[b] == pytest.approx(v.roc_auc(scores[mated], scores[~mated], weights), abs=1e-4)
        assert eer[b] == pytest.approx(v.equal_error_rate(scores[mated], scores[~mated], weights), abs=2e-3)


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
