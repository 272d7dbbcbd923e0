"""Identity hidden where no network looks: in the digits of coordinates below a tenth of a millimetre.

A method can release clips that look alike for everybody and still write into the last bits who is shown, for somebody who knows.
The evaluator rounds released coordinates, so that nothing is left of it; this finds out whether there was something. A code in
larger changes, of a millimetre say, masked by a key that only its reader has, is not found: nothing tells it from noise.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from bench.data.clips import ClipSet

GRID = 1e-4  # metres: released coordinates are rounded to it, so that nothing can be hidden in the bits below
_SURE = 0.001
_ARRANGEMENTS = 999
_STEPS = 64
_MOST = 1000  # clips that are compared with each other
_MARGIN = 0.1  # accuracy beyond that of raw clips, whose constant lengths have telling digits as well


@dataclass(frozen=True)
class Hidden:
    """What the digits below the grid say of people.

    Args:
        accuracy: Share of clips whose nearest other clip, by these digits, shows the same person.
        chance: The same after names were dealt out anew, on average.
        p_value: Share of such deals that do as well.
    """

    accuracy: float
    chance: float
    p_value: float

    def more_than(self, raw: "Hidden") -> bool:
        """Whether there is surely something, and clearly more than in raw clips."""
        return self.p_value <= _SURE and self.accuracy > raw.accuracy + _MARGIN


def rounded(clips: Tensor) -> Tensor:
    """Coordinates on the grid, as they are measured; zero has no sign, which would be a bit to write into."""
    return (clips.double() / GRID).round().mul(GRID).float() + 0.0


def hidden_identity(rows: Tensor, clips: ClipSet, people: np.ndarray) -> Hidden:
    """Compares what is left of coordinates after rounding between clips; of many clips, 1000 spread over them.

    Args:
        rows: (R, 3, V) released coordinates, before they are rounded.
        clips: Whose they are.
        people: (N,) who is shown.
    """
    some = np.unique(np.linspace(0, len(clips) - 1, _MOST).round().astype(int))
    people = people[some]
    features = np.stack([_features(_of_clip(rows, clips, i)) for i in some])
    distance = cdist(features, features, "sqeuclidean")
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(1)
    rng = np.random.default_rng(0)
    hit = float((people == people[nearest]).mean())
    dealt = [rng.permutation(people) for _ in range(_ARRANGEMENTS)]
    by_chance = np.array([(names == names[nearest]).mean() for names in dealt])
    return Hidden(hit, float(by_chance.mean()), float((1 + (by_chance >= hit).sum()) / (1 + _ARRANGEMENTS)))


def _of_clip(rows: Tensor, clips: ClipSet, i: int) -> Tensor:
    first = int(clips.first[i])
    return rows[first : first + int(clips.lengths[i]) * int(clips.bodies[i])]


def _features(rows: Tensor) -> np.ndarray:
    """How coordinates that are not zero are distributed over 64 steps below the grid, and over the values of the last six bits.

    Cumulative shares: distributions that are a step apart are near each other, as codes of one person may be.
    """
    values = rows[rows != 0].float().cpu()
    if not len(values):
        return np.zeros(2 * _STEPS)
    steps = ((values.double() / GRID) % 1.0 * _STEPS).long().clamp(0, _STEPS - 1)
    bits = (values.contiguous().view(torch.int32) & (_STEPS - 1)).long()
    counts = [torch.bincount(found, minlength=_STEPS) for found in (steps, bits)]
    return torch.cat([found.cumsum(0) for found in counts]).double().div(len(values)).numpy()
