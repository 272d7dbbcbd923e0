"""Linkability of sets of clips: what several pairs of clips of the same two people say together.

People release many clips. An attacker that is hardly better than guessing on one pair may be sure after ten: linkability
is therefore asked of sets, after Vauquier et al. (Interspeech 2025).
"""

import numpy as np


def set_scores(
    scores: np.ndarray, first: np.ndarray, second: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean scores of sets of pairs that show the same two people, or the same person twice.

    For scores that are log-likelihood ratios of independent pairs, the mean orders sets as their likelihood ratio does.

    Args:
        scores: (P,) how alike the clips of each pair are; higher is more alike.
        first, second: (P,) person of each clip of a pair.
        size: Pairs of a set, drawn without replacement; what is left over is not used.
        rng: Draws which pairs go together.

    Returns:
        (S,) mean scores, in their own unit, and (S,) bool whether a set shows one person; S is 0 if no two people have so many
        pairs.

    Raises:
        ValueError: if `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"at least one pair must be put together, got {size}")
    _, cell = np.unique(np.stack([first, second]), axis=1, return_inverse=True)
    order = rng.permutation(len(scores))
    order = order[np.argsort(cell[order], kind="stable")]  # cell by cell, shuffled within
    ends = np.cumsum(np.bincount(cell))
    place = np.arange(len(scores)) - np.repeat(np.r_[0, ends[:-1]], np.bincount(cell))  # within its cell
    full = np.repeat(np.bincount(cell) // size * size, np.bincount(cell))
    kept = order[place < full].reshape(-1, size)
    return scores[kept].mean(axis=1), (first == second)[kept[:, 0]]
