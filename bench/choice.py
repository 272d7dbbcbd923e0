"""Which of its models an attacker attacks with, as far as its own validation clips can tell."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import t as student

from bench.protocols import Part
from bench.threat import Learning

_SURE = 0.95  # one-sided
_GROUPS = 50  # at most: what is left out at a time, so that many clips do not take long


def choose(part: Part, side: str, scores: Mapping[Learning, np.ndarray]) -> tuple[Learning, dict[Learning, float]]:
    """The learning whose model attacks, and how well each does (`Part.quality`).

    Of the models that learnt from anonymized clips it is the one that does best, of equals the first. The raw-trained one, which
    has not seen what it is to attack, takes the place of that only if it is surely better. Where little is left to be found, all
    models are near chance on the validation clips; the best of them is then any, and the raw-trained one reads nothing.
    Validation clips may even mislead: where each person shows each action once in training, they ask for people in actions that
    they were not seen in, which the test does not.

    Args:
        part: Who is asked.
        side: "test" or "validation": the clips that `part` has for this.
        scores: What each model says of these clips: of at least one that learnt from anonymized ones.
    """
    quality = {learning: part.quality(found, side) for learning, found in scores.items()}
    adapted = [learning for learning in quality if learning is not Learning.RAW]
    best = max(adapted, key=quality.__getitem__)
    if Learning.RAW in quality and surely_better(part, side, scores[Learning.RAW], scores[best]):
        best = Learning.RAW
    return best, quality


def surely_better(part: Part, side: str, ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether some scores are better than others of the same clips beyond the chance of who performed them (one-sided, 95 %).

    The difference of `Part.quality` is compared with its standard error by the delete-a-group jackknife (Kott, Journal of
    Official Statistics 17(4), 2001): clips of one performance are left out together, since they are right or wrong together.
    """
    asked = part.performances[part.asked(side)]
    groups = np.unique(asked, return_inverse=True)[1] % _GROUPS
    count = int(groups.max()) + 1
    difference = part.quality(ours, side) - part.quality(theirs, side)
    if count < 2 or not difference > 0:
        return False
    each = np.empty(count)
    for group in range(count):
        kept = np.zeros(len(part.performances), dtype=bool)
        kept[part.asked(side)[groups != group]] = True
        each[group] = part.quality(ours, side, kept) - part.quality(theirs, side, kept)
    error = np.sqrt((count - 1) / count * ((each - each.mean()) ** 2).sum())
    return bool(difference > student.ppf(_SURE, count - 1) * error)  # false too if a class has no clips left: not a number
