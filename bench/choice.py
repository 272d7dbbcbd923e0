"""Which of its models an attacker attacks with, as far as its own validation clips can tell."""

from collections.abc import Mapping

import numpy as np

from bench.metrics.uncertainty import jackknifed
from bench.protocols import SUBJECT, Part
from bench.threat import Learning

_LEVEL = 0.90  # of an interval, so that its lower end alone is sure to 95 %
_GROUPS = 50  # at most: what is left out at a time, so that many clips do not take long


def choose(part: Part, side: str, scores: Mapping[Learning, np.ndarray]) -> tuple[Learning, dict[Learning, float]]:
    """The learning whose model attacks, and how well each does (`Part.quality`).

    It is the one that does best, of equals the first; but the raw-trained one, which has not seen what it is to attack, only if
    it surely does better than guessing (`beats_guessing`). Where it does not, and all are near chance on the validation clips,
    the best of them may be any: an attacker that took a raw-trained model for it would read nothing where those that saw the
    release still may. What validation clips cannot tell stays unknown: where each person shows each action once in training,
    they ask for people in actions that they were not seen in, which the test does not.

    Args:
        part: Who is asked.
        side: "test" or "validation": the clips that `part` has for this.
        scores: What each model says of these clips: of at least one that learnt from anonymized ones.
    """
    quality = {learning: part.quality(found, side) for learning, found in scores.items()}
    best = max(quality, key=quality.__getitem__)
    if best is Learning.RAW and not beats_guessing(part, side, scores[best]):
        best = max((learning for learning in quality if learning is not best), key=quality.__getitem__)
    return best, quality


def beats_guessing(part: Part, side: str, scores: np.ndarray) -> bool:
    """Whether `Part.quality` is above that of a guess beyond chance (one-sided, 95 %).

    Its standard error is that of the delete-a-group jackknife (Kott, Journal of Official Statistics 17(4), 2001), too wide rather
    than too narrow where a class has two or three performances. Clips that are right or wrong together are left out together: of
    one performance where people are known, of one person otherwise. Of three groups nothing is sure, nor where one of them makes
    up all pairs of a kind.
    """
    clips = part.asked(side)
    apart = (part.performances if part.target == SUBJECT else part.subjects)[clips]
    groups = np.unique(apart, return_inverse=True)[1] % _GROUPS
    count = int(groups.max()) + 1
    guess = 0.5 if part.pairs_asked(side) else 1 / len(np.unique(part.labels[clips]))
    found = np.empty(1 + count)
    found[0] = part.quality(scores, side)
    if count < 2 or found[0] <= guess:
        return False
    for group in range(count):
        kept = np.zeros(len(part.labels), dtype=bool)
        kept[clips[groups != group]] = True
        found[1 + group] = part.quality(scores, side, kept)
    return bool(jackknifed(found, _LEVEL).low > guess)  # no number if one of them is none
