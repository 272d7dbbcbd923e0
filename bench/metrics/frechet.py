"""Fréchet distance between raw and released clips, as a network sees them."""

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of two normal distributions with the means and covariances of two sets of embeddings.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): Dowson and Landau (J. Multivariate Analysis 12, 1982), as Heusel et al. (NeurIPS
    2017) take it for images. In squared units of the embeddings; 0 for equal sets, without an upper end, and larger by chance
    where clips are few beside the dimensions.

    Args:
        first, second: (n, E) and (m, E), a row a clip.
    """
    return float(frechet_distances(first, second, np.zeros(len(first), dtype=int), np.zeros(len(second), dtype=int))[0])


def frechet_distances(first: np.ndarray, second: np.ndarray, of_first: np.ndarray, of_second: np.ndarray) -> np.ndarray:
    """(1 + S,) the distance of all clips, then that without the clips of each person, in the order of their codes.

    Args:
        first, second: (n, E) and (m, E) embeddings.
        of_first, of_second: (n,) and (m,) code 0..S-1 of the person of each.
    """
    centre = first.mean(axis=0, dtype=np.float64)
    people = int(max(of_first.max(), of_second.max())) + 1
    moments = [_moments(x.astype(np.float64) - centre, codes, people) for x, codes in ((first, of_first), (second, of_second))]
    return np.array([_distance(*(_without(each, who) for each in moments)) for who in (None, *range(people))])


def _moments(x: np.ndarray, codes: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each person: number of clips (S,), sum of the embeddings (S, E), and of their outer products (S, E, E)."""
    of = [x[codes == who] for who in range(people)]
    return np.array([len(own) for own in of]), np.stack([own.sum(axis=0) for own in of]), np.stack([own.T @ own for own in of])


def _without(moments: tuple[np.ndarray, np.ndarray, np.ndarray], who: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean (E,) and covariance (E, E) of the clips of all people but one; not numbers where fewer than two are left."""
    count, total, outer = (of.sum(axis=0) - (0 if who is None else of[who]) for of in moments)
    if count < 2:
        return np.full(total.shape, np.nan), np.full(outer.shape, np.nan)
    return total / count, (outer - np.outer(total, total) / count) / (count - 1)


def _distance(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    if not np.isfinite(first[1]).all() or not np.isfinite(second[1]).all():
        return np.nan
    root = _root(first[1])
    # (C1 C2)^(1/2) has the eigenvalues of the symmetric (C1^(1/2) C2 C1^(1/2))^(1/2)
    shared = np.sqrt(np.linalg.eigvalsh(root @ second[1] @ root).clip(0)).sum()
    apart = np.square(first[0] - second[0]).sum()
    return max(0.0, float(apart + np.trace(first[1]) + np.trace(second[1]) - 2 * shared))


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
