"""What predictions say in bits; pure functions on arrays."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

_TEMPERATURES = (0.05, 50.0)


def _log_probabilities(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return log_softmax(logs / temperature, axis=1)


def surprises(probabilities: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(n,) -log2 p(true class), in bits, 0 to infinity, of probabilities (n, K) sharpened or flattened by a temperature.

    p is softmax(log(probabilities) / temperature) (Guo et al., ICML 2017).
    """
    logs = _log_probabilities(probabilities, temperature)
    return -logs[np.arange(len(labels)), labels] / np.log(2)


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """-mean log2 p(true class): mean surprise, in bits, 0 to infinity (Shannon, 1948); temperature as for `surprises`."""
    return float(surprises(probabilities, labels, temperature).mean())


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """argmin over T of `cross_entropy` of probabilities (n, K) at T (Guo et al., ICML 2017): without unit, within 0.05 to 50."""
    found = minimize_scalar(
        lambda log: cross_entropy(probabilities, labels, np.exp(log)), bounds=np.log(_TEMPERATURES), method="bounded"
    )
    return float(np.exp(found.x))


def entropy(labels: np.ndarray) -> float:
    """-sum_k p_k log2 p_k of the shares p of the classes as they occur, in bits: 0 to log2 of their number (Shannon, 1948)."""
    shares = np.bincount(labels) / len(labels)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def mutual_information(probabilities: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """max(0, H(label) - cross-entropy): lower bound on the information of a release about the label, in bits, 0 to H(label).

    Barber and Agakov (NIPS 2003). It holds for any attacker and any temperature that was not fitted to these clips, up to the
    error of estimating both terms from them.
    """
    return max(0.0, entropy(labels) - cross_entropy(probabilities, labels, temperature))


def calibrated_information(probabilities: np.ndarray, labels: np.ndarray, people: np.ndarray) -> np.ndarray:
    """(n,) H(label) less the surprise of each clip, in bits, at a temperature found on other people.

    Their mean, not below 0, is the bound of `mutual_information`, at most H(label). An attacker that is too sure of itself, or
    not sure enough, knows no less. Each half of the people, of every class alike, is judged at the temperature that suits the
    other half; one person alone at that of the attacker.

    Args:
        people: (n,) code of each clip's person.
    """
    _, first, codes = np.unique(people, return_index=True, return_inverse=True)
    label = labels[first]  # of each person
    place = np.argsort(np.lexsort((np.arange(len(label)), label)))  # among people in the order of their classes
    half = (place % 2 == 0)[codes]
    surprise = np.empty(len(labels))
    for of in (half, ~half):
        temperature = 1.0 if half.all() else fit_temperature(probabilities[~of], labels[~of])
        surprise[of] = surprises(probabilities[of], labels[of], temperature)
    return entropy(labels) - surprise


def min_entropy_leakage(vulnerability: float | np.ndarray, prior: float) -> float | np.ndarray:
    """log2(V / max prior) in bits, 0 to log2 of the number of classes: how much better than blindly the first guess is.

    Smith (FoSSaCS 2009). An attacker below the prior would name the largest class instead: 0.

    Args:
        vulnerability: Share of clips named at the first guess (top-1).
        prior: Share of the largest class.
    """
    return np.log2(np.maximum(vulnerability, prior) / prior)
