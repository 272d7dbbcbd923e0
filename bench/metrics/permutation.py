"""Whether an attacker finds anything at all: a permutation test of its answers against the names.

Intervals over people say how far a leakage may be from what other people would show. Whether it is more than luck is another
question: an attacker without any knowledge that always names the same few people gives these a high and all others a low recall,
so that people differ much and the mean does not. Permuting the names asks that question directly; the arrangement that was
measured counts as one of them (Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9, 2010).
"""

import numpy as np
from scipy.stats import rankdata

from bench.metrics.uncertainty import mean_of_known

PERMUTATIONS = 999
_EQUAL = 1e-12
_CELLS = 2**20  # labels that are held at a time


def leak_p_value(
    named: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    rng: np.random.Generator,
    *,
    folds: np.ndarray | None = None,
    permutations: int = PERMUTATIONS,
) -> float:
    """One-sided p value of the hypothesis that answers have nothing to do with the labels; above 0, 0.5 for constant answers.

    The labels of whole units are dealt out anew among the units of a fold, and the balanced top-1 of the answers is compared with
    the one measured: (number above + half the number equal) / number of all, the measured one among them. Counting the equal ones
    half (mid-p: Lancaster, JASA 56, 1961) keeps the level on average where few people make many ties: of six people it may reject
    in 7.5 rather than 5 of 100 cases. Counting them whole would keep it always, and halve it.

    Args:
        named: (S, n) class that is answered for each clip, by each of several trained attackers.
        labels: (n,) class of each clip, constant within every unit.
        units: (n,) what is independent of each other: performances where people are named, people for an attribute.
        rng: Source of the permutations.
        folds: (n,) of answers by models of different folds: labels are dealt out within each, and folds count equally.
        permutations: How many.
    """
    folds = np.zeros(len(labels), dtype=int) if folds is None else folds
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    of_unit, fold_of_unit = labels[first], folds[first]
    shape = int(folds.max()) + 1, int(labels.max()) + 1

    def balanced(dealt: np.ndarray) -> np.ndarray:
        """(P,) balanced top-1 under labels (P, n)."""
        cells = np.arange(len(dealt))[:, None] * np.prod(shape) + folds * shape[1] + dealt
        hits = np.mean([answer == dealt for answer in named], axis=0)
        size = len(dealt) * np.prod(shape)
        hits, count = (np.bincount(cells.ravel(), weights=w, minlength=size) for w in (hits.ravel(), None))
        recall = np.divide(hits, count, out=np.full(size, np.nan), where=count > 0)
        return mean_of_known(mean_of_known(recall.reshape(-1, *shape)))

    measured, above = balanced(labels[None])[0], 0.5
    step = max(1, _CELLS // max(len(labels), int(np.prod(shape))))
    for done in range(0, permutations, step):
        dealt = np.tile(of_unit, (min(step, permutations - done), 1))
        for fold in np.unique(fold_of_unit):
            here = fold_of_unit == fold
            dealt[:, here] = rng.permuted(dealt[:, here], axis=1)
        found = balanced(dealt[:, unit]) - measured
        above += (found > _EQUAL).sum() + 0.5 * (np.abs(found) <= _EQUAL).sum()
    return float(above) / (1 + permutations)


def link_p_value(
    scores: np.ndarray, first: np.ndarray, second: np.ndarray, rng: np.random.Generator, *, permutations: int = PERMUTATIONS
) -> float:
    """One-sided p value of the hypothesis that how alike two clips are has nothing to do with who they show; above 0.

    Every pair of people, a person paired with themselves among them, has a mean rank of its scores (0 to 1). Under the hypothesis
    it does not matter who is called whom, so people of the second clips are renamed at random, and the mean over all first people
    of the ranks of pairs that then have one name is compared with the one measured; equal ones count half, as in `leak_p_value`.
    The test is cautious: pairs of two people are fewer, and so vary more, than those of one.

    Args:
        scores: (P,) how alike the clips of each pair are; higher is more alike.
        first, second: (P,) person of each clip of a pair.
        rng: Source of the permutations.
        permutations: How many.
    """
    people, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    count = len(people)
    cell = codes[: len(first)] * count + codes[len(first) :]
    ranks = rankdata(scores) / len(scores)
    total, sizes = (np.bincount(cell, weights=w, minlength=count * count).reshape(count, count) for w in (ranks, None))
    mean = np.divide(total, sizes, out=np.full((count, count), np.nan), where=sizes > 0)
    renamed = rng.permuted(np.tile(np.arange(count), (permutations, 1)), axis=1)
    found = mean_of_known(mean[np.arange(count), np.vstack([np.arange(count), renamed])])
    above = found[1:] - found[0]
    above = above[np.isfinite(above)]
    return float(0.5 + (above > _EQUAL).sum() + 0.5 * (np.abs(above) <= _EQUAL).sum()) / (1 + len(above))
