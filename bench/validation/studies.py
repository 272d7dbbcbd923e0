"""Experiments whose truth is known: what the instrument says, beside what it ought to say.

Each study returns a `Study`: rows of numbers, and claims that hold or do not. Nothing here is fitted to pass: a claim that fails
is reported as failed.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
from scipy.stats import beta, binomtest, norm

from bench.metrics.permutation import leak_p_value
from bench.metrics.uncertainty import SHARE, Estimate, People, balanced_trials, largest_of
from bench.protocols import Protocol, Split
from bench.threads import limit_threads
from bench.validation.coverage import coverage
from bench.validation.instrument import as_row, attack, leakage, motionless, of_clips, of_scores, synthetic, taught
from bench.validation.study import SURE, Claim, Crew, Study


def _start() -> None:
    limit_threads()


# (a) False alarms

_NOBODY = {"motions": 3, "replications": 2, "cameras": 1, "body": 0, "dynamics": 0, "setup": 0}
_LEVEL = 0.05
_ALARMS = {"bones-lda": 12, "bones-lda:target=gender": 20}  # attacker: people


def _alarm(item: tuple[str, int]) -> tuple[bool, bool]:
    """Whether the test at 5 % finds something, and whether the 95 % interval lies above chance."""
    attacker, seed = item
    target = "gender" if "gender" in attacker else "subject"
    with synthetic(people=_ALARMS[attacker], seed=seed, **_NOBODY) as bench:
        part, scores = bench.part(target), attack(bench, attacker)
        found, test = of_scores(bench, part, scores), part.test
    units = part.performances if target == "subject" else part.subjects
    p = leak_p_value(scores.argmax(axis=1)[None], part.labels[test], units[test], np.random.default_rng(seed))
    return p <= _LEVEL, found.low > part.chance


def false_alarms(count: int, crew: Crew) -> Study:
    """(a) How often a leak is claimed of people who differ by their number only."""
    study = Study(
        "a. False alarms",
        "People without any identity: how often does the instrument claim a leak? A test at 5 % should do so in 5 % of the "
        "cases. That a 95 % interval lies above chance should be rarer still: intervals also hold how much people differ. In "
        "brackets stand the 99 % limits of what was counted; a claim holds unless they exclude it.",
    )
    for place, attacker in enumerate(_ALARMS):
        items = [(attacker, 10_000 * place + seed) for seed in range(count)]
        found = np.array(crew.each(_alarm, items, chunk=5))
        for which, said in enumerate(("p value up to 0.05", "95 % interval above chance")):
            alarms = int(found[:, which].sum())
            limits = binomtest(alarms, count).proportion_ci(SURE)
            row = {"attacker": attacker, "people": _ALARMS[attacker], "alarm": said, "sets": count, "alarms": alarms}
            study.rows.append({**row, "rate": alarms / count, "low": limits.low, "high": limits.high})
            text = f"{attacker}: {said} in {alarms} of {count} ({limits.low:.3f} to {limits.high:.3f})"
            if which:
                study.claims.append(Claim(f"{text}: 0.025 is not surely exceeded", bool(limits.low <= _LEVEL / 2)))
            else:
                study.claims.append(Claim(f"{text}: it may be 0.05", bool(limits.low <= _LEVEL <= limits.high)))
    return study


# (c) Dials

_DIALS = {"body": "bones-lda", "dynamics": "gait-dyn", "setup": "bones-lda"}
_LEVELS = (0.0, 0.25, 0.5, 1.0, 2.0)
_PEOPLE = {"people": 12, "motions": 5, "replications": 2, "cameras": 2}


def _turned(item: tuple[str, float, int]) -> dict[str, Any]:
    dial, level, seed = item
    others = dict.fromkeys(("body", "dynamics", "setup"), 0.0)
    with synthetic(**_PEOPLE, **{**others, dial: level}, seed=seed) as bench:
        return {"dial": dial, "level": level, "seed": seed, **as_row(leakage(bench, _DIALS[dial]))}


def dials(seeds: int, crew: Crew) -> Study:
    """(c) Whether leakage grows with each dial."""
    study = Study("c. Dials", "Each channel of identity is turned up while the others are off: does the measured leakage follow?")
    items = [(dial, level, seed) for dial in _DIALS for level in _LEVELS for seed in range(seeds)]
    study.rows = crew.each(_turned, items)
    for dial in _DIALS:
        means = [np.mean([r["leakage"] for r in study.rows if (r["dial"], r["level"]) == (dial, level)]) for level in _LEVELS]
        text = ", ".join(f"{level:g}: {mean:.2f}" for level, mean in zip(_LEVELS, means, strict=True))
        rises = all(later > earlier - 0.02 for earlier, later in itertools.pairwise(means))
        chance = 1 / _PEOPLE["people"]
        study.claims.append(Claim(f"{_DIALS[dial]} by {dial}: {text}: never falls", bool(rises)))
        # Four people share a room: what it gives away names one of four at best.
        least, said = (1.5 * chance, "above, and no more than rooms tell") if dial == "setup" else (0.5, "far above")
        most = 0.3 if dial == "setup" else 1.0
        held = abs(means[0] - chance) < 0.1 and least < means[-1] <= most
        study.claims.append(Claim(f"{dial} at 0 is chance ({chance:.2f}), at 2 {said}", bool(held)))
    return study


# (d) Channels

_BOTH = {"body": 1.0, "dynamics": 1.5, "setup": 0.0}
_READS = {"bones": "bones-lda", "movements": "gait-dyn"}
_REMOVERS = {"nothing": "", "bones": "mean-skeleton", "movements": "one posture, own bones"}


def _removed(item: tuple[str, str, int]) -> dict[str, Any]:
    channel, removes, seed = item
    attacker = _READS[channel]
    with synthetic(**_PEOPLE, **_BOTH, seed=seed) as bench:
        if removes == "movements":
            found = of_clips(bench, attacker, motionless(bench.clips(bench.raw)))
        else:
            found = leakage(bench, attacker, anonymizer=_REMOVERS[removes] or "identity")
    return {"channel": channel, "attacker": attacker, "removes": removes, "seed": seed, **as_row(found)}


def channels(seeds: int, crew: Crew) -> Study:
    """(d) Whether an anonymizer that removes one channel takes away that channel's leakage and no other."""
    study = Study(
        "d. Channels",
        "People who differ in bones and in movements. `mean-skeleton` gives everybody the same bones and leaves directions as "
        "they are; a second release gives everybody one posture and leaves bones as they are. Does each take away what its "
        "channel tells, and nothing of the other? `bones-lda` reads nothing but lengths, `gait-dyn` nothing but directions.",
    )
    items = [(channel, removes, seed) for channel in _READS for removes in _REMOVERS for seed in range(seeds)]
    study.rows = crew.each(_removed, items)

    def mean(channel: str, removes: str) -> float:
        return float(np.mean([r["leakage"] for r in study.rows if (r["channel"], r["removes"]) == (channel, removes)]))

    chance = 1 / _PEOPLE["people"]
    for channel, other in (("bones", "movements"), ("movements", "bones")):
        before, after, kept = (mean(channel, removes) for removes in ("nothing", channel, other))
        gone = before > 0.4 and abs(after - chance) < 0.06
        text = f"{channel}: {before:.2f} before, {after:.2f} after they are removed, chance {chance:.2f}"
        study.claims.append(Claim(text, bool(gone)))
        text = f"{channel}: {before:.2f} before, {kept:.2f} after {other} are removed"
        study.claims.append(Claim(text, bool(abs(kept - before) < 0.05)))
    return study


