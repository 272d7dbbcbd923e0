import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from bench.measure import _retention
from bench.metrics.comparison import difference
from bench.metrics.identification import normalised_leakage, retention, top_k
from bench.metrics.tradeoff import hypervolume, pareto_set
from bench.metrics.uncertainty import MANY, SHARE, People, Sample, balanced_trials, estimate, variance_components


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_agrees_with_scikit_learn(k):
    rng = np.random.default_rng(0)
    scores, labels = rng.random((200, 7)), rng.integers(7, size=200)
    assert top_k(scores, labels, k).mean() == pytest.approx(top_k_accuracy_score(labels, scores, k=k, labels=np.arange(7)))


def test_top_1_of_equal_scores_names_one_class_only():
    scores, labels = np.ones((6, 3)), np.array([0, 1, 2, 0, 1, 2])
    assert top_k(scores, labels, 1).tolist() == [True, False, False] * 2
    assert top_k(scores, labels, 2).tolist() == [True, True, False] * 2


def test_normalised_leakage_and_retention():
    assert normalised_leakage(0.125, 0.125) == 0
    assert normalised_leakage(0.05, 0.125) == 0
    assert normalised_leakage(1.0, 0.125) == 1
    assert normalised_leakage(0.5625, 0.125) == pytest.approx(0.5)
    assert retention(0.5, 0.9, 0.1) == pytest.approx(0.5)
    assert retention(0.9, 0.9, 0.1) == 1
    assert np.isnan(retention(0.5, 0.1, 0.1))


def test_balanced_mean_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    labels, said, subjects = rng.integers(4, size=300), rng.integers(4, size=300), rng.integers(12, size=300)
    people = People.resample(subjects, rng, draws=10)
    got = people.balanced_mean((labels == said).astype(float), labels)[0]
    assert got == pytest.approx(balanced_accuracy_score(labels, said))


def test_resamples_agree_with_drawing_the_people_by_hand():
    rng = np.random.default_rng(2)
    subjects = np.array([3, 3, 7, 7, 7, 9])
    hits = np.array([1.0, 0, 1, 1, 0, 0])
    people = People.resample(subjects, rng, draws=50)
    for weights, mean in zip(people.weights, people.mean(hits), strict=True):
        drawn = np.repeat([3, 7, 9], weights.astype(int))
        assert mean == pytest.approx(np.concatenate([hits[subjects == s] for s in drawn]).mean())
        assert weights.sum() == 3


def test_people_as_classes_count_as_often_as_they_are_drawn():
    subjects = np.array([0, 0, 1, 1, 2, 2])
    hits = np.array([1.0, 1, 0, 0, 1, 0])
    people = People.resample(subjects, np.random.default_rng(3), strata=subjects, draws=200)
    assert people.balanced_mean(hits, subjects) == pytest.approx(people.weights @ [1, 0, 0.5] / 3)
    assert people.weights[1:].std() > 0  # one class a person: nothing to draw within


def test_attributes_draw_people_within_their_class():
    subjects = np.repeat(np.arange(6), 4)
    gender = np.repeat([0, 0, 0, 0, 1, 1], 4)
    people = People.resample(subjects, np.random.default_rng(4), strata=gender, draws=100)
    assert (people.weights[:, :4].sum(axis=1) == 4).all()
    assert (people.weights[:, 4:].sum(axis=1) == 2).all()


def test_constant_guess_has_an_interval_around_chance():
    subjects = np.repeat(np.arange(8), 50)
    hits = (subjects == 0).astype(float)  # every clip is named person 0
    draws = People.resample(subjects, np.random.default_rng(5), strata=subjects).balanced_mean(hits, subjects)
    found = estimate(draws[0], draws[1:], MANY)
    assert found.value == 0.125
    assert found.low == 0
    assert 0.2 < found.high < 0.6


def equal_shares(right, of=20, people=4):
    """Everybody is named `right` times `of` times: (people, the share and its resamples)."""
    resampled = People.resample(np.repeat(np.arange(people), of), np.random.default_rng(8))
    return resampled, resampled.mean(np.tile(np.arange(of) < right, people).astype(float))


@pytest.mark.parametrize("right", [0, 10, 20])
def test_where_everybody_is_found_equally_often_answers_count(right):
    """Else a number of four people would be stated as if it were sure; compared with the exact interval of a share."""
    people, draws = equal_shares(right, people=20)
    found = people.estimate(draws, SHARE, 400)
    exact = binomtest(20 * right, 400).proportion_ci(method="exact")
    assert found.value == right / 20
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.01)
    assert difference(found, found).p_value == 1
    people, draws = equal_shares(right)
    wider = people.estimate(draws, SHARE, 80)
    assert 0 <= wider.low <= found.low
    assert 1 >= wider.high >= found.high
    assert wider.high - wider.low > 1.8 * (found.high - found.low)
    assert people.estimate(draws, SHARE).high == wider.value, "of what is no share of answers nothing else is known"
    draws[7] = np.nan
    assert people.estimate(draws, SHARE, 80).high == wider.high


