"""Who is at risk (methods.md section 6.5): a mean near chance can hide people who are found every time."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Risk:
    """How leakage spreads over the people.

    Args:
        worst: Largest recall of a person, 0 to 1.
        p95: 95th percentile of the recalls.
        exposed: Share of people who are named more often than not (recall above 0.5).
        gini: Gini coefficient of the correct identifications, from the Lorenz curve: 0 is evenly spread, near 1 all on one.
    """

    worst: float
    p95: float
    exposed: float
    gini: float


def recalls(hits: np.ndarray, people: np.ndarray) -> np.ndarray:
    """(S,) share of each person's clips that are hits (n,), in the order of their codes (n,)."""
    _, codes = np.unique(people, return_inverse=True)
    return np.bincount(codes, weights=hits) / np.bincount(codes)


def lorenz_curve(values: np.ndarray) -> np.ndarray:
    """(S + 1,) share of the sum that the k least hold, k = 0..S: from 0 to 1; the diagonal where there is nothing to share."""
    total = np.sort(values).cumsum()
    share = total / total[-1] if total[-1] > 0 else np.arange(1, len(values) + 1) / len(values)
    return np.concatenate([[0.0], share])


def gini(values: np.ndarray) -> float:
    """Gini coefficient of non-negative values: 1 less twice the area below the Lorenz curve; 0 to 1 - 1 / S."""
    curve = lorenz_curve(values)
    return float(1 - (curve[1:] + curve[:-1]).sum() / len(values))


def measure_risk(hits: np.ndarray, people: np.ndarray) -> Risk:
    """Risk of the people whose clips were tested.

    Args:
        hits: (n,) 1 where a clip's person was named; means over seeds count as shares.
        people: (n,) person of each clip.
    """
    found = recalls(hits, people)
    return Risk(
        worst=float(found.max()),
        p95=float(np.quantile(found, 0.95)),
        exposed=float((found > 0.5).mean()),
        gini=gini(found),
    )
