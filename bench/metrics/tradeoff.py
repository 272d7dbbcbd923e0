"""Utility against leakage: Pareto set and hypervolume (methods.md section 6.8). Points are (utility, leakage)."""

import numpy as np


def pareto_set(utility: np.ndarray, leakage: np.ndarray) -> np.ndarray:
    """(n,) bool: points that no other point dominates.

    Point i dominates j if it has at least its utility and at most its leakage, one of them strictly.
    """
    better_utility = utility[:, None] - utility[None]  # (i, j): i over j
    better_privacy = leakage[None] - leakage[:, None]
    dominates = (better_utility >= 0) & (better_privacy >= 0) & ((better_utility > 0) | (better_privacy > 0))
    return ~dominates.any(axis=0)


def hypervolume(utility: np.ndarray, leakage: np.ndarray) -> float:
    """Area of the union of the rectangles from (0, 0) to (U, 1 - L), both limited to 0..1: 1 is perfect, 0 is worthless."""
    u, p = np.clip(utility, 0, 1), np.clip(1 - leakage, 0, 1)
    order = np.argsort(-u)
    u, p = u[order], np.maximum.accumulate(p[order])
    widths = u - np.append(u[1:], 0.0)
    return float((widths * p).sum())
