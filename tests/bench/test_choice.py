"""Which model attacks: the best, but the raw-trained one only if its own validation clips say anything for it."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from bench.choice import beats_guessing, choose
from bench.pairs import Pairs
from bench.protocols import LINKAGE, Part, hold_out
from bench.threat import Learning

ATTRIBUTE = "gender"
SIDES = ("validation", "test")


def part_of(labels, *, side="validation", target="subject", subjects=None, performances=None) -> Part:
    """A part all of whose clips are asked, and for linkage all pairs of two of them; each its own performance by default."""
    labels = np.asarray(labels)
    every, nobody = np.arange(len(labels)), np.arange(0)
    performances = every if performances is None else np.asarray(performances)
    subjects = labels if subjects is None else np.asarray(subjects)
    asked = {"validation": every, "test": nobody} if side == "validation" else {"validation": nobody, "test": every}
    part = Part(target, tuple(range(labels.max() + 2)), labels, nobody, **asked, subjects=subjects, performances=performances)
    if target != LINKAGE:
        return part
    clips = np.array([(a, b) for a in every for b in every[:a]])
    pairs = Pairs(clips, labels[clips[:, 0]] == labels[clips[:, 1]], np.zeros(len(clips), dtype=int))
    return dataclasses.replace(part, **{"validation_pairs" if side == "validation" else "pairs": pairs})


def saying(names, classes) -> np.ndarray:
    return np.eye(classes)[names]


def right(labels, share, rng, classes) -> np.ndarray:
    """Scores that are right for that share of the clips on average, and otherwise name anybody."""
    told = rng.random(len(labels)) < share
    return saying(np.where(told, labels, rng.integers(classes, size=len(labels))), classes)


@pytest.mark.parametrize("side", SIDES)
def test_a_model_that_saw_the_release_is_not_given_up_for_a_few_clips(side):
    """As `stats-rf` against `motion-only` on synthetic people: 4 and 6 of 120 validation clips, 0.19 and 0.05 of the test."""
    labels = np.repeat(np.arange(20), 6)
    wrong = (labels + 1) % 20
    scratch, raw = wrong.copy(), wrong.copy()
    scratch[[0, 12, 30, 50]], raw[[3, 15, 33, 60, 90, 110]] = labels[[0, 12, 30, 50]], labels[[3, 15, 33, 60, 90, 110]]
    found = {Learning.SCRATCH: saying(scratch, 21), Learning.RAW: saying(raw, 21)}
    learning, quality = choose(part_of(labels, side=side), side, found)
    assert learning is Learning.SCRATCH
    assert quality == {Learning.SCRATCH: pytest.approx(4 / 120), Learning.RAW: pytest.approx(6 / 120)}


@pytest.mark.parametrize("side", SIDES)
def test_where_validation_clips_tell_something_the_best_attacks(side):
    labels = np.repeat(np.arange(20), 6)
    part, rng = part_of(labels, side=side), np.random.default_rng(0)
    shares = {Learning.SCRATCH: 0.3, Learning.FINE_TUNE: 0.5, Learning.RAW: 0.55}
    scores = {learning: right(labels, share, rng, 21) for learning, share in shares.items()}
    learning, quality = choose(part, side, scores)
    assert learning is Learning.RAW
    assert quality[Learning.RAW] - quality[Learning.FINE_TUNE] < 0.1  # a difference that may be chance: it is the best guess
    del scores[Learning.RAW]
    assert choose(part, side, scores)[0] is Learning.FINE_TUNE
    assert choose(part, side, dict.fromkeys(shares, scores[Learning.SCRATCH]))[0] is Learning.SCRATCH  # of equals the first


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3])
def test_of_classes_of_one_size_it_is_nearly_the_t_test(share):
    """Balanced top-1 is then the mean over clips, of which the jackknife's error is the common one, but for what leaving a clip
    out does to its class."""
    labels = np.repeat(np.arange(2), 20)
    part, said, agree = part_of(labels), set(), 0
    for seed in range(100):
        scores = right(labels, share, np.random.default_rng(seed), 2)
        p = ttest_1samp(scores[np.arange(40), labels], 0.5, alternative="greater").pvalue
        told = beats_guessing(part, "validation", scores)
        said.add(told)
        agree += told == (p < 0.05)
    assert agree >= 97
    assert said == {True, False}  # both answers were tried


@pytest.mark.parametrize(
    ("target", "apart"), [("subject", "performances"), (ATTRIBUTE, "subjects")], ids=["known people", "unseen people"]
)
def test_what_is_right_together_is_one_piece_of_evidence(target, apart):
    """Of known people a performance, however many cameras film it; of an attribute a person, however many clips show them."""
    labels, each, fours = np.repeat([0, 1], 16), np.arange(32), np.arange(32) // 4
    names = labels.copy()
    names[[*range(4), *range(16, 20)]] = 1 - labels[[*range(4), *range(16, 20)]]  # right of three groups of four, in each class
    alone = part_of(labels, target=target, subjects=each, performances=each)
    assert beats_guessing(alone, "validation", saying(names, 2))  # 24 of 32
    grouped = dataclasses.replace(alone, **{apart: fours})
    assert not beats_guessing(grouped, "validation", saying(names, 2))  # 6 of 8
    assert beats_guessing(grouped, "validation", saying(labels, 2))


@pytest.mark.parametrize("target", ["subject", ATTRIBUTE, LINKAGE])
def test_guesses_seldom_pass_for_knowledge(target):
    """Of attributes and linkage they hang together: whoever names a person wrong does so in all clips."""
    people = np.repeat(np.arange(12), 6)
    rng, passed = np.random.default_rng(0), 0
    for _ in range(200):
        if target == LINKAGE:
            part = part_of(people, target=target)
            place = rng.normal(size=len(people))
            clips = part.validation_pairs.clips
            scores = -np.abs(place[clips[:, 0]] - place[clips[:, 1]])
        elif target == ATTRIBUTE:
            part = part_of(people % 2, target=target, subjects=people)
            scores = saying(rng.integers(2, size=12)[people], 3)
        else:
            part = part_of(people, target=target)
            scores = saying(rng.integers(12, size=len(people)), 13)
        passed += beats_guessing(part, "validation", scores)
    assert passed <= 16  # 10 expected
    assert passed or target == LINKAGE  # where pairs hold nothing, the jackknife of pairs overstates the error


@pytest.mark.parametrize("side", SIDES)
def test_linkage_finds_whether_pairs_tell_anything(side):
    part = part_of(np.repeat(np.arange(4), 6), side=side, target=LINKAGE)
    mated = part.pairs_asked(side).mated
    noise = np.random.default_rng(1).normal(size=len(mated))
    telling, nothing = noise + 3 * mated, noise - 0.2 * (noise * mated).sum() / mated.sum()
    assert choose(part, side, {Learning.SCRATCH: nothing, Learning.RAW: telling})[0] is Learning.RAW
    assert choose(part, side, {Learning.SCRATCH: telling, Learning.RAW: nothing})[0] is Learning.SCRATCH
    assert choose(part, side, {Learning.SCRATCH: -noise, Learning.RAW: noise})[0] is Learning.SCRATCH


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_judged_is_not_sure():
    few = part_of(np.zeros(3, dtype=int), performances=[0, 0, 0])
    assert not beats_guessing(few, "validation", saying([0, 0, 0], 2))
    two = part_of([0, 1])
    assert not beats_guessing(two, "validation", saying([0, 1], 2))
    lone = part_of([0, 0, 0, 1], target=LINKAGE)  # the clip of person 1 is in all pairs of two people
    assert not beats_guessing(lone, "validation", lone.validation_pairs.mated.astype(float))


def test_linkage_cannot_be_rehearsed():
    part = part_of(np.repeat(np.arange(4), 6), side="test", target=LINKAGE)
    with pytest.raises(ValueError, match="links clips"):
        hold_out(part)
