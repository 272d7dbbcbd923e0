"""Study (b): how often intervals hold the truth, on made-up test parts whose truth is known."""

import numpy as np
from scipy.special import softmax
from scipy.stats import binomtest, norm

from bench.measure import of_ten_clips
from bench.metrics.identification import normalised_leakage
from bench.metrics.uncertainty import SHARE, People, balanced_trials
from bench.metrics.verification import measure_linkage
from bench.validation.study import SURE, Claim, Crew, Study

_CASES = [  # kind, people of each class, shape of the people's recalls (beta distribution)
    *(("identity", (people,), shape) for people in (4, 5, 6, 8, 12, 20, 40) for shape in ((2, 3), (8, 2))),
    *(("attribute", sizes, shape) for sizes in ((3, 3), (3, 17), (6, 6), (10, 10), (20, 20)) for shape in ((4, 3), (8, 2))),
]
_PAIRED = [(people, shift) for people in (4, 8, 20) for shift in (0.0, 1.5)]  # people, mean of mated scores
_SPREAD = 0.5  # of that mean over people
_PAIRS = 40  # mated and non-mated ones of each person
_TEN = [(people, shift) for people in (8, 18, 40) for shift in (0.0, 0.6, 3.0)]  # people, mean of own scores; 0 is chance
_LOOKS = 0.5  # standard deviation of how much like each other person somebody always looks
_MANY = 40_000  # people drawn for what is true of all


def _covered(item: tuple[tuple[str, tuple[int, ...], tuple[int, int]], int]) -> tuple[bool, bool]:
    """Whether the interval over people, and the naive binomial one over clips, hold the truth of one made-up test part."""
    (kind, sizes, shape), seed = item
    count = sum(sizes)
    rng = np.random.default_rng([seed, *sizes, *shape, kind == "identity"])
    recall, truth = rng.beta(*shape, count), shape[0] / sum(shape)
    clips = rng.integers(10, 31, count)
    person = np.repeat(np.arange(count), clips)
    label = person if kind == "identity" else np.repeat(np.arange(len(sizes)), sizes)[person]
    hits = (rng.random(len(person)) < recall[person]).astype(float)
    people = People.resample(person, rng, strata=label)
    found = people.estimate(people.balanced_mean(hits, label), SHARE, balanced_trials(label))
    naive = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95)
    return found.low <= truth <= found.high, naive.low <= truth <= naive.high


def _covered_pairs(item: tuple[tuple[int, float], int]) -> tuple[bool, bool, bool]:
    """Whether the intervals of AUC and equal error rate, and a naive one of the AUC over pairs, hold the truth.

    Scores of non-mated pairs are standard normal, those of mated ones are shifted by what differs between people, so that both
    truths have closed forms. The naive interval is Hanley's and McNeil's (Radiology 143, 1982).
    """
    (count, shift), seed = item
    rng = np.random.default_rng([seed, count, int(10 * shift)])
    own = shift + _SPREAD * rng.normal(size=count)
    one = np.repeat(np.arange(count), _PAIRS)
    other = (one + rng.integers(1, count, size=len(one))) % count
    first, second = np.concatenate([one, one]), np.concatenate([one, other])
    mated = first == second
    found = measure_linkage(rng.normal(size=len(first)) + mated * own[first], mated, first, second, rng, chance=0)
    auc, eer = norm.cdf(shift / (2 + _SPREAD**2) ** 0.5), norm.cdf(-shift / (1 + (1 + _SPREAD**2) ** 0.5))
    a, n = found.auc.value, len(one)
    variance = (a * (1 - a) + (n - 1) * (a / (2 - a) + 2 * a * a / (1 + a) - 2 * a * a)) / n**2
    held = found.auc.low <= auc <= found.auc.high, found.eer.low <= eer <= found.eer.high
    return *held, abs(a - auc) <= 1.96 * variance**0.5