# (e) Strength

_SHARES = (0.1, 0.3, 1.0)


def _learnt(item: tuple[str, float, int]) -> dict[str, Any]:
    attacker, share, seed = item
    with synthetic(people=12, motions=10, replications=2, cameras=2, seed=seed) as bench:
        return {"attacker": attacker, "share": share, "seed": seed, **as_row(taught(bench, attacker, share, seed))}


def strength(seeds: int, crew: Crew) -> Study:
    """(e) Whether attackers that know more find more."""
    study = Study(
        "e. Strength", "The same attackers with a tenth, three tenths and all of their training clips: is that their order?"
    )
    items = [(a, share, seed) for a in ("bones-lda", "flat-svm") for share in _SHARES for seed in range(seeds)]
    study.rows = crew.each(_learnt, items)
    for attacker in ("bones-lda", "flat-svm"):
        means = [np.mean([r["leakage"] for r in study.rows if (r["attacker"], r["share"]) == (attacker, s)]) for s in _SHARES]
        text = ", ".join(f"{share:.0%}: {mean:.2f}" for share, mean in zip(_SHARES, means, strict=True))
        study.claims.append(Claim(f"{attacker}: {text}", bool(means[0] < means[1] < means[2])))
    return study


# (f) Pitfalls

_VIEWS = Protocol(
    "xview/1", {"action": Split("subject", (1,), unseen=True), "subject": Split("camera", (2, 3), False, shares=True)}
)


