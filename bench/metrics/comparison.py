"""Whether one method is better than another, and how sure that is: differences over the same resamples of people.

Resamples are shared between methods that were measured on the same clips, so what people differ in cancels out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.metrics.uncertainty import EQUAL, FEW, Estimate, Sample, estimate, too_few_beyond


@dataclass(frozen=True)
class Difference:
    """A number less another.

    Args:
        estimate: With its 95 % interval.
        p_value: Two-sided, from the smaller share of resamples on either side of 0, one added (Davison and Hinkley, 1997), or
            where next to none cross 0, or people are few, from their spread, as the interval is; corrected for the number of
            people as that is. Where all resamples differ by the same, that of a sign test of the people. 1 if it is not known.
    """

    estimate: Estimate
    p_value: float


def difference(one: Estimate, other: Estimate) -> Difference:
    """`one` less `other`, resample by resample, in their unit: both were drawn with the same people (Efron and Tibshirani, 1993).

    Raises:
        ValueError: if they were not resampled together.
    """
    if one.draws.shape != other.draws.shape:
        raise ValueError(f"expected estimates over the same resamples, got {one.draws.shape} and {other.draws.shape}")
    draws, value = _without_rounding(one.draws - other.draws), float(_without_rounding(one.value - other.value))
    usable = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not usable.size:
        return Difference(Estimate(value, np.nan, np.nan, draws), 1.0)
    sample = one.sample if one.sample.people <= other.sample.people else other.sample
    bounds = one.bounds[0] - other.bounds[1], one.bounds[1] - other.bounds[0]
    return Difference(estimate(value, draws, sample, bounds=bounds), _p_value(value, usable, sample))


def _p_value(value: float, usable: np.ndarray, sample: Sample) -> float:
    """Of a difference with these resamples (B,): below 0.05 where the 95 % interval leaves out 0."""
    spread = float(usable.std())
    if not sample.enough or (spread <= EQUAL and value == 0):
        return 1.0
    if spread <= EQUAL:
        return 2.0 ** (1 - sample.people)
    share = min((side.sum() + 1) / (len(usable) + 1) for side in (usable <= 0, usable >= 0))
    by_rank, by_spread = sample.p_value(share), sample.p_of(abs(value) / spread)
    if too_few_beyond(sample, len(usable)):  # as of the interval: both must leave out 0
        return by_spread if share * len(usable) < FEW else max(by_rank, by_spread)
    return min(by_rank, by_spread) if share * len(usable) < FEW else by_rank


def _without_rounding(difference: np.ndarray | float) -> np.ndarray:
    return np.where(np.abs(difference) < EQUAL, 0.0, difference)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P values corrected for their number, 0 to 1: the k-th smallest of n times n - k + 1, never below a smaller one's.

    The chance of any false claim then stays below the level (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    order = np.argsort(p_values)
    count = len(order)
    corrected = np.empty(count)
    corrected[order] = np.maximum.accumulate(np.asarray(p_values)[order] * (count - np.arange(count)))
    return np.minimum(corrected, 1.0)


def rank_groups(values: Sequence[Estimate], level: float = 0.05) -> list[tuple[int, int]]:
    """For each value, the best and the worst rank, from 1, that it may have among all: larger is better.

    A value is ranked behind another only if their difference is sure at `level` after Holm's correction for all pairs: so the
    chance that any true order is contradicted is at most `level`.
    """
    pairs = [(i, j) for i in range(len(values)) for j in range(i)]
    found = (difference(values[i], values[j]) for i, j in pairs)  # one at a time: of 200 values all resamples are 300 MB
    told = [(one.p_value, one.estimate.value) for one in found]
    sure = holm([p_value for p_value, _ in told]) < level
    ahead = np.zeros((len(values), len(values)), dtype=bool)
    for (i, j), (_, value), certain in zip(pairs, told, sure, strict=True):
        first, second = (i, j) if value > 0 else (j, i)
        ahead[first, second] = certain
    return _ranks(ahead)


def rank_ranges(low: np.ndarray, high: np.ndarray) -> list[tuple[int, int]]:
    """As `rank_groups`, of values (n,) that all lie between their ends together: behind another is what lies wholly below it.

    An end that is not a number tells nothing.
    """
    return _ranks(low[:, None] > high)


def _ranks(ahead: np.ndarray) -> list[tuple[int, int]]:
    """Best and worst rank of each of n, of whom `ahead` (n, n) says who is surely ahead (row) of whom (column)."""
    return [(int(b) + 1, len(ahead) - int(w)) for b, w in zip(ahead.sum(axis=0), ahead.sum(axis=1), strict=True)]
