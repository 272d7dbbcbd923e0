"""Verification and linkage metrics on scores of mated and of non-mated pairs (methods.md section 6.3); pure functions on arrays.

Everywhere `mated` (m,) and `others` (q,) are scores, higher is more alike; only their order counts, but for `linkability` and
`maximal_linkability`, which bin them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import entr
from scipy.stats import rankdata

from bench.metrics.uncertainty import DRAWS, Estimate, People, estimate

FULL_DISCLOSURE = 1 / np.log(4)  # bit: `expected_disclosure` of scores that part mated from non-mated pairs
_LEVELS = 1000  # distinct scores that resamples tell apart
_PRIORS = 2001  # points of the integral over priors
_SEARCH = 48  # steps of the search for the equal error rate: the interval shrinks to below 1e-9


def roc_auc(mated: np.ndarray, others: np.ndarray) -> float:
    """Probability that a mated pair scores above a non-mated one, ties counting half: 0.5 is no information."""
    ranks = rankdata(np.concatenate([mated, others]))
    return float((ranks[: len(mated)].sum() - len(mated) * (len(mated) + 1) / 2) / (len(mated) * len(others)))


def equal_error_rate(mated: np.ndarray, others: np.ndarray) -> float:
    """The rate at which as many non-mated pairs are accepted as mated ones refused, on the ROC's convex hull; 0.5 is none."""
    return float(_equal_error_rate(*(counts[None] for counts in _levels(mated, others)))[0])


def true_accept_rate(mated: np.ndarray, others: np.ndarray, far: float) -> float:
    """Share of mated pairs accepted at the lowest threshold that accepts at most the share `far` of non-mated pairs."""
    allowed = int(np.floor(far * len(others) + 1e-9))
    ordered = np.sort(others)[::-1]
    # Above the first score that must be refused; pairs that tie with it are refused as well.
    return float(np.mean(mated > ordered[allowed])) if allowed < len(ordered) else 1.0


def linkability(mated: np.ndarray, others: np.ndarray, bins: int = 100) -> float:
    """D_sys (Gomez-Barrero et al., TIFS 2018) for equal priors: 0 is unlinkable, 1 fully linkable.

    Histograms of `bins` equal bins over the pooled range; a bin without non-mated pairs counts as fully linkable. Sensitive to
    the binning, and high by chance below some 10,000 pairs.
    """
    m, q = _histograms(mated, others, bins)
    ratio = np.divide(m, q, out=np.full(bins, np.inf), where=q > 0)
    gain = np.where(np.isinf(ratio), 1.0, 2 * ratio / (1 + np.where(np.isinf(ratio), 0, ratio)) - 1)
    return float((m * np.where(ratio > 1, gain, 0.0)).sum())


def maximal_linkability(mated: np.ndarray, others: np.ndarray, bins: int = 30) -> float:
    """Maximal linkability (Otroshi Shahreza et al., TIFS 2023) in bit, 0 to 1, from histograms of `bins` equal bins."""
    return float(np.log2(np.maximum(*_histograms(mated, others, bins)).sum()))


def log_likelihood_ratio_cost(mated: np.ndarray, others: np.ndarray) -> float:
    """C_llr of scores that claim to be natural logarithms of likelihood ratios: 0 is perfect, 1 says nothing."""
    return float((np.logaddexp(0, -mated).mean() + np.logaddexp(0, others).mean()) / np.log(4))


def min_log_likelihood_ratio_cost(mated: np.ndarray, others: np.ndarray) -> float:
    """C_llr of the scores after the best monotone calibration (pool adjacent violators): 1 is no information."""
    m, q, ratio = _calibrated(mated, others)
    with np.errstate(divide="ignore", invalid="ignore"):  # a pool of one class alone costs the other one nothing
        missed, accepted = np.where(m > 0, m * np.log2(1 + 1 / ratio), 0), np.where(q > 0, q * np.log2(1 + ratio), 0)
    return float((missed.sum() + accepted.sum()) / 2)


def expected_disclosure(mated: np.ndarray, others: np.ndarray) -> float:
    """ZEBRA's expected privacy disclosure D_ECE in bit (Nautsch et al., Interspeech 2020): 0 to 1 / ln 4 = 0.721."""
    m, q, ratio = _calibrated(mated, others)
    prior = (np.arange(_PRIORS) + 0.5)[:, None] / _PRIORS  # midpoints: the ends are limits
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.where(m > 0, m * np.log2(1 + (1 - prior) / (prior * ratio)), 0).sum(1)
        accepted = np.where(q > 0, q * np.log2(1 + ratio * prior / (1 - prior)), 0).sum(1)
    prior = prior[:, 0]
    before = (entr(prior) + entr(1 - prior)) / np.log(2)
    return float((before - prior * missed - (1 - prior) * accepted).mean())


def worst_disclosure(mated: np.ndarray, others: np.ndarray) -> float:
    """ZEBRA's worst case: the largest |log10| of a calibrated likelihood ratio, that of the most telling pair.

    One mated and one non-mated pair are added at either end (Laplace's rule), since a ratio from one class alone is infinite.
    """
    ends = np.array([-np.inf, np.inf])
    _, _, ratio = _calibrated(np.concatenate([mated, ends]), np.concatenate([others, ends]))
    return float(np.abs(np.log10(ratio)).max())


