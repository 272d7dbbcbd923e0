"""Intervals that resample people, not clips.

The clips of one person are not independent. A resample draws as many people as there are, with replacement, and takes all their
clips; every statistic here is a function of how often each person was drawn, so thousands of resamples are a few matrix
products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import beta, norm, t

DRAWS = 2000
LEVEL = 0.95
UNBOUNDED = (-np.inf, np.inf)
SHARE = (0.0, 1.0)
EQUAL = 1e-12  # numbers that differ by less do so by rounding
FEW = 10  # resamples beyond a quantile; of fewer, where it lies is chance

_LEAST_PEOPLE, _LEAST_IN_GROUP = 4, 3  # with fewer, no interval that resamples people holds what it promises


@dataclass(frozen=True)
class Sample:
    """What an interval must know of the people behind a number: how far resamples of so few are too narrow.

    Args:
        sizes: Number of people in each class within which they were drawn.
    """

    sizes: tuple[float, ...]

    @property
    def people(self) -> float:
        return sum(self.sizes)

    @property
    def enough(self) -> bool:
        """Whether an interval can be stated at all.

        In simulations of 95 % intervals, those of two or three people held the truth in 66 and 84 of 100 cases, and of classes of
        two and ten in 86; study (b) of `bench validate` says how often those of more do.
        """
        return self.people >= _LEAST_PEOPLE and min(self.sizes) >= _LEAST_IN_GROUP

    def tail(self, level: float) -> float:
        """Share of the resamples to cut off at either end for an interval of this level.

        A resample varies as if the people of a class were all there are: by sqrt((n - 1) / n) too little, and as if their spread
        were known, which Student's t corrects (the expanded percentile interval: Hesterberg, The American Statistician 69(4),
        2015). Classes count alike in balanced numbers, so that the smallest of them decides (Welch's degrees of freedom, for
        people who vary as much in every class).
        """
        return float(norm.cdf(-self.reach(level))) if self.enough else 0.0

    def reach(self, level: float) -> float:
        """Standard deviations of the resamples from a value to either end of an interval of this level: by Student's t."""
        return float(self._widening * t.ppf((1 + level) / 2, self._freedom))

    def p_value(self, share: float) -> float:
        """Two-sided p value, 0 to 1, where the smaller share of the resamples lies on one side of the null: the inverse of
        `tail`.
        """
        return self.p_of(-float(norm.ppf(min(share, 0.5))))

    def p_of(self, deviation: float) -> float:
        """2 P(t > deviation / widening), 0 to 1: two-sided p value of a value so many standard deviations of its resamples away
        from the null (Student's t).
        """
        return float(2 * t.sf(deviation / self._widening, self._freedom)) if self.enough else 1.0

    @property
    def _variances(self) -> np.ndarray:
        """Of the mean of each class, in units of the variance of one person."""
        return 1 / np.asarray(self.sizes, dtype=float)

    @property
    def _freedom(self) -> float:
        if not np.isfinite(self.people):
            return np.inf
        of = self._variances
        return float(of.sum() ** 2 / (of**2 / (1 / of - 1)).sum())  # of one class, or of equal ones: people less classes

    @property
    def _widening(self) -> float:
        if not np.isfinite(self.people):
            return 1.0
        of = self._variances
        return float(np.sqrt(of.sum() / (of * (1 - of)).sum()))  # sqrt(n / (n - 1)) for n people a class


MANY = Sample((np.inf,))


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Args:
        value: The statistic on the data.
        low, high: Ends of the expanded percentile interval; not a number if there are too few people for one.
        draws: (B,) the statistic on each resample.
        sample: The people that were resampled.
        bounds: The least and the largest value that the statistic can have.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray
    sample: Sample = MANY
    bounds: tuple[float, float] = UNBOUNDED

    @property
    def turned(self) -> "Estimate":
        """One less this."""
        bounds = 1 - self.bounds[1], 1 - self.bounds[0]
        return Estimate(1 - self.value, 1 - self.high, 1 - self.low, 1 - self.draws, self.sample, bounds)

    def at(self, level: float) -> "Estimate":
        """The same value with an interval that holds the truth so often."""
        return estimate(self.value, self.draws, self.sample, level, self.bounds)


