"""Verification and linkage metrics on scores of mated and of non-mated pairs; pure functions on arrays.

Everywhere `mated` (m,) and `others` (q,) are scores, higher is more alike; only their order counts, but for `linkability` and
`maximal_linkability`, which bin them, and for `log_likelihood_ratio_cost`, which takes them at their word. `weights` holds how
often each mated and each non-mated pair counts, (m,) and (q,): a pair of weight 2 is the same as two pairs, one of weight 0 as
none.

An attacker that is reliably wrong knows as much as one that is right. Its AUC lies below 0.5 and |AUC - 0.5| measures both;
linkability and maximal linkability need no order and see it as well. The equal error rate, the cost after calibration and both
disclosures take higher scores for more alike and report such an attacker as one without information: turn its scores round.

Raises (all functions of scores):
    ValueError: if there are no scores of a kind, if they are not one-dimensional or not numbers, or if the weights do not fit.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.sparse import csr_array
from scipy.stats import rankdata

from bench.metrics.uncertainty import DRAWS, Estimate, People, Sample, estimate_share

_GRADES = {"0": 1e-12, "A": 1.0, "B": 2.0, "C": 4.0, "D": 5.0, "E": 6.0, "F": np.inf}  # largest log10 ratio of each
_ROUNDING = 1e-12  # of shares
_SERIES = np.array([-1 / 14, 1 / 12, -1 / 10, 1 / 8, -1 / 6, 1 / 4])  # of `_missed_over_priors` about a ratio of 1
_NEAR = 0.003  # the series is exact to 1e-15 below, its closed form to 1e-11 above
_LEVELS = 1000  # distinct scores that resamples tell apart
_CHUNK = 250  # resamples counted at once, to bound memory

Weights = tuple[np.ndarray, np.ndarray]


def roc_auc(mated: np.ndarray, others: np.ndarray, weights: Weights | None = None) -> float:
    """P(m > q) + P(m = q) / 2 for a mated score m and a non-mated one q: area under the ROC curve, 0 to 1.

    0.5 is no information, 0 always wrong (Mann and Whitney, Annals of Mathematical Statistics 18, 1947; Hanley and McNeil,
    Radiology 143, 1982).
    """
    return float(_auc(*(counts[None] for counts in _levels(mated, others, weights)))[0])


def equal_error_rate(mated: np.ndarray, others: np.ndarray, weights: Weights | None = None) -> float:
    """FAR = FRR, where as large a share of non-mated pairs is accepted as of mated ones refused: 0 to 0.5 (no information).

    On the ROC's convex hull, between whose corners thresholds are mixed (Brümmer and de Villiers, "The BOSARIS toolkit", 2011).
    Never above 0.5, even of a reliably wrong attacker: the hull holds the diagonal, on which scores are not looked at.
    """
    return float(_equal_error_rate(*(counts[None] for counts in _levels(mated, others, weights)))[0])


def true_accept_rate(mated: np.ndarray, others: np.ndarray, far: float, weights: Weights | None = None) -> float:
    """TAR = P(m >= t), t the lowest threshold with P(q >= t) <= `far`: share of mated pairs accepted, 0 to 1.

    As ISO/IEC 19795-1 defines its complement, the false non-match rate at a false match rate. Pairs of one score are accepted or
    refused together, so that `far` is never exceeded, however many tie; a `far` below the share of one non-mated pair accepts
    what lies above all of them.

    Raises:
        ValueError: also if `far` is not within 0 to 1.
    """
    if not 0 <= far <= 1:
        raise ValueError(f"far is a share of non-mated pairs and must be within 0 to 1, got {far}")
    m, q = _levels(mated, others, weights)
    accepted = q[::-1].cumsum()[::-1] / q.sum()  # from each score on
    return float(m[accepted <= far + _ROUNDING].sum() / m.sum())


def linkability(mated: np.ndarray, others: np.ndarray, bins: int = 100, weights: Weights | None = None) -> float:
    """D_sys = sum over bins of p(s | mated) D(s): a share from 0, unlinkable, to 1, fully linkable.

    D = 2 LR / (1 + LR) - 1 where LR = p(s | mated) / p(s | non-mated) > 1, else 0; for equal priors (Gomez-Barrero et al., TIFS
    2018).
    Histograms of `bins` equal bins over the pooled range; a bin without non-mated pairs counts as fully linkable. Sensitive to
    the binning, and high by chance below some 10,000 pairs.
    """
    m, q = _histograms(mated, others, bins, weights)
    # m * (2 ratio / (1 + ratio) - 1) with ratio = m / q is m * (m - q) / (m + q), which also holds where q is 0.
    return float((m * np.divide(np.maximum(m - q, 0), m + q, out=np.zeros(bins), where=m > 0)).sum())


def maximal_linkability(mated: np.ndarray, others: np.ndarray, bins: int = 30, weights: Weights | None = None) -> float:
    """log2(sum over bins of max(p(s | mated), p(s | non-mated))) in bit, 0 to 1 (Otroshi Shahreza et al., TIFS 2023).

    From histograms of `bins` equal bins over the pooled range: sensitive to the binning, and high by chance for few pairs.
    """
    return float(np.log2(np.maximum(*_histograms(mated, others, bins, weights)).sum()))


def log_likelihood_ratio_cost(mated: np.ndarray, others: np.ndarray, weights: Weights | None = None) -> float:
    """C_llr = (mean log2(1 + exp(-m)) + mean log2(1 + exp(q))) / 2 in bit: 0 is perfect, 1 is what zeros cost.

    Of scores that claim to be natural logarithms of likelihood ratios (Brümmer and du Preez, Computer Speech and Language 20,
    2006). Without bound above: a ratio that is far out on the wrong side costs its logarithm, an infinite one everything.
    """
    m, q, of_mated, of_others = _checked(mated, others, weights)
    missed, accepted = np.logaddexp(0, -m) @ of_mated / of_mated.sum(), np.logaddexp(0, q) @ of_others / of_others.sum()
    return float((missed + accepted) / np.log(4))


def min_log_likelihood_ratio_cost(mated: np.ndarray, others: np.ndarray, weights: Weights | None = None) -> float:
    """(mean log2(1 + 1 / LR(m)) + mean log2(1 + LR(q))) / 2 in bit, 0 to 1 (no information).

    C_llr with LR the best monotone calibration of the scores, by pooling adjacent violators (Brümmer and du Preez, 2006).
    """
    m, q, ratio = _calibrated(*_levels(mated, others, weights))
    with np.errstate(divide="ignore"):  # a pool of one class alone costs that class nothing
        missed, accepted = np.log2(1 + 1 / ratio[m > 0]), np.log2(1 + ratio[q > 0])
    return float((m[m > 0] @ missed + q[q > 0] @ accepted) / 2)


def expected_disclosure(mated: np.ndarray, others: np.ndarray, weights: Weights | None = None) -> float:
    """D_ECE = integral over the prior p from 0 to 1 of H_b(p) - ECE(p), in bit, 0 to 1 / ln 4 = 0.721.

    ZEBRA's expected privacy disclosure (Nautsch et al., Interspeech 2020); ECE(p) = p mean log2(1 + (1 - p) / (p LR(m))) + (1 -
    p) mean log2(1 + LR(q) p / (1 - p)) with calibrated ratios LR. The integral over the priors has a closed form: what a
    calibrated ratio costs mated pairs is `_missed_over_priors` of it, and what it costs non-mated ones is that of its inverse.
    """
    m, q, ratio = _calibrated(*_levels(mated, others, weights))
    with np.errstate(divide="ignore"):
        missed, accepted = _missed_over_priors(ratio[m > 0]), _missed_over_priors(1 / ratio[q > 0])
    return float((0.5 - m[m > 0] @ missed - q[q > 0] @ accepted) / np.log(2))


def worst_disclosure(mated: np.ndarray, others: np.ndarray, weights: Weights | None = None) -> float:
    """max |log10 LR|, a logarithm to base 10 from 0 (none) upwards: ZEBRA's worst case (Nautsch et al., Interspeech 2020).

    LR is the calibrated likelihood ratio of the most telling pair. One mated and one non-mated pair are added at either end
    (Laplace's rule), since a ratio from one class alone is infinite: scores that part n mated from k non-mated pairs reach about
    log10 of the larger of n and k.
    """
    m, q = (np.pad(counts, 1, constant_values=1.0) for counts in _levels(mated, others, weights))
    return float(np.abs(np.log10(_calibrated(m, q)[2])).max())


def disclosure_grade(worst: float) -> str:
    """ZEBRA's letter for a `worst_disclosure`: 0 (none), A up to 1, B to 2, C to 4, D to 5, E to 6, F above.

    Nautsch et al. (Interspeech 2020).

    Raises:
        ValueError: if it is negative or not a number.
    """
    if not worst >= 0:
        raise ValueError(f"a worst disclosure is |log10| of a ratio and must be >= 0, got {worst}")
    return next(grade for grade, largest in _GRADES.items() if worst <= largest)


def _checked(mated: np.ndarray, others: np.ndarray, weights: Weights | None) -> tuple[np.ndarray, ...]:
    """Scores of mated and of non-mated pairs and the weights of both, without pairs of weight 0."""
    found = []
    weights = (None, None) if weights is None else weights
    for kind, scores, weight in zip(("mated", "non-mated"), (mated, others), weights, strict=True):
        scores = np.asarray(scores, dtype=float)
        weight = np.ones(scores.shape) if weight is None else np.asarray(weight, dtype=float)
        if scores.ndim != 1 or not scores.size:
            raise ValueError(f"expected at least one score of {kind} pairs, on one axis, got shape {scores.shape}")
        if np.isnan(scores).any():
            raise ValueError(f"expected numbers as scores of {kind} pairs, got {np.isnan(scores).sum()} NaN in {scores.size}")
        if weight.shape != scores.shape:
            raise ValueError(f"expected a weight for each of {scores.size} {kind} pairs, got shape {weight.shape}")
        if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
            raise ValueError(f"expected weights of {kind} pairs that are finite, >= 0 and not all 0, got {weight.min()} at least")
        found.append((scores[weight > 0], weight[weight > 0]))
    (mated, of_mated), (others, of_others) = found
    return mated, others, of_mated, of_others


def _histograms(mated: np.ndarray, others: np.ndarray, bins: int, weights: Weights | None) -> tuple[np.ndarray, ...]:
    """(bins,) shares of the mated and of the non-mated pairs in equal bins over the pooled range."""
    m, q, of_mated, of_others = _checked(mated, others, weights)
    ends = min(m.min(), q.min()), max(m.max(), q.max())
    if not np.isfinite(ends).all():
        raise ValueError(f"expected finite scores, which bins can hold, got {ends[0]} to {ends[1]}")
    return tuple(np.histogram(s, bins, ends, weights=w)[0] / w.sum() for s, w in ((m, of_mated), (q, of_others)))


def _levels(mated: np.ndarray, others: np.ndarray, weights: Weights | None) -> tuple[np.ndarray, np.ndarray]:
    """How many mated and non-mated pairs have each distinct score, from the lowest: two arrays (G,)."""
    m, q, of_mated, of_others = _checked(mated, others, weights)
    _, level = np.unique(np.concatenate([m, q]), return_inverse=True)
    count = level.max() + 1
    return np.bincount(level[: len(m)], of_mated, count), np.bincount(level[len(m) :], of_others, count)


def _calibrated(mated: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts at each score to pools of one calibrated score: shares of the mated and the non-mated pairs, ratio; each (G,)."""
    m, q = mated / mated.sum(), others / others.sum()
    fitted = isotonic_regression(m / (m + q), weights=m + q)
    pools = np.add.reduceat(np.stack([m, q]), fitted.blocks[:-1], axis=1)
    with np.errstate(divide="ignore"):
        return *pools, pools[0] / pools[1]


def _missed_over_priors(ratio: np.ndarray) -> np.ndarray:
    """Integral over the prior p of p * ln(1 + (1 - p) / (p * ratio)), in nat: (a - ln(1 + a)) / (2 a^2) with a = ratio - 1.

    1/4 at a ratio of 1, where nothing is known, and 0 at an infinite one.
    """
    a = ratio - 1
    near = np.abs(a) < _NEAR
    with np.errstate(divide="ignore", invalid="ignore"):
        integral = np.where(np.isinf(a), 0.0, (a - np.log(ratio)) / (2 * a * a))
    integral[near] = np.polyval(_SERIES, a[near])
    return integral


def _auc(mated: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(B,) from counts (B, G) at each score, from the lowest."""
    below = others.cumsum(1) - others / 2  # ties count half
    return (mated * below).sum(1) / (mated.sum(1) * others.sum(1))


def _equal_error_rate(mated: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(B,) from counts (B, G) at each score, from the lowest.

    Walks to the edge of the ROC's convex hull that crosses FAR = FRR: between the two ends of a chord that crosses it, the point
    farthest below the chord takes the place of the end on its own side, until no point is below. Exact after a few steps.
    """
    refused = np.pad(mated.cumsum(1) / mated.sum(1, keepdims=True), ((0, 0), (1, 0)))  # FRR when the first g scores are refused
    accepted = 1 - np.pad(others.cumsum(1) / others.sum(1, keepdims=True), ((0, 0), (1, 0)))  # FAR
    rows = np.arange(len(mated))
    left, right = np.zeros(len(mated), int), np.full(len(mated), mated.shape[1])  # FAR >= FRR, FAR <= FRR
    open_ = rows
    while open_.size:
        ends = left[open_], right[open_]
        (far, far_right), (frr, frr_right) = ([curve[open_, end] for end in ends] for curve in (accepted, refused))
        across, down = (frr_right - frr)[:, None], (far - far_right)[:, None]
        height = across * accepted[open_] + down * refused[open_]
        lowest = height.argmin(1)
        here = np.arange(open_.size)
        moved = height[here, lowest] < height[here, ends[0]] - _ROUNDING
        open_, lowest = open_[moved], lowest[moved]
        on_left = accepted[open_, lowest] >= refused[open_, lowest]
        left[open_[on_left]], right[open_[~on_left]] = lowest[on_left], lowest[~on_left]
    gap_left, gap_right = accepted[rows, left] - refused[rows, left], refused[rows, right] - accepted[rows, right]
    share = gap_left / (gap_left + gap_right)
    return refused[rows, left] + share * (refused[rows, right] - refused[rows, left])


def _crossing_rate(mated: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(B,) where FAR = FRR on the ROC itself, not on its hull, and 0.5 at most; from counts (B, G), from the lowest.

    For resamples: a hull is fitted to each of them anew and so lies below 0.5 in all, even where there is nothing to find.
    """
    refused = np.pad(mated.cumsum(1) / mated.sum(1, keepdims=True), ((0, 0), (1, 0)))
    accepted = 1 - np.pad(others.cumsum(1) / others.sum(1, keepdims=True), ((0, 0), (1, 0)))
    gap = accepted - refused  # falls from 1 to -1
    rows, after = np.arange(len(mated)), (gap <= 0).argmax(1)
    before = after - 1
    share = gap[rows, before] / (gap[rows, before] - gap[rows, after])
    return np.minimum(refused[rows, before] + share * (refused[rows, after] - refused[rows, before]), 0.5)


def clustered_auc(people: People, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(B + 1,) `roc_auc` of clips, 0 to 1, each as often as its person was drawn; not a number where a kind is missing.

    Args:
        people: The people of the clips and their resamples.
        scores: (n,) higher speaks for the positive class. Resamples tell 1000 of them apart.
        positive: (n,) bool.
    """
    level = _coarse(scores)
    shape = people.weights.shape[1], level.max() + 1
    counts = []
    for of in (positive, ~positive):
        cells = np.bincount(people.codes[of] * shape[1] + level[of], minlength=shape[0] * shape[1]).reshape(shape)
        counts.append(people.weights @ cells)
    with np.errstate(invalid="ignore"):
        found = _auc(*counts)
    found[0] = roc_auc(scores[positive], scores[~positive])
    return found


def _coarse(scores: np.ndarray) -> np.ndarray:
    """Levels (n,) of scores, from 0: their dense ranks, or about `_LEVELS` steps of them where there are more."""
    ranks = rankdata(scores, method="dense") - 1
    if ranks.max() >= _LEVELS:
        ranks = rankdata(scores) * _LEVELS / (len(scores) + 1)
    return ranks.astype(int)


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
        linkability_chance, maximal_linkability_chance, disclosure_chance, worst_disclosure_chance: What these four are, on
            average, where scores have nothing to do with who is seen: far from 0 where pairs are few. Pairs count as independent,
            so that it may be more: whether anything is found is told by `link_p_value`.
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
    linkability_chance: float
    maximal_linkability_chance: float
    disclosure_chance: float
    worst_disclosure_chance: float


_WITHOUT_CHANCE = {  # of few pairs, these are above 0 without any information
    "linkability": linkability,
    "maximal_linkability": maximal_linkability,
    "disclosure": expected_disclosure,
    "worst_disclosure": worst_disclosure,
}


def measure_linkage(
    scores: np.ndarray,
    mated: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    rng: np.random.Generator,
    draws: int = DRAWS,
    chance: int = 20,
) -> Linkage:
    """Measures the scores of pairs; units and ranges are those of the functions named as the fields of `Linkage`.

    Args:
        scores: (P,) higher is more alike.
        mated: (P,) bool.
        first, second: (P,) person of each clip of a pair.
        rng: Source of the resamples.
        draws: Number of resamples.
        chance: Number of times that mated and non-mated pairs of each first person are exchanged at random, to see what the
            binned and calibrated numbers are by chance; with 0 they are not a number.
    """
    m, q = scores[mated], scores[~mated]
    counts = _resampled(scores, mated, first, second, rng, draws)
    people = len(np.union1d(first, second))
    sample = Sample((people,))
    return Linkage(
        auc=estimate_share(np.r_[roc_auc(m, q), _auc(*counts)], sample, people),
        eer=estimate_share(np.r_[equal_error_rate(m, q), _crossing_rate(*counts)], sample, people, bounds=(0.0, 0.5)),
        tar_01=true_accept_rate(m, q, 0.01),
        tar_001=true_accept_rate(m, q, 0.001),
        min_cllr=min_log_likelihood_ratio_cost(m, q),
        **{name: of(m, q) for name, of in _WITHOUT_CHANCE.items()},
        **_by_chance(scores, mated, first, rng, chance),
    )


def _by_chance(
    scores: np.ndarray, mated: np.ndarray, first: np.ndarray, rng: np.random.Generator, times: int
) -> dict[str, float]:
    """Means of the numbers of `_WITHOUT_CHANCE` where it is dealt out anew which pairs of each first person are mated.

    Takes pairs of the same two people for independent, which they are not: a lower bound on what these are by chance.
    """
    in_order = np.argsort(first, kind="stable")
    found = []
    for _ in range(times):
        dealt = np.empty_like(mated)
        dealt[np.lexsort((rng.random(len(first)), first))] = mated[in_order]
        found.append([of(scores[dealt], scores[~dealt]) for of in _WITHOUT_CHANCE.values()])
    means = np.mean(found, axis=0) if found else np.full(len(_WITHOUT_CHANCE), np.nan)
    return {f"{name}_chance": float(mean) for name, mean in zip(_WITHOUT_CHANCE, means, strict=True)}


def _resampled(
    scores: np.ndarray, mated: np.ndarray, first: np.ndarray, second: np.ndarray, rng: np.random.Generator, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (B, G) of mated and of non-mated pairs at each of at most `_LEVELS` scores, in resamples that have both."""
    people, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, two = codes[: len(first)], codes[len(first) :]
    weights = People.resample(people, rng, draws=draws).weights[1:].T  # (S, B)
    level = _coarse(scores)
    shape = level.max() + 1, len(people) ** 2
    # Pairs of the same two people count alike: (G, S * S), nearly all zeros.
    cells = [csr_array((np.ones(of.sum()), (level[of], one[of] * len(people) + two[of])), shape) for of in (mated, ~mated)]
    kinds = [np.unique(c.indices) for c in cells]
    cells = [c[:, kind] for c, kind in zip(cells, kinds, strict=True)]
    counts = [np.empty((draws, shape[0])) for _ in cells]
    for start in range(0, draws, _CHUNK):
        drawn = weights[:, start : start + _CHUNK]
        for which, (cell, kind) in enumerate(zip(cells, kinds, strict=True)):
            a, b = np.divmod(kind, len(people))
            counts[which][start : start + _CHUNK] = (cell @ (drawn[a] if which == 0 else drawn[a] * drawn[b])).T
    usable = (counts[0] > 0).any(1) & (counts[1] > 0).any(1)
    return counts[0][usable], counts[1][usable]
