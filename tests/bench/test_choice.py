"""Which model attacks: one that learnt from anonymized clips, unless the raw-trained one is surely better."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from bench.choice import choose, surely_better
from bench.pairs import Pairs
from bench.protocols import Part
from bench.threat import Learning


def part_of(labels, performances=None) -> Part:
    """A part whose clips all validate, and for linkage all pairs of two of them."""
    labels = np.asarray(labels)
    every, nobody = np.arange(len(labels)), np.arange(0)
    clips = np.array([(a, b) for a in every for b in every[:a]])
    pairs = Pairs(clips, labels[clips[:, 0]] == labels[clips[:, 1]], np.zeros(len(clips), dtype=int))
    performances = every if performances is None else np.asarray(performances)
    classes = tuple(range(labels.max() + 2))
    return Part("subject", classes, labels, nobody, every, nobody, labels, performances), pairs


def saying(names, classes) -> np.ndarray:
    return np.eye(classes)[names]


def right(labels, share, rng, classes) -> np.ndarray:
    """Scores that are right for that share of the clips on average, and otherwise name anybody."""
    told = rng.random(len(labels)) < share
    return saying(np.where(told, labels, rng.integers(classes, size=len(labels))), classes)


def test_a_model_that_saw_the_release_is_not_given_up_for_a_few_clips():
    """As `stats-rf` against `motion-only` on synthetic people: 4 and 6 of 120 validation clips, 0.20 and 0.05 of the test."""
    labels = np.repeat(np.arange(20), 6)
    part, _ = part_of(labels)
    wrong = (labels + 1) % 20
    scratch, raw = wrong.copy(), wrong.copy()
    scratch[[0, 12, 30, 50]], raw[[3, 15, 33, 60, 90, 110]] = labels[[0, 12, 30, 50]], labels[[3, 15, 33, 60, 90, 110]]
    learning, quality = choose(part, "validation", {Learning.SCRATCH: saying(scratch, 21), Learning.RAW: saying(raw, 21)})
    assert learning is Learning.SCRATCH
    assert quality == {Learning.SCRATCH: pytest.approx(4 / 120), Learning.RAW: pytest.approx(6 / 120)}


def test_a_raw_trained_model_that_is_surely_better_attacks():
    labels = np.repeat(np.arange(20), 6)
    part, _ = part_of(labels)
    rng = np.random.default_rng(0)
    scores = {
        learning: right(labels, share, rng, 21)
        for learning, share in ((Learning.SCRATCH, 0.3), (Learning.FINE_TUNE, 0.5), (Learning.RAW, 0.8))
    }
    assert choose(part, "validation", scores)[0] is Learning.RAW
    del scores[Learning.RAW]
    assert choose(part, "validation", scores)[0] is Learning.FINE_TUNE
    assert choose(part, "validation", dict.fromkeys(scores, scores[Learning.SCRATCH]))[0] is Learning.SCRATCH


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.2, 0.3])
def test_of_one_class_it_is_the_paired_t_test(gain):
    """One class and one clip a performance: quality is a plain mean, of which the jackknife's error is the common one."""
    part, _ = part_of(np.zeros(40, dtype=int))
    said = set()
    for seed in range(50):
        rng = np.random.default_rng(seed)
        ours, theirs = right(part.labels, 0.3 + gain, rng, 2), right(part.labels, 0.3, rng, 2)
        p = ttest_rel(ours[:, 0], theirs[:, 0], alternative="greater").pvalue
        said.add(surely_better(part, "validation", ours, theirs))
        assert surely_better(part, "validation", ours, theirs) == (p < 0.05)
    assert gain == 0.0 or said == {True, False}  # both answers were tried


def test_the_cameras_of_a_performance_are_one_piece_of_evidence():
    labels = np.zeros(24, dtype=int)
    better, worse = np.zeros(24, dtype=int), np.repeat([0, 1], [20, 4])
    once, _ = part_of(labels)
    cameras, _ = part_of(labels, performances=np.repeat(np.arange(6), 4))  # the last performance alone makes the difference
    assert surely_better(once, "validation", saying(better, 2), saying(worse, 2))
    assert not surely_better(cameras, "validation", saying(better, 2), saying(worse, 2))


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("leak", [0.0, 0.4])
def test_equally_good_models_seldom_lose_to_the_raw_trained_one(linked, leak):
    labels = np.repeat(np.arange(8), 8)  # 64 performances: more than are left out one at a time
    part, pairs = part_of(labels)
    if linked:
        part = Part(**{**vars(part), "validation_pairs": pairs})
    wins = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        if linked:  # a clip's error is common to all its pairs
            shown = [leak * np.eye(8)[labels] + 0.5 * rng.normal(size=(len(labels), 8)) for _ in range(2)]
            both = [-np.linalg.norm(x[pairs.clips[:, 0]] - x[pairs.clips[:, 1]], axis=1) for x in shown]
        else:
            both = [right(labels, leak, rng, 9) for _ in range(2)]
        wins += surely_better(part, "validation", *both)
    assert wins <= 20  # 10 expected; half of the time the raw-trained one does better at all
    assert wins or linked  # where pairs hold nothing, the jackknife of pairs overstates the error


def test_linkage_finds_who_is_surely_better():
    labels = np.repeat(np.arange(4), 6)
    part, pairs = part_of(labels)
    part = Part(**{**vars(part), "validation_pairs": pairs})
    noise = np.random.default_rng(0).normal(size=len(pairs))
    scores = {Learning.SCRATCH: noise, Learning.RAW: noise + 3 * pairs.mated}
    assert choose(part, "validation", scores)[0] is Learning.RAW
    assert choose(part, "validation", {Learning.SCRATCH: scores[Learning.RAW], Learning.RAW: noise})[0] is Learning.SCRATCH


def test_one_performance_says_nothing_for_sure():
    part, _ = part_of(np.zeros(3, dtype=int), performances=[0, 0, 0])
    assert not surely_better(part, "validation", saying([0, 0, 0], 2), saying([1, 1, 1], 2))
