"""Identification and attribute metrics on scores; pure functions on arrays."""

import numpy as np

from bench.metrics.uncertainty import People, mean_of_known


def top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: rank of the true class <= k, whether it is among the `k` best scored; the mean is top-k accuracy, 0 to 1.

    Ties count against the attacker's favour and against its disfavour alike by class order: of equally scored classes the one
    with the lower index comes first, as `argmax` has it.

    Args:
        scores: (n, K) one score a class; higher is likelier.
        labels: (n,) class indices.
        k: At least 1.
    """
    return true_ranks(scores, labels) <= k


def true_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) 1 + number of classes scored higher: rank of the true class, 1 to K; ties as in `top_k`."""
    own = scores[np.arange(len(labels)), labels][:, None]
    before = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(axis=1) + 1


def reciprocal_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) 1 / rank of the true class, 1 / K to 1, without unit; their mean is the mean reciprocal rank."""
    return 1 / true_ranks(scores, labels)


def cumulative_match(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) share of clips whose true class is among the k best, k = 1..K: from top-1 accuracy up to 1.

    The cumulative match characteristic (ISO/IEC 19795-1).
    """
    counts = np.bincount(true_ranks(scores, labels) - 1, minlength=scores.shape[1])
    return counts.cumsum() / len(labels)


def macro_f1(people: People, named: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(B + 1,) mean over the classes that occur of 2 TP / (2 TP + FP + FN), 0 to 1, on the data and on each resample of people.

    As scikit-learn's `f1_score(average="macro")` over the labels that occur; a class that a resample misses is left out of it.

    Args:
        people: The people of the clips and their resamples.
        named: (n,) class that is answered for each clip.
        labels: (n,) class of each clip.
    """
    count, classes = people.weights.shape[1], int(max(named.max(), labels.max())) + 1

    def drawn(clips: np.ndarray, of: np.ndarray) -> np.ndarray:
        """(B + 1, K) clips of each class."""
        cells = np.bincount(people.codes[clips] * classes + of[clips], minlength=count * classes)
        return people.weights @ cells.reshape(count, classes)

    everything = np.ones(len(labels), dtype=bool)
    hits, answered, there = drawn(named == labels, labels), drawn(everything, named), drawn(everything, labels)
    return mean_of_known(np.divide(2 * hits, answered + there, out=np.full(there.shape, np.nan), where=there > 0))


def vote(
    probabilities: np.ndarray, groups: np.ndarray, size: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What an attacker says who has several clips of each person: the sum of their log probabilities.

    Args:
        probabilities: (n, K) one distribution over the classes a clip.
        groups: (n,) whose clip it is.
        size: Clips that are put together, drawn without replacement; what is left over of a person is not used. None puts all of
            a person together.
        rng: Draws which clips go together.

    Returns:
        Log scores (m, K) and their groups (m,); m is 0 if nobody has so many clips.

    Raises:
        ValueError: if `size` is below 1.
    """
    if size is not None and size < 1:
        raise ValueError(f"at least one clip must be put together, got {size}")
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    scores, owners = [np.empty((0, probabilities.shape[1]))], []
    for group in np.unique(groups):
        clips = rng.permutation(np.flatnonzero(groups == group))
        each = size or len(clips)
        sets = clips[: len(clips) // each * each].reshape(-1, each)
        scores.append(logs[sets].sum(axis=1))
        owners += [group] * len(sets)
    return np.concatenate(scores), np.array(owners, dtype=groups.dtype)


def normalised_leakage(value: float | np.ndarray, chance: float) -> float | np.ndarray:
    """Lambda = max(0, (a - c) / (1 - c)), without unit: 0 at chance or below, 1 when every clip is named."""
    return np.maximum(0.0, (value - chance) / (1 - chance))


def retention(value: float | np.ndarray, reference: float | np.ndarray, chance: float) -> float | np.ndarray:
    """Utility retention (u - c) / (u_raw - c), without unit: 1 is as good as raw, 0 is guessing.

    Below 0 where it is worse than guessing, above 1 where releases are easier to learn from than raw clips. Where the reference
    itself is not above chance there is no utility to retain, and the result is not a number.
    """
    margin = np.asarray(reference, dtype=float) - chance
    out = np.divide(value - chance, margin, out=np.full(np.broadcast(value, margin).shape, np.nan), where=margin > 0)
    return out if out.ndim else float(out)
