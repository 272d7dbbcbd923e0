"""Intervals that resample people, not clips (methods.md section 6.7).

The clips of one person are not independent. A resample draws as many people as there are, with replacement, and takes all their
clips; every statistic here is a function of how often each person was drawn, so thousands of resamples are a few matrix
products.
"""

from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Args:
        value: The statistic on the data.
        low, high: Ends of the percentile interval.
        draws: (B,) the statistic on each resample.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray


def estimate(value: float, draws: np.ndarray, level: float = LEVEL) -> Estimate:
    """Percentile interval of resampled statistics; resamples that are not a number (an empty class) are left out."""
    usable = draws[np.isfinite(draws)]
    if not usable.size:
        return Estimate(float(value), float(value), float(value), draws)
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(value), float(low), float(high), draws)


@dataclass(frozen=True)
class People:
    """The people of a test part and the resamples drawn from them.

    Args:
        codes: (n,) index of each clip's person, 0..S-1.
        weights: (B + 1, S) how often each person was drawn; row 0 is the data itself, once each.
    """

    codes: np.ndarray
    weights: np.ndarray

    @classmethod
    def resample(
        cls, subjects: np.ndarray, rng: np.random.Generator, *, strata: np.ndarray | None = None, draws: int = DRAWS
    ) -> "People":
        """Draws the resamples.

        Args:
            subjects: (n,) person of each clip.
            rng: Source of the draws.
            strata: (n,) class of each clip. Where it is constant within every person and shared by several (an attribute such as
                gender), people are drawn within their class, so that no class ever vanishes.
            draws: Number of resamples B.
        """
        ids, codes = np.unique(subjects, return_inverse=True)
        groups = np.zeros(len(ids), dtype=int)
        if strata is not None:
            pairs = np.unique(np.stack([codes, strata]), axis=1)
            if pairs.shape[1] == len(ids) > len(np.unique(strata)):
                groups = pairs[1]
        weights = np.zeros((draws, len(ids)))
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
        return cls(codes, np.vstack([np.ones(len(ids)), weights]))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """(B + 1,) mean of a value per clip (n,): pooled over the clips of the people drawn."""
        return (self.weights @ np.bincount(self.codes, weights=values)) / (self.weights @ np.bincount(self.codes))

    def balanced_mean(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(B + 1,) mean over classes of the mean within each class: balanced accuracy if the values are hits.

        Where the classes are the people themselves, each counts as often as it was drawn. Otherwise classes count equally; a
        class that a resample misses is left out of that resample.
        """
        classes = int(labels.max()) + 1
        people = self.weights.shape[1]
        cells = self.codes * classes + labels
        hits = np.bincount(cells, weights=values, minlength=people * classes).reshape(people, classes)
        count = np.bincount(cells, minlength=people * classes).reshape(people, classes)
        if ((count > 0).sum(axis=1) == 1).all() and ((count > 0).sum(axis=0) <= 1).all():
            recall = hits.sum(axis=1) / count.sum(axis=1)  # (S,)
            return self.weights @ recall / self.weights.sum(axis=1)
        drawn = self.weights @ count  # (B + 1, K)
        recall = np.divide(self.weights @ hits, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
        return np.nanmean(recall, axis=1)
