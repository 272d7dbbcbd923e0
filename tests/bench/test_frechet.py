"""The Fréchet distance against closed forms and scipy, and the jackknife against the interval of a mean."""

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import sqrtm

from bench.metrics.frechet import frechet_distance, frechet_distances
from bench.metrics.uncertainty import jackknifed


def by_scipy(first, second):
    mean, covariance = zip(*((x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (first, second)), strict=True)
    shared = sqrtm(covariance[0] @ covariance[1]).real
    return np.square(mean[0] - mean[1]).sum() + np.trace(covariance[0] + covariance[1] - 2 * shared)


def embeddings(count, dimensions, seed, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return (shift + scale * rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions))).astype(np.float32)


@pytest.mark.parametrize(("count", "dimensions"), [(200, 1), (300, 12), (20, 40)])  # the last with singular covariances
def test_it_is_the_formula(count, dimensions):
    first, second = embeddings(count, dimensions, 0), embeddings(count + 7, dimensions, 1, 1.5, 0.3)
    assert frechet_distance(first, second) == pytest.approx(by_scipy(first.astype(float), second.astype(float)), rel=1e-3)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)


def test_in_one_dimension_it_is_that_of_means_and_deviations():
    first, second = np.array([[0.0], [2.0], [4.0]]), np.array([[10.0], [11.0], [12.0]])
    assert frechet_distance(first, second) == pytest.approx((2 - 11) ** 2 + (2 - 1) ** 2)


def test_of_equal_sets_it_is_zero_and_a_shift_adds_its_square():
    first = embeddings(50, 6, 0)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(first, first + np.float32(2)) == pytest.approx(6 * 4, rel=1e-4)
    assert frechet_distance(first, first[::-1]) == pytest.approx(0, abs=1e-6)  # it looks at sets, not at clips


def test_without_a_person_it_is_that_of_the_others():
    first, second = embeddings(40, 5, 0), embeddings(40, 5, 1)
    people = np.arange(40) % 4
    found = frechet_distances(first, second, people, people)
    assert found.shape == (5,)
    assert found[0] == pytest.approx(frechet_distance(first, second), rel=1e-9)
    for who in range(4):
        assert found[1 + who] == pytest.approx(by_scipy(first[people != who].astype(float), second[people != who].astype(float)))


def test_one_person_cannot_be_left_out():
    first = embeddings(10, 3, 0)
    found = frechet_distances(first, first, np.zeros(10, dtype=int), np.zeros(10, dtype=int))
    assert np.isnan(found[1])
    assert np.isnan(jackknifed(found).low)


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(0).normal(3, 2, size=12)
    left = np.array([np.delete(values, i).mean() for i in range(12)])
    found = jackknifed(np.array([values.mean(), *left]))
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert found.draws.std() == pytest.approx(stats.sem(values), rel=1e-2)
    assert jackknifed(np.array([values.mean(), *left]), bounds=(values.mean(), np.inf)).low == values.mean()


def test_of_three_people_no_interval_is_stated():
    assert np.isnan(jackknifed(np.array([1.0, 0.9, 1.0, 1.1])).low)
    assert np.isfinite(jackknifed(np.array([1.0, 0.9, 1.0, 1.1, 1.0])).low)