def _scores(rng: np.random.Generator, own: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Somebody's scores before noise, (n, classes) with the own one at 0, and the same with noise of ten clips put together."""
    expected = _LOOKS * rng.normal(size=(len(own), classes))
    expected[:, 0] += own
    return expected, 10 * expected + 10**0.5 * rng.normal(size=expected.shape)


def found_of_ten(people: int, shift: float) -> float:
    """Share of all people whom ten clips name, chance-normalised: of many, each among as many as a test part holds.

    Without a shift nobody's own score is better than any other: nothing is found, but by chance.
    """
    rng = np.random.default_rng([people, int(10 * shift)])
    if not shift:
        return 0.0
    _, together = _scores(rng, shift + rng.normal(size=_MANY), people)
    return float(normalised_leakage((together.argmax(axis=1) == 0).mean(), 1 / people))


def _covered_ten(item: tuple[tuple[int, float], int]) -> tuple[float, float]:
    """The interval of what ten clips of one person give, of one made-up test part.

    An attacker's scores of a clip are normal about what is typical of its person, so those of ten clips together are, too.
    """
    (count, shift), seed = item
    rng = np.random.default_rng([seed, count, int(10 * shift)])
    expected, _ = _scores(rng, shift + bool(shift) * rng.normal(size=count), count)
    label = np.repeat(np.arange(count), rng.integers(20, 61, count))
    turned = np.stack([np.roll(row, person) for person, row in enumerate(expected)])  # the own score in the own column
    probabilities = softmax(turned[label] + rng.normal(size=(len(label), count)), axis=1)
    found = of_ten_clips([probabilities], label)
    return found.low, found.high


def coverage(count: int, crew: Crew) -> Study:
    """(b) How often the 95 % intervals hold the truth."""
    study = Study(
        "b. Intervals",
        "Made-up test parts in which every person has a recall of their own, drawn about a known mean: how often does the "
        "interval hold that mean, beside a binomial interval that takes clips for independent? Of linkage, pairs whose scores "
        "are normal, beside an interval that takes pairs for independent; resamples of pairs vary a little too much (a pair "
        "hangs on two people), so that these intervals may hold the truth more often than they say. Of ten clips of one person, "
        "which find most people nearly always or hardly ever: the share of all people whom they name, chance-normalised. A "
        "claim holds unless the 99 % limits of what was counted exclude 0.93 to 0.97; of linkage and of ten clips, unless they "
        "lie below 0.93.",
    )
    items = [(case, seed) for case in _CASES for seed in range(count)]
    everything = np.array(crew.each(_covered, items, chunk=50)).reshape(len(_CASES), count, 2)
    for case, found in zip(_CASES, everything, strict=True):
        ours, naive = found.mean(axis=0)
        people, spread = "+".join(map(str, case[1])), f"beta({case[2][0]}, {case[2][1]})"
        row = {"kind": case[0], "people": people, "truth": spread, "sets": count, "coverage": ours, "naive": naive}
        study.rows.append(row)
        limits = binomtest(int(found[:, 0].sum()), count).proportion_ci(SURE)
        text = f"{case[0]}, {people} people, {spread}: {ours:.3f} of {count}, binomial {naive:.3f}"
        study.claims.append(Claim(text, bool(limits.low <= 0.97 and limits.high >= 0.93)))
    overall = everything.mean(axis=(0, 1))
    whole = {"kind": "all", "people": "", "truth": "", "sets": len(items)}
    study.rows.append({**whole, "coverage": overall[0], "naive": overall[1]})
    study.claims.append(Claim(f"all cases: {overall[0]:.3f}, between 0.93 and 0.97", bool(0.93 <= overall[0] <= 0.97)))
    study.claims.append(
        Claim(f"all cases: the binomial interval holds the truth in {overall[1]:.3f} only", bool(overall[1] < 0.9))
    )
    _cover_pairs(study, count // 2, crew)
    _cover_ten(study, count // 2, crew)
    return study


def _cover_pairs(study: Study, count: int, crew: Crew) -> None:
    """Adds the cases of linkage."""
    items = [(case, seed) for case in _PAIRED for seed in range(count)]
    everything = np.array(crew.each(_covered_pairs, items, chunk=10)).reshape(len(_PAIRED), count, 3)
    for (people, shift), found in zip(_PAIRED, everything, strict=True):
        naive = found[:, 2].mean()
        for which, kind in enumerate(("linkage AUC", "linkage EER")):
            held = found[:, which]
            row = {"kind": kind, "people": str(people), "truth": f"normal({shift:g})", "sets": count, "coverage": held.mean()}
            study.rows.append({**row, "naive": naive if which == 0 else float("nan")})
            text = f"{kind}, {people} people, shift {shift:g}: {held.mean():.3f} of {count}" + (
                f", pairs as independent {naive:.3f}" if which == 0 else ""
            )
            limits = binomtest(int(held.sum()), count).proportion_ci(SURE)
            study.claims.append(Claim(f"{text}: 0.93 may be reached", bool(limits.high >= 0.93)))


def _cover_ten(study: Study, count: int, crew: Crew) -> None:
    """Adds the cases of ten clips of one person."""
    items = [(case, seed) for case in _TEN for seed in range(count)]
    everything = np.array(crew.each(_covered_ten, items, chunk=10)).reshape(len(_TEN), count, 2)
    for (people, shift), found in zip(_TEN, everything, strict=True):
        truth = found_of_ten(people, shift)
        held = (found[:, 0] <= truth) & (truth <= found[:, 1])
        row = {"kind": "ten clips", "people": str(people), "truth": f"{truth:.2f}", "sets": count, "coverage": held.mean()}
        study.rows.append({**row, "naive": float("nan")})
        limits = binomtest(int(held.sum()), count).proportion_ci(SURE)
        text = f"ten clips, {people} people, {truth:.2f} of all: {held.mean():.3f} of {count}: 0.93 may be reached"
        study.claims.append(Claim(text, bool(limits.high >= 0.93)))
