"""Anonymizers with two faces: they release what they know otherwise than what is tested.

Attackers that know the method train on clips that it was fitted to, or that are public: code can tell these from the clips that
are tested. If it releases them otherwise, attackers learn what does not help them, and fail. Here the releases of both kinds of
clips are compared with the raw ones: for the same person they should lie as far away. Code that takes care to lie as far away in
all that is measured here is not found.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import rankdata

from bench.data.clips import ClipSet
from bench.metrics.geometry import fidelity

_MOST = 500  # clips of each kind that are looked at
_BATCH = 64
_CLEAR = 0.85  # share of pairs of clips that one measure puts in the same order: 0.5 by chance
_SURE = 0.001
_ARRANGEMENTS = 1999


def two_faced(raw: ClipSet, released: ClipSet, known: np.ndarray, people: np.ndarray) -> bool:
    """Whether known clips were surely and clearly released otherwise than others of the same people.

    Args:
        raw, released: The same clips.
        known: (N,) whether the anonymizer may have been fitted to a clip.
        people: (N,) who is shown; people with clips of one kind only are not looked at.
    """
    kinds = (np.flatnonzero(kind & _in_both(known, people)) for kind in (known, ~known))
    kinds = [places[np.unique(np.linspace(0, len(places) - 1, _MOST).round().astype(int))] for places in kinds if len(places)]
    if len(kinds) < 2:
        return False
    some = np.concatenate(kinds)
    values = np.concatenate(list(_distances(raw, released, some)))
    found = (separation(column, known[some], people[some]) for column in values.T)
    return any(abs(order - 0.5) > _CLEAR - 0.5 and p_value <= _SURE for order, p_value in found)


def separation(values: np.ndarray, known: np.ndarray, people: np.ndarray) -> tuple[float, float]:
    """How far a value tells known clips from others of the same person.

    Args:
        values: (n,) one for each clip; clips without a number do not count.
        known: (n,) bool.
        people: (n,) who is shown.

    Returns:
        Share of the pairs (a known clip, another of the same person) in which the known one has the larger value, ties half; and
        the share of 2000 arrangements, kinds dealt out anew among each person's clips, in which it is as far from one half.
    """
    finite = np.isfinite(values)
    values, known, people = values[finite], known[finite], people[finite]
    rng = np.random.default_rng(0)
    wins, pairs = np.zeros(1 + _ARRANGEMENTS), 0
    for person in np.unique(people[_in_both(known, people)]):
        mine = people == person
        count = int(known[mine].sum())
        ranks = rankdata(values[mine])  # sums of ranks count the pairs (Mann and Whitney, 1947)
        dealt = rng.permuted(np.tile(ranks, (_ARRANGEMENTS, 1)), axis=1)[:, :count].sum(1)
        wins += np.r_[ranks[known[mine]].sum(), dealt] - count * (count + 1) / 2
        pairs += count * (int(mine.sum()) - count)
    if not pairs:
        return 0.5, 1.0
    far = np.abs(wins / pairs - 0.5)
    return float(wins[0] / pairs), float((far >= far[0] - 1e-12).mean())


def _in_both(known: np.ndarray, people: np.ndarray) -> np.ndarray:
    """(N,) whether there are clips of both kinds of the person that each shows."""
    return np.isin(people, np.intersect1d(people[known], people[~known]))


def _distances(raw: ClipSet, released: ClipSet, places: np.ndarray) -> Iterator[np.ndarray]:
    """(n, F) how far each clip lies from the raw one: what `fidelity` measures, and by how much joints were moved."""
    for batch in torch.as_tensor(places, device=raw.device).split(_BATCH):
        one, other = raw.whole(batch), released.whole(batch)
        inside = torch.arange(one.shape[2], device=one.device) < raw.lengths[batch][:, None]
        moved = (other - one).norm(dim=1).mean(dim=(2, 3))  # (N, T)
        moved = (moved * inside).sum(1) / inside.sum(1)
        measured = fidelity(one, other, raw.layout, raw.frame_rate)
        yield torch.cat([measured, moved[:, None].double()], dim=1).cpu().numpy()