def _pitfall(item: tuple[str, int]) -> list[dict[str, Any]]:
    which, seed = item
    found: dict[str, tuple[Estimate, float]] = {}
    if which == "the moment":
        people = {"people": 12, "motions": 4, "replications": 2, "cameras": 3, "body": 0, "dynamics": 0, "setup": 0}
        for name, protocol in (("other cameras (xview)", _VIEWS), ("other performances (xrep)", None)):
            with synthetic(protocol, **people, seed=seed) as bench:
                found[name] = leakage(bench, "flat-svm"), 1 / 12
    elif which == "who knows":
        with synthetic(**_PEOPLE, seed=seed) as bench:
            for threat in ("ignorant", "semi-informed"):
                found[threat] = leakage(bench, "bones-lda", anonymizer="gauss:std=0.05", threat=threat), 1 / 12
    else:
        with synthetic(**_PEOPLE, seed=seed) as bench:
            part = bench.part("subject")
            often = np.flatnonzero(part.labels[part.test] == 0)  # somebody who is filmed as often as six others together
            test = np.concatenate([np.repeat(part.test[often], 6), np.delete(part.test, often)])
            label = part.labels[test]
            always = np.tile(np.eye(len(part.classes))[np.bincount(label).argmax()], (len(test), 1))
            top1 = float((always.argmax(axis=1) == label).mean())
            uneven = of_scores(bench, replace(part, test=test), always)
        found["top-1 of always naming one person"] = Estimate(top1, top1, top1, np.array([top1])), 1 / 12
        found["balanced top-1 of the same"] = uneven, 1 / 12
    return [{"pitfall": which, "measured": name, "seed": seed, **as_row(e), "chance": c} for name, (e, c) in found.items()]


def pitfalls(seeds: int, crew: Crew) -> Study:
    """(f) Whether the mistakes of published evaluations show here as they should."""
    study = Study(
        "f. Pitfalls",
        "Splits that share performances, attackers that do not know the anonymizer, chance where clips are uneven: does the "
        "instrument show how much each misleads?",
    )
    items = [(which, seed) for which in ("the moment", "who knows", "the prior") for seed in range(seeds)]
    study.rows = [row for rows in crew.each(_pitfall, items) for row in rows]

    def mean(name: str) -> float:
        return float(np.mean([row["leakage"] for row in study.rows if row["measured"] == name]))

    shared, apart = mean("other cameras (xview)"), mean("other performances (xrep)")
    text = f"people without identity: {shared:.2f} when a performance is on both sides, {apart:.2f} when none is, chance 0.08"
    study.claims.append(Claim(text, shared > 0.2 and abs(apart - 1 / 12) < 0.06))
    naive, informed = mean("ignorant"), mean("semi-informed")
    text = f"noise of 5 cm: {naive:.2f} to who does not know of it, {informed:.2f} to who does"
    study.claims.append(Claim(text, informed > naive + 0.1))
    top1, balanced = mean("top-1 of always naming one person"), mean("balanced top-1 of the same")
    text = f"always naming one person: top-1 {top1:.2f}, balanced top-1 {balanced:.3f}, 1/K 0.083"
    study.claims.append(Claim(text, top1 > 0.2 and abs(balanced - 1 / 12) < 1e-9))
    return study


