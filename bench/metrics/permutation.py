"""Whether an attacker finds anything at all: a permutation test of its answers against the names.

Intervals over people say how far a leakage may be from what other people would show. Whether it is more than luck is another
question: an attacker without any knowledge that always names the same few people gives these a high and all others a low recall,
so that people differ much and the mean does not. Permuting the names asks that question directly, and exactly (Phipson and Smyth,
Statistical Applications in Genetics and Molecular Biology 9, 2010).
"""

import numpy as np

PERMUTATIONS = 999


def leak_p_value(
    named: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    rng: np.random.Generator,
    *,
    folds: np.ndarray | None = None,
    permutations: int = PERMUTATIONS,
) -> float:
    """One-sided p value of the hypothesis that answers have nothing to do with the labels: in 1 / (permutations + 1) to 1.

    The labels of whole units are dealt out anew among the units of a fold, and the balanced top-1 of the answers is compared with
    the one measured: (1 + number that reach it) / (1 + permutations).

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
    classes = int(labels.max()) + 1

    def balanced(label: np.ndarray) -> float:
        cells = folds * classes + label
        hits = np.bincount(cells, weights=(named == label).mean(axis=0), minlength=classes * (int(folds.max()) + 1))
        count = np.bincount(cells, minlength=len(hits))
        recall = np.divide(hits, count, out=np.full(len(hits), np.nan), where=count > 0).reshape(-1, classes)
        return float(np.nanmean(np.nanmean(recall, axis=1)))

    measured, reached = balanced(labels), 0
    for _ in range(permutations):
        dealt = of_unit.copy()
        for fold in np.unique(fold_of_unit):
            here = np.flatnonzero(fold_of_unit == fold)
            dealt[here] = of_unit[rng.permutation(here)]
        reached += balanced(dealt[unit]) >= measured - 1e-12
    return (1 + reached) / (1 + permutations)