def test_equal_shares_of_few_people_differ_for_sure_only_as_numbers_of_few_people_do():
    """72 of 80 against 80 of 80: Fisher's exact test of the answers says too much, a sign test of four people 0.125."""
    (people, all_right), (_, most), (_, nearly) = (equal_shares(n) for n in (20, 18, 19))
    full, lower, between = (people.estimate(draws, SHARE, 80) for draws in (all_right, most, nearly))
    assert fisher_exact([[72, 8], [80, 0]]).pvalue < difference(full, lower).p_value < 0.15
    assert difference(between, lower).p_value > 0.2
    same = dataclasses.replace(lower, draws=lower.draws + 1e-16, value=lower.value + 1e-16)
    assert difference(same, lower).p_value == 1
    apart = (estimate(value, np.full(2000, value) + rounding, Sample((4,))) for value, rounding in ((0.8, 1e-16), (0.7, 0)))
    assert difference(*apart).p_value == 0.125  # of what has no such interval, the sign test


def test_retention_has_an_interval_where_everybody_is_right_equally_often():
    (people, before), (_, after) = equal_shares(20), equal_shares(17)
    found = _retention(people, after, before, 0.5)
    assert found.value == pytest.approx(0.7)
    assert found.low < 0.65
    assert found.high > 0.75
    whole = _retention(people, before, before, 0.5)
    assert (whole.value, whole.low, whole.high) == (1, 1, 1)  # the same classifier on the same clips


def test_answers_behind_a_mean_over_classes():
    assert balanced_trials(np.array([0, 0, 0, 1, 1, 3])) == 3


def test_interval_over_people_is_wider_than_the_binomial_one():
    rng = np.random.default_rng(6)
    rate = rng.beta(2, 2, size=20)
    subjects = np.repeat(np.arange(20), 200)
    hits = (rng.random(4000) < rate[subjects]).astype(float)
    draws = People.resample(subjects, rng).mean(hits)
    found = estimate(draws[0], draws[1:], MANY)
    theory = 1.96 * rate.std(ddof=1) / np.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(theory, rel=0.25)
    assert found.high - found.low > 4 * 2 * 1.96 * np.sqrt(0.25 / 4000)


def test_pareto_set_and_hypervolume_of_a_drawn_case():
    utility = np.array([1.0, 0.8, 0.5, 0.5, 0.0, 0.8])
    leakage = np.array([0.9, 0.4, 0.5, 0.1, 0.0, 0.4])
    assert pareto_set(utility, leakage).tolist() == [True, True, False, True, True, True]
    # Rectangles: 0.2 wide and 0.1 high, 0.3 wide and 0.6 high, 0.5 wide and 0.9 high.
    assert hypervolume(utility, leakage) == pytest.approx(0.2 * 0.1 + 0.3 * 0.6 + 0.5 * 0.9)
    assert hypervolume(np.array([1.0]), np.array([0.0])) == 1
    assert hypervolume(np.array([0.0]), np.array([0.0])) == 0


def test_a_guess_that_differs_from_fold_to_fold_is_no_success():
    """Three folds of unequal size whose models always name one class: pooled they would be right in 21 of 27 clips."""
    folds = np.repeat([0, 1, 2], [4, 13, 10])
    labels = np.r_[[1, 1, 1, 0], [0] * 11, [1, 1], [0] * 3, [1] * 7]
    guess = np.array([1, 0, 1])[folds]
    people = People.resample(np.arange(27), np.random.default_rng(0), strata=labels)
    found = people.balanced_mean((guess == labels).astype(float), labels, folds)
    assert found[0] == pytest.approx(0.5)
    recalls = [[(guess == k)[(labels == k) & (folds == f)].mean() for f in range(3)] for k in (0, 1)]
    assert found[0] == pytest.approx(np.mean(recalls))
    assert found[1:][np.isfinite(found[1:])] == pytest.approx(0.5)
    assert np.isfinite(found).mean() > 0.9
    assert people.balanced_mean((guess == labels).astype(float), labels)[0] > 0.7
    np.testing.assert_array_equal(
        people.balanced_mean((guess == labels).astype(float), labels, np.zeros(27, dtype=int)),
        people.balanced_mean((guess == labels).astype(float), labels),
    )


def test_variance_components_are_those_of_the_analysis_of_variance():
    """Mean squares by scipy's F statistic, and the truth of a simulation."""
    from scipy.stats import f_oneway

    rng = np.random.default_rng(0)
    values = 5 + 0.3 * rng.normal(size=(4000, 1)) + 0.2 * rng.normal(size=(4000, 3))
    between, within = variance_components(values)
    assert (between, within) == pytest.approx((0.09, 0.04), rel=0.05)
    few = values[:5]
    between, within = variance_components(few)
    assert 1 + 3 * between / within == pytest.approx(f_oneway(*few).statistic)


def test_variance_components_where_one_of_them_cannot_be_told():
    assert variance_components(np.array([[1.0], [2.0], [3.0]])) == pytest.approx((1.0, np.nan), nan_ok=True)
    assert variance_components(np.array([[1.0, 3.0]])) == pytest.approx((np.nan, 2.0), nan_ok=True)
    assert variance_components(np.array([[0.0, 2.0], [2.0, 0.0]])) == (0.0, 2.0)  # never below 0
