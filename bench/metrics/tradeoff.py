"""Utility against leakage: Pareto set and hypervolume. Points are (utility, leakage).

Arrays are (n,) points, or (..., n) for several sets of points at once, such as resamples.
"""

import numpy as np


def pareto_set(utility: np.ndarray, leakage: np.ndarray) -> np.ndarray:
    """(..., n) bool: points that no other point of their set dominates.

    Point i dominates j if U_i >= U_j and L_i <= L_j, one of them strictly.
    """
    better_utility = utility[..., :, None] - utility[..., None, :]  # (..., i, j): i over j
    better_privacy = leakage[..., None, :] - leakage[..., :, None]
    dominates = (better_utility >= 0) & (better_privacy >= 0) & ((better_utility > 0) | (better_privacy > 0))
    return ~dominates.any(axis=-2)


def hypervolume(utility: np.ndarray, leakage: np.ndarray) -> np.ndarray:
    """(...) area of the union of the rectangles from (0, 0) to (U, 1 - L), both limited to 0..1: 1 is perfect, 0 is worthless.

    Without unit (Zitzler and Thiele, PPSN 1998).
    """
    u, p = np.clip(utility, 0, 1), np.clip(1 - np.asarray(leakage), 0, 1)
    order = np.argsort(-u, axis=-1)
    u, p = (np.take_along_axis(values, order, axis=-1) for values in (u, p))
    widths = u - np.concatenate([u[..., 1:], np.zeros_like(u[..., :1])], axis=-1)
    return (widths * np.maximum.accumulate(p, axis=-1)).sum(axis=-1)