def estimate(
    value: float, draws: np.ndarray, sample: Sample, level: float = LEVEL, bounds: tuple[float, float] = UNBOUNDED
) -> Estimate:
    """Interval of resampled statistics; resamples that are not a number (an empty class) are left out.

    The expanded percentile interval (`Sample.tail`). Where next to no resample lies beyond it, as for four people or at a high
    level, it is widened to value ± reach * standard deviation of the resamples, within what is possible: the outermost of a few
    thousand resamples is too near.

    Args:
        value: The statistic on the data.
        draws: (B,) the statistic on each resample, in the same unit.
        sample: The people that were resampled.
        level: How often the interval is to hold the truth.
        bounds: The least and the largest value that the statistic can have.
    """
    usable = draws[np.isfinite(draws)]
    if not usable.size or not sample.enough:
        return Estimate(float(value), np.nan, np.nan, draws, sample, bounds)
    tail = sample.tail(level)
    low, high = np.quantile(usable, [tail, 1 - tail])
    if too_few_beyond(sample, len(usable), level):
        reach = sample.reach(level) * usable.std()
        low, high = max(bounds[0], min(low, value - reach)), min(bounds[1], max(high, value + reach))
    return Estimate(float(value), float(low), float(high), draws, sample, bounds)


def too_few_beyond(sample: Sample, resamples: int, level: float = LEVEL) -> bool:
    """Whether so few resamples lie beyond the ends of an interval that it is widened by their spread."""
    return sample.tail(level) * resamples < FEW


def jackknifed(values: np.ndarray, level: float = LEVEL, bounds: tuple[float, float] = UNBOUNDED) -> Estimate:
    """A statistic with an interval from leaving out one person at a time: value ± t * sqrt((S - 1) / S sum_s (v_s - mean v)^2).

    For what resamples with doubles distort, such as a distance of covariances. The jackknife of Tukey (Annals of Mathematical
    Statistics 29, 1958) with Student's t of S - 1 degrees of freedom; it errs, if at all, on the wide side (Efron and Stein,
    Annals of Statistics 9, 1981).

    Args:
        values: (1 + S,) the statistic on all people, then without each, in its unit.
        level: How often the interval is to hold the truth.
        bounds: The least and the largest value that the statistic can have.
    """
    whole, left = float(values[0]), values[1:]
    people = len(left)
    sample = Sample((people,))
    spread = float(np.sqrt((people - 1) / people * np.square(left - left.mean()).sum()))
    draws = whole + spread * norm.ppf((np.arange(DRAWS) + 0.5) / DRAWS)
    if not sample.enough or not np.isfinite(spread):
        return Estimate(whole, np.nan, np.nan, draws, sample, bounds)
    reach = spread * float(t.ppf((1 + level) / 2, people - 1))
    return Estimate(whole, max(bounds[0], whole - reach), min(bounds[1], whole + reach), draws, sample, bounds)


def largest_of(estimates: Sequence[Estimate], place: int, level: float = LEVEL) -> Estimate:
    """The estimate at `place`, which was chosen because it is the largest, with an interval for the largest of several.

    It did best here, and so better than it would elsewhere: its own interval lies too high. The lower end is therefore the
    largest of those that all keep together (Bonferroni, Dunn, JASA 56, 1961); the upper end is the largest of any.

    Args:
        estimates: All among which it was chosen, in one unit.
        place: Index of the chosen one.
        level: How often the interval is to hold the truth.
    """
    apart = estimates if level == LEVEL else [one.at(level) for one in estimates]
    together = [one.at(1 - (1 - level) / len(estimates)) for one in estimates]
    ends = [(strict.low, one.high) for strict, one in zip(together, apart, strict=True) if np.isfinite(strict.low)]
    low, high = map(max, zip(*ends, strict=True)) if ends else (np.nan, np.nan)
    return replace(estimates[place], low=low, high=high)


