"""Floors: what an attacker must reach on raw clips before its failure on anonymized ones means anything (methods.md section 5.7).

Each floor was set from measurements of the attacker on `identity` (results/README.md says how to repeat them): the mean over the
seeds less a tenth of the way to chance, so that a training that went wrong falls below it and an unlucky seed does not. An
attacker without a floor, such as one from outside, must at least beat chance.
"""

from collections.abc import Mapping
from typing import Any

# (data set, protocol, preset) -> attacker -> leakage on `identity`
FLOORS: Mapping[tuple[str, str, str], Mapping[str, float]] = {}


def floor(record: Mapping[str, Any]) -> float | None:
    """Floor of the attacker of a record (its JSON content); None if none is stored.

    An attacker whose parameters were changed is another attacker: its name in tables says so.
    """
    known = FLOORS.get((record["dataset"], record["protocol"]["name"], record["preset"]["name"]), {})
    return known.get(record["names"]["attacker"])
