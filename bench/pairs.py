"""Pairs of clips for linkage: do both show the same person?

Three regimes, each with as many mated pairs (one person) as non-mated ones:

    cross-action    two different actions
    same-action     the same action, done at two different times
    cross-setup     filmed in two different set-ups, whatever the actions

Two clips of one performance are never a pair: other cameras show the same moment, not only the same person. Within each regime
non-mated pairs share their set-up exactly as often as mated ones, so that the room tells nothing.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

REGIMES = ("cross-action", "same-action", "cross-setup")
PER_PERSON = 400  # most mated pairs of one person in one regime, and as many non-mated ones
_TRIES = 30  # candidates drawn for each pair that is wanted


@dataclass(frozen=True)
class Pairs:
    """Pairs of clips.

    Args:
        clips: (P, 2) clip indices.
        mated: (P,) bool: whether both show the same person.
        regime: (P,) index into `REGIMES`.
    """

    clips: np.ndarray
    mated: np.ndarray
    regime: np.ndarray

    def __len__(self) -> int:
        return len(self.mated)


def make_pairs(labels: Any, clips: np.ndarray, per_person: int = PER_PERSON) -> Pairs:
    """Draws pairs among some clips; the same ones whenever the clips have the same names.

    Args:
        labels: Labels of the store (pandas), with `clip`, `subject`, `action`, `performance` and, where known, `setup`.
        clips: Indices of the clips to pair.
        per_person: Most mated pairs of one person in one regime, and as many non-mated ones.
    """
    table = labels.iloc[clips]
    rng = np.random.default_rng(zlib.crc32("\n".join(table["clip"]).encode()))
    codes = {name: _codes(table[name]) for name in ("subject", "action", "performance")}
    codes["setup"] = _codes(table["setup"]) if "setup" in table and table["setup"].notna().all() else np.zeros(len(table), int)
    found: list[tuple[np.ndarray, bool, int]] = []
    for regime, name in enumerate(REGIMES):
        for same_setup in (False,) if name == "cross-setup" else (False, True):
            for person in np.unique(codes["subject"]):
                mated, others = (_draw(codes, person, name, same_setup, wanted, per_person, rng) for wanted in (True, False))
                count = min(len(mated), len(others))
                found += [(mated[:count], True, regime), (others[:count], False, regime)]
    sizes = [len(pairs) for pairs, _, _ in found]
    return Pairs(
        clips[np.concatenate([pairs for pairs, _, _ in found])] if found else np.empty((0, 2), int),
        np.repeat([mated for _, mated, _ in found], sizes).astype(bool),
        np.repeat([regime for _, _, regime in found], sizes).astype(int),
    )


def _codes(column: Any) -> np.ndarray:
    return np.unique(column.to_numpy(), return_inverse=True)[1]


def _draw(
    codes: dict[str, np.ndarray], person: int, regime: str, same_setup: bool, mated: bool, most: int, rng: np.random.Generator
) -> np.ndarray:
    """(p, 2) distinct pairs whose first clip shows `person`, p <= most."""
    own = np.flatnonzero(codes["subject"] == person)
    pool = own if mated else np.flatnonzero(codes["subject"] != person)
    if not pool.size:
        return np.empty((0, 2), int)
    first, second = _candidates(own, pool, most * _TRIES, rng).T
    allowed = codes["performance"][first] != codes["performance"][second]
    allowed &= (codes["setup"][first] == codes["setup"][second]) == same_setup
    if regime != "cross-setup":
        allowed &= (codes["action"][first] == codes["action"][second]) == (regime == "same-action")
    pairs = np.stack([first, second], axis=1)[allowed]
    _, once = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    return pairs[np.sort(once)][:most]


def _candidates(own: np.ndarray, pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(c, 2): all pairs in a drawn order where they are few, random ones otherwise."""
    if len(own) * len(pool) <= count:
        return rng.permutation(np.stack(np.meshgrid(own, pool, indexing="ij"), axis=-1).reshape(-1, 2))
    return np.stack([rng.choice(own, count), rng.choice(pool, count)], axis=1)
