"""Identification and attribute metrics on scores (methods.md sections 6.1, 6.2); pure functions on arrays."""

import numpy as np


def top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: whether the true class is among the `k` best scored.

    Ties count against the attacker's favour and against its disfavour alike by class order: of equally scored classes the one
    with the lower index comes first, as `argmax` has it.

    Args:
        scores: (n, K) one score a class; higher is likelier.
        labels: (n,) class indices.
        k: At least 1.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    before = np.arange(scores.shape[1]) < labels[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return rank < k


def normalised_leakage(value: float | np.ndarray, chance: float) -> float | np.ndarray:
    """Lambda = max(0, (a - c) / (1 - c)): 0 at chance or below, 1 when every clip is named (methods.md section 6.2)."""
    return np.maximum(0.0, (value - chance) / (1 - chance))


def retention(value: float | np.ndarray, reference: float | np.ndarray, chance: float) -> float | np.ndarray:
    """Utility retention (u - c) / (u_raw - c): 1 is as good as raw, 0 is guessing (methods.md section 6.6).

    Where the reference itself is not above chance there is no utility to retain, and the result is not a number.
    """
    margin = np.asarray(reference, dtype=float) - chance
    out = np.divide(value - chance, margin, out=np.full(np.broadcast(value, margin).shape, np.nan), where=margin > 0)
    return out if out.ndim else float(out)