# (g) The worst of several attackers

_PANELS = [(people, attackers, equal) for people in (8, 20, 40) for attackers in (4, 10) for equal in (True, False)]


def _worst(item: tuple[tuple[int, int, bool], int]) -> tuple[bool, bool, bool]:
    """Of a made-up panel: whether the interval of the worst attacker holds the largest truth, whether it lies above it, and
    whether that attacker's own interval lies above its own truth."""
    (count, attackers, equal), seed = item
    rng = np.random.default_rng([seed, count, attackers, equal])
    truths = np.full(attackers, 0.4) if equal else np.linspace(0.2, 0.5, attackers)
    person = np.repeat(np.arange(count), 20)
    easy = rng.normal(size=count)  # people that one attacker finds others find as well
    people, found = People.resample(person, rng, strata=person), []
    for truth in truths:
        recall = beta.ppf(norm.cdf(0.7 * easy + 0.51**0.5 * rng.normal(size=count)), 4 * truth, 4 * (1 - truth))
        hits = (rng.random(len(person)) < recall[person]).astype(float)
        found.append(people.estimate(people.balanced_mean(hits, person), SHARE, balanced_trials(person)))
    worst = int(np.argmax([one.value for one in found]))
    ours = largest_of(found, worst)
    return ours.low <= truths.max() <= ours.high, ours.low > truths.max(), found[worst].low > truths[worst]


def worst_attackers(count: int, crew: Crew) -> Study:
    """(g) How often the interval of the worst of several attackers holds the truth."""
    study = Study(
        "g. The worst attacker",
        "The attacker that ranks a method was chosen because it did best: of made-up panels, how often does its interval hold "
        "the largest truth, and how often does it claim more? Beside it, how often the chosen attacker's own interval does.",
    )
    items = [(case, seed) for case in _PANELS for seed in range(count)]
    everything = np.array(crew.each(_worst, items, chunk=20)).reshape(len(_PANELS), count, 3)
    for (people, attackers, equal), found in zip(_PANELS, everything, strict=True):
        held, above, naive = found.mean(axis=0)
        which = "equally good" if equal else "unequal"
        row = {"people": people, "attackers": attackers, "attackers_are": which, "sets": count}
        study.rows.append({**row, "coverage": held, "above": above, "own_above": naive})
        limits = binomtest(int(found[:, 0].sum()), count).proportion_ci(SURE)
        text = f"{attackers} {which} attackers, {people} people: {held:.3f} of {count}, above the truth in {above:.3f}"
        claims = bool(limits.high >= 0.95 and binomtest(int(found[:, 1].sum()), count).proportion_ci(SURE).low <= 0.025)
        study.claims.append(
            Claim(f"{text} (the attacker's own: {naive:.3f}): 0.95 may be reached, 0.025 is not surely exceeded", claims)
        )
    above, naive = everything[:, :, 1].ravel(), everything[:, :, 2].mean()
    limits = binomtest(int(above.sum()), len(above)).proportion_ci(SURE)
    text = f"all panels: above the truth in {above.mean():.3f} (the attacker's own: {naive:.3f}): 0.025 is not surely exceeded"
    study.claims.append(Claim(text, bool(limits.low <= 0.025)))
    return study


def all_studies(*, quick: bool, workers: int, step: Callable[[str], AbstractContextManager]) -> Iterator[Study]:
    """Every study, the quick way (minutes) or in full.

    Args:
        quick: Whether fewer sets and seeds do.
        workers: Processes.
        step: Shows a piece of work to people, and gives a function to be called with (done, total).
    """
    seeds = 2 if quick else 4
    sizes = {false_alarms: 100 if quick else 500, coverage: 200 if quick else 1000, worst_attackers: 100 if quick else 1000}
    with ExitStack() as stack:
        pool = None
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start))
        for study in (false_alarms, coverage, dials, channels, strength, pitfalls, worst_attackers):
            with step(study.__doc__.splitlines()[0].rstrip(".")) as progress:
                yield study(sizes.get(study, seeds), Crew(pool, progress))
