"""Who is at risk: a mean near chance can hide people who are found every time."""

from dataclasses import dataclass

import numpy as np

from bench.metrics.uncertainty import People


@dataclass(frozen=True)
class Risk:
    """How leakage spreads over the people; each (B + 1,), on the data and on each resample of people.

    Args:
        worst: Largest recall of a person, 0 to 1. Resamples may lack that person and never have another as bad: the upper end of
            an interval is the value itself.
        p95: 95th percentile of the recalls, 0 to 1, between neighbours in proportion.
        exposed: Share of people who are named more often than not (recall above 0.5), 0 to 1.
        singled_out: Share of people who are named more than ten times as often as by chance, 0 to 1; not a number of ten people
            or fewer, of whom nobody can be.
        gini: Gini coefficient of the recalls, sum_ij |r_i - r_j| / (2 n^2 mean r): 0 is evenly spread, 1 - 1 / S all on one of S
            people (Gini, 1912; twice the area between the Lorenz curve and the diagonal).
    """

    worst: np.ndarray
    p95: np.ndarray
    exposed: np.ndarray
    singled_out: np.ndarray
    gini: np.ndarray


def recalls(hits: np.ndarray, people: np.ndarray) -> np.ndarray:
    """(S,) share of each person's clips that are hits (n,), 0 to 1, in the order of their codes (n,)."""
    _, codes = np.unique(people, return_inverse=True)
    return np.bincount(codes, weights=hits) / np.bincount(codes)


def measure_risk(hits: np.ndarray, people: People, chance: float) -> Risk:
    """Risk of the people whose clips were tested.

    Args:
        hits: (n,) 1 where a clip's person was named; means over seeds count as shares.
        people: The people of the clips and their resamples.
        chance: What guessing gives, 1 / K.
    """
    found = recalls(hits, people.codes)
    order = np.argsort(found, kind="stable")
    found, drawn = found[order], people.weights[:, order]
    upto, count = drawn.cumsum(axis=1), drawn.sum(axis=1)

    def at(rank: np.ndarray) -> np.ndarray:
        """(B + 1,) recall of the person at a rank from 0, each counted as often as drawn."""
        return found[(upto > rank[:, None]).argmax(axis=1)]

    place = 0.95 * (count - 1)
    below, above = at(np.floor(place)), at(np.ceil(place))
    return Risk(
        worst=at(count - 1),
        p95=below + (place - np.floor(place)) * (above - below),
        exposed=drawn @ (found > 0.5) / count,
        singled_out=drawn @ (found > 10 * chance) / count if 10 * chance < 1 else np.full(len(count), np.nan),
        gini=_gini(found, drawn, upto, count),
    )


def _gini(values: np.ndarray, drawn: np.ndarray, upto: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(B + 1,) 2 sum_i i x_(i) / (n sum_i x_i) - (n + 1) / n with ranks i from 1 of ascending x; 0 where all are 0.

    Args:
        values: (S,) ascending.
        drawn, upto: (B + 1, S) how often each counts, and the running sum of that.
        count: (B + 1,) n.
    """
    ranks = drawn * (upto - (drawn - 1) / 2)  # sum of the ranks that each takes
    total = drawn @ values
    share = np.divide(2 * ranks @ values, count * total, out=np.zeros(len(count)), where=total > 0)
    return np.where(total > 0, share - (count + 1) / count, 0.0)
