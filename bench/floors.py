"""Floors: what an attacker must reach on raw clips before its failure on anonymized ones means anything.

Why: a badly trained one makes protection look better than it is (shown for voice by Panariello et al., arXiv 2507.22534).
Each floor is the leakage that was measured on `identity` (the mean of three seeds where `results/published` has them, else with
seed 0) less a tenth of its distance from chance: a training that went wrong falls below it, an unlucky seed should not.
One without a floor, such as an attacker from outside or with other parameters, must at least beat chance. Measure again and set
them anew when an attacker, a preset or a data set changes.
"""

from collections.abc import Mapping
from typing import Any

# (data set, protocol, preset) -> attacker -> leakage on `identity`
FLOORS: Mapping[tuple[str, str, str], Mapping[str, float]] = {
    ("utd-mhad", "trial/1", "quick"): {
        "bones-lda": 0.83,
        "bones-knn": 0.88,
        "flat-svm": 0.90,
        "stats-rf": 0.86,
        "gait-dyn": 0.90,
        "shiftgcn-reid": 0.87,
        "msg3d-reid": 0.89,
        "2sagcn-reid": 0.88,
        "sgn-reid": 0.83,
        "verify-shiftgcn": 0.85,
        "verify-msg3d": 0.89,
        "verify-2sagcn": 0.88,
        "verify-sgn": 0.88,
        "lan-linkage": 0.89,
    },
    ("synthetic", "xrep/1", "quick"): {
        "bones-lda": 0.68,
        "bones-knn": 0.46,
        "flat-svm": 0.74,
        "stats-rf": 0.59,
        "gait-dyn": 0.88,
        "shiftgcn-reid": 0.62,
        "2sagcn-reid": 0.72,
        "sgn-reid": 0.38,
        "bones-lda:target=gender": 0.88,
        "bones-knn:target=gender": 0.83,
        "flat-svm:target=gender": 0.79,
        "stats-rf:target=gender": 0.79,
        "gait-dyn:target=gender": 0.69,
        "shiftgcn-gender": 0.83,
        "sgn-gender": 0.80,
        "verify-shiftgcn": 0.68,
        "verify-sgn": 0.76,
        "lan-linkage": 0.77,
    },
    ("ui-prmd", "episode/1", "quick"): {
        "bones-lda": 0.85,
        "flat-svm": 0.90,
        "gait-dyn": 0.87,
        "shiftgcn-reid": 0.89,
        "stats-rf": 0.90,
    },
    ("msrc-12", "repetition/1", "quick"): {
        "bones-lda": 0.77,
        "flat-svm": 0.84,
        "gait-dyn": 0.84,
        "shiftgcn-reid": 0.81,
        "stats-rf": 0.83,
    },
    ("ucalgary-gait", "run/1", "quick"): {
        "bones-lda:target=gender": 0.82,
        "flat-svm:target=gender": 0.78,
        "shiftgcn-gender": 0.75,
        "bones-lda": 0.87,
        "flat-svm": 0.35,
        "gait-dyn": 0.78,
        "shiftgcn-reid": 0.56,
    },
    ("kinder-gator", "xaction/1", "quick"): {
        "bones-lda": 0.89,
        "flat-svm": 0.83,
        "gait-dyn": 0.78,
        "shiftgcn-reid": 0.84,
    },
}


def floor(record: Mapping[str, Any]) -> float | None:
    """Floor of the attacker of a record (its JSON content); None if none is stored.

    An attacker whose parameters were changed is another attacker: its name in tables says so.
    """
    known = FLOORS.get((record["dataset"], record["protocol"]["name"], record["preset"]["name"]), {})
    return known.get(record["names"]["attacker"])