def _histograms(mated: np.ndarray, others: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    pooled = np.concatenate([mated, others])
    return tuple(np.histogram(s, bins, (pooled.min(), pooled.max()))[0] / len(s) for s in (mated, others))


def _levels(mated: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many mated and non-mated pairs have each distinct score, from the lowest: two arrays (G,)."""
    _, level = np.unique(np.concatenate([mated, others]), return_inverse=True)
    count = level.max() + 1
    return np.bincount(level[: len(mated)], minlength=count), np.bincount(level[len(mated) :], minlength=count)


def _calibrated(mated: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of the mated and the non-mated pairs in each pool of one calibrated score, and its likelihood ratio: each (G,)."""
    m, q = (counts / counts.sum() for counts in _levels(mated, others))
    fitted = isotonic_regression(m / (m + q), weights=m + q)
    pools = np.add.reduceat(np.stack([m, q]), fitted.blocks[:-1], axis=1)
    with np.errstate(divide="ignore"):
        return *pools, pools[0] / pools[1]


def _equal_error_rate(mated: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(B,) from counts (B, G) at each score, from the lowest.

    On the convex hull of the ROC the equal error rate is the worst prior's least error, max over pi of min over thresholds of
    pi * FRR + (1 - pi) * FAR (minimax); the minimum is concave in pi, so a golden-section search finds it for all B at once.
    """
    refused = np.pad(mated.cumsum(1) / mated.sum(1, keepdims=True), ((0, 0), (1, 0)))  # FRR when the first g levels are refused
    accepted = 1 - np.pad(others.cumsum(1) / others.sum(1, keepdims=True), ((0, 0), (1, 0)))  # FAR

    def least_error(prior: np.ndarray) -> np.ndarray:
        return (accepted + prior[:, None] * (refused - accepted)).min(1)

    golden = (np.sqrt(5) - 1) / 2
    low, high = np.zeros(len(mated)), np.ones(len(mated))
    left, right = high - golden, low + golden
    at_left, at_right = least_error(left), least_error(right)
    for _ in range(_SEARCH):
        up = at_left < at_right  # the maximum lies right of `left`
        low, high = np.where(up, left, low), np.where(up, high, right)
        left, right = high - golden * (high - low), low + golden * (high - low)
        at_left, at_right = least_error(left), least_error(right)
    return np.maximum(at_left, at_right)


@dataclass(frozen=True)
class Linkage:
    """Everything about the scores of one set of pairs.

    Args:
        auc, eer: With intervals that resample people: a pair counts as often as its people were drawn, a non-mated one as often
            as the product.
        tar_01, tar_001: Share of mated pairs accepted where 1 % and 0.1 % of the non-mated are.
        linkability: D_sys.
        maximal_linkability: In bit.
        min_cllr: C_llr after calibration.
        disclosure: ZEBRA's expected disclosure in bit.
        worst_disclosure: ZEBRA's worst case, log10 of a likelihood ratio.
    """

    auc: Estimate
    eer: Estimate
    tar_01: float
    tar_001: float
    linkability: float
    maximal_linkability: float
    min_cllr: float
    disclosure: float
    worst_disclosure: float


def measure_linkage(
    scores: np.ndarray,
    mated: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Linkage:
    """Measures the scores of pairs.

    Args:
        scores: (P,) higher is more alike.
        mated: (P,) bool.
        first, second: (P,) person of each clip of a pair.
        rng: Source of the resamples.
        draws: Number of resamples.
    """
    m, q = scores[mated], scores[~mated]
    counts = _resampled(scores, mated, first, second, rng, draws)
    return Linkage(
        auc=estimate(roc_auc(m, q), _auc(*counts)),
        eer=estimate(equal_error_rate(m, q), _equal_error_rate(*counts)),
        tar_01=true_accept_rate(m, q, 0.01),
        tar_001=true_accept_rate(m, q, 0.001),
        linkability=linkability(m, q),
        maximal_linkability=maximal_linkability(m, q),
        min_cllr=min_log_likelihood_ratio_cost(m, q),
        disclosure=expected_disclosure(m, q),
        worst_disclosure=worst_disclosure(m, q),
    )


def _auc(mated: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(B,) from counts (B, G) at each score, from the lowest."""
    below = others.cumsum(1) - others / 2  # ties count half
    return (mated * below).sum(1) / (mated.sum(1) * others.sum(1))


def _resampled(
    scores: np.ndarray, mated: np.ndarray, first: np.ndarray, second: np.ndarray, rng: np.random.Generator, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (B, G) of mated and of non-mated pairs at each of at most `_LEVELS` scores, in resamples that have both."""
    people, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, two = codes[: len(first)], codes[len(first) :]
    weights = People.resample(people, rng, draws=draws).weights[1:]  # (B, S)
    ranks = rankdata(scores, method="dense") - 1
    if ranks.max() >= _LEVELS:
        ranks = rankdata(scores) * _LEVELS / (len(scores) + 1)
    level = ranks.astype(int)
    levels = level.max() + 1

    def counted(chosen: np.ndarray, who: np.ndarray, by_who: np.ndarray) -> np.ndarray:
        kinds = by_who.shape[1]
        cells = np.bincount(who[chosen] * levels + level[chosen], minlength=kinds * levels).reshape(kinds, levels)
        return by_who @ cells

    distinct, both = np.unique(one * len(people) + two, return_inverse=True)
    products = weights[:, distinct // len(people)] * weights[:, distinct % len(people)]
    m, q = counted(mated, one, weights), counted(~mated, both, products)
    usable = (m.sum(1) > 0) & (q.sum(1) > 0)
    return m[usable], q[usable]