@dataclass(frozen=True)
class People:
    """The people of a test part and the resamples drawn from them.

    Args:
        codes: (n,) index of each clip's person, 0..S-1.
        weights: (B + 1, S) how often each person was drawn; row 0 is the data itself, once each.
        sizes: Number of people in each class within which they were drawn; () if they were drawn among all.
    """

    codes: np.ndarray
    weights: np.ndarray
    sizes: tuple[int, ...] = ()

    @property
    def sample(self) -> Sample:
        return Sample(self.sizes or (self.weights.shape[1],))

    def estimate(self, draws: np.ndarray, bounds: tuple[float, float] = UNBOUNDED, trials: float | None = None) -> Estimate:
        """A statistic (B + 1,) of `mean` or the like as a value with its interval, within the values that it can have.

        `trials` is as for `estimate_share`; None for what is no share of right answers.
        """
        if trials is None:
            return estimate(draws[0], draws[1:], self.sample, bounds=bounds)
        return estimate_share(draws, self.sample, trials, bounds)

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
        return cls(codes, np.vstack([np.ones(len(ids)), weights]), tuple(np.unique(groups, return_counts=True)[1].tolist()))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """(B + 1,) sum_s w_s sum of s's values / sum_s w_s clips of s: mean of a value per clip (n,), in its unit, over the clips
        of the people drawn; NaN where they have none.
        """
        people = self.weights.shape[1]
        count = self.weights @ np.bincount(self.codes, minlength=people)
        total = self.weights @ np.bincount(self.codes, weights=values, minlength=people)
        return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)

    def balanced_mean(self, values: np.ndarray, labels: np.ndarray, folds: np.ndarray | None = None) -> np.ndarray:
        """(B + 1,) mean over classes of the mean within each class: balanced accuracy if the values are hits.

        Where the classes are the people themselves, each counts as often as it was drawn. Otherwise classes count equally; a
        class that a resample misses is left out of that resample. Where several models share a test part, it is the mean over
        their folds (n,) of this, so that a model's preference for a class is no success; a fold that a resample leaves without
        one of its classes is left out.
        """
        folds = np.zeros(len(labels), dtype=int) if folds is None else folds
        shape = int(folds.max()) + 1, int(labels.max()) + 1
        people, cells = self.weights.shape[1], shape[0] * shape[1]
        place = self.codes * cells + folds * shape[1] + labels
        hits = np.bincount(place, weights=values, minlength=people * cells).reshape(people, cells)
        count = np.bincount(place, minlength=people * cells).reshape(people, cells)
        if ((count > 0).sum(axis=1) == 1).all() and ((count > 0).sum(axis=0) <= 1).all():
            recall = hits.sum(axis=1) / count.sum(axis=1)  # (S,)
            return self.weights @ recall / self.weights.sum(axis=1)
        drawn = self.weights @ count  # (B + 1, cells)
        recall = np.divide(self.weights @ hits, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
        recall = recall.reshape(-1, *shape)
        if shape[0] > 1:
            recall[(np.isnan(recall) & ~np.isnan(recall[0])).any(axis=2)] = np.nan
        return mean_of_known(mean_of_known(recall))


def unless_equal(draws: np.ndarray, trials: float) -> np.ndarray:
    """Resamples (B + 1,) of a share of right answers, or, if they all say the same, what else is known of it.

    They do where everybody is found equally often, such as every time. People then seem to be alike, and answers count: the
    posterior of k of n under the prior of Jeffreys, Beta(k + 1/2, n - k + 1/2) (Brown, Cai and DasGupta, Statistical Science
    16(2), 2001). In simulations of eight people who are alike, with twenty clips each of which 99 in 100 are named, intervals of
    resamples alone held the truth in 809 of 1000 cases, these in 999. Neither knows of people unlike those that were tested.

    Args:
        draws: The share on the data, then on each resample.
        trials: n, the answers; of a mean over classes `balanced_trials`.
    """
    resampled = draws[1:][np.isfinite(draws[1:])]
    if not resampled.size or np.ptp(resampled) >= EQUAL:
        return draws
    right, count = float(draws[0]) * trials, len(draws) - 1
    posterior = beta.ppf((np.arange(count) + 0.5) / count, right + 0.5, trials - right + 0.5)
    # Two shares vary independently of each other; one and the same does not vary from itself.
    return np.r_[draws[0], np.random.default_rng([round(1e6 * right), round(trials)]).permutation(posterior)]


def estimate_share(draws: np.ndarray, sample: Sample, trials: float, bounds: tuple[float, float] = SHARE) -> Estimate:
    """A share of right answers with its interval; also where all resamples say the same (`unless_equal`).

    The interval is then that of the answers. Compared with others it counts as a number of so few people, as all do.

    Args:
        draws: (B + 1,) the share on the data, then on each resample.
        sample: The people that were resampled.
        trials: As for `unless_equal`.
        bounds: The least and the largest value that it can have.
    """
    told = unless_equal(draws, trials)
    found = estimate(draws[0], told[1:], sample, bounds=bounds)
    if told is draws or not sample.enough:
        return found
    alone = estimate(draws[0], told[1:], MANY, bounds=bounds)
    return replace(found, low=min(alone.low, found.value), high=max(alone.high, found.value))


def estimate_all_or_nothing(shares: np.ndarray, counts: np.ndarray | None = None) -> Estimate:
    """Mean over people of a share that most have wholly or not at all, such as how often ten clips name somebody.

    Resamples of people who are all found know nothing of people who never are. The ends are those of two posteriors of the mean,
    under Dirichlet processes (Ferguson, Annals of Statistics 1(2), 1973) whose base is half a person: for the lower end one who
    is never found, for the upper end one who always is. Of k people found and n - k not, they are quantiles of
    Beta(k, n - k + 1/2) and Beta(k + 1/2, n - k), a little wider than under the prior of Jeffreys. In simulations of 8 to 106
    people, from chance to 0.92 of whom are found, each end was beyond the truth in at most 4 of 100 cases; an end of resamples in
    up to 27 where most are found, and one of a single posterior with both halves in up to 10 at chance. Study (b) of
    `bench validate` has more.

    Args:
        shares: (S,) of each person, 0 to 1.
        counts: (S,) how much each of them counts; None for alike. Where people who count more are found more often, the upper end
            may be beyond the truth more often, as with resamples.
    """
    weights = np.ones(len(shares)) if counts is None else counts / counts.mean()
    value, sample = float(weights @ shares / len(shares)), Sample((len(shares),))
    if not sample.enough:
        return Estimate(value, np.nan, np.nan, np.empty(0), sample, SHARE)
    rng = np.random.default_rng(0)
    drawn = rng.standard_exponential(size=(10 * DRAWS, len(shares))) * weights
    half, found, everything = rng.standard_gamma(0.5, size=10 * DRAWS), drawn @ shares, drawn.sum(axis=1)
    lower, upper = (np.sort((found + more) / (everything + half)).reshape(DRAWS, 10).mean(axis=1) for more in (0, half))
    draws = np.r_[lower[: DRAWS // 2], upper[DRAWS // 2 :]]  # in order: whatever the level, an end is that of its posterior
    told = estimate(value, draws, MANY, bounds=SHARE)
    return replace(told, low=min(told.low, value), high=max(told.high, value))


def balanced_trials(labels: np.ndarray) -> int:
    """Answers behind a mean over classes, as if all had as few as the smallest of the labels (n,)."""
    sizes = np.unique(labels, return_counts=True)[1]
    return int(len(sizes) * sizes.min())


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is a number; not a number where nothing is."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def variance_components(values: np.ndarray) -> tuple[float, float]:
    """Variances of a number between seeds, and between draws with the same seed: (between, within).

    values[i, j] = mean + seed_i + draw_ij, estimated by the analysis of variance of one random factor (Searle, Casella and
    McCulloch, "Variance Components", 1992): within = mean over i of var_j(values[i, j]);
    between = var_i(mean_j(values[i, j])) less within / D, and never below 0. In the number's own unit, squared.

    Args:
        values: (S, D), a row a seed.

    Returns:
        Both; not a number where there is one seed, or one draw. With one draw, `between` holds what draws add.
    """
    seeds, draws = values.shape
    within = float(values.var(axis=1, ddof=1).mean()) if draws > 1 else np.nan
    if seeds == 1:
        return np.nan, within
    between = float(values.mean(axis=1).var(ddof=1))
    return (max(between - within / draws, 0.0) if draws > 1 else between), within
