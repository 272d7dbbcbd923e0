"""Neural attackers: streams, heads, and learning from where another training ended."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import binom

from attackers.linkage import LinkageNetwork, PairNetwork, _similarity
from attackers.neural import NeuralAttacker
from attackers.verification import AdditiveAngularMargin, Verifier
from bench import classifiers
from bench.data.clips import ClipSet
from bench.pairs import Pairs
from bench.presets import PRESETS
from bench.protocols import Part
from bench.skeleton import get_layout
from tests.tiny import shrink_budget

LAYOUT = get_layout("kinect-v1")
QUICK = PRESETS["quick"]
SHORT = {"epochs": 6, "least_steps": 150, "frames": 8, "batch": 8, "patience": 0, "rotate": 0.0, "warmup": 1}
TINY = dataclasses.replace(QUICK.attack, width=0.125, **SHORT)
PRESET = dataclasses.replace(QUICK, attack=TINY)
PEOPLE, EACH = 3, 24


def people(offset=0.0, seed=0):
    """Clips of three people who differ in the length of their bones; `offset` moves the joints of whoever is seen."""
    generator = torch.Generator().manual_seed(seed)
    who = torch.arange(PEOPLE * EACH) % PEOPLE
    pose = torch.randn((20,), generator=torch.Generator().manual_seed(7))[None, None, None] * torch.ones(1, 1, 3, 1)
    size = 1 + 0.4 * who.float()[:, None, None, None]
    rows = (pose * size + 0.1 * torch.randn((len(who), 10, 3, 20), generator=generator) + offset).flatten(0, 1)
    index = torch.arange(len(who))
    names = np.array([str(i) for i in index.tolist()], dtype=object)
    return ClipSet(rows, index * 10, index * 0 + 10, index * 0 + 1, names, LAYOUT, 1, 30.0)


def part_of():
    labels = np.arange(PEOPLE * EACH) % PEOPLE
    every = np.arange(len(labels))
    first, second = np.meshgrid(np.arange(54, 66), np.arange(54, 66), indexing="ij")
    apart = first < second
    clips = np.column_stack([first[apart], second[apart]])
    pairs = Pairs(clips, labels[clips[:, 0]] == labels[clips[:, 1]], np.zeros(len(clips), int))
    return Part("subject", (0, 1, 2), labels, every[:36], every[36:54], every[54:], labels, every, pairs, pairs, pairs)


PART = part_of()


def hits(scores):
    return (scores.argmax(1) == PART.labels[PART.test]).mean()


def made(folder):
    folder.mkdir()
    return folder


def test_both_streams_are_averaged_clip_by_clip(tmp_path, monkeypatch):
    shrink_budget(monkeypatch)  # a network of no time: how streams are put together is the same for all
    clips = people()
    both = NeuralAttacker(backbone="simple", streams="joint+bone")
    told = both.fit(clips, PART, PRESET, made(tmp_path / "both"), seed=0)
    assert set(told) == {"joint", "bone"}
    singles = []
    for name in ("joint", "bone"):
        single = NeuralAttacker(backbone="simple", streams=name)
        single.fit(clips, PART, PRESET, made(tmp_path / name), seed=0)
        singles.append(single.scores(clips, PART.test, PART, PRESET, tmp_path / name))
    fused = both.scores(clips, PART.test, PART, PRESET, tmp_path / "both")
    assert np.allclose(fused, (singles[0] + singles[1]) / 2, atol=1e-6)
    assert not np.allclose(singles[0], singles[1])
    order = PART.test[::-1].copy()
    assert np.allclose(both.scores(clips, order, PART, PRESET, tmp_path / "both")[::-1], fused, atol=1e-6)


@pytest.fixture(scope="module")
def raw_trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    attacker = NeuralAttacker(backbone="shift-gcn")
    attacker.fit(people(), PART, PRESET, folder, seed=0)
    return attacker, folder


def test_a_refitted_head_reads_other_clips_through_the_same_representation(raw_trained, tmp_path):
    from safetensors.torch import load_file
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    attacker, raw = raw_trained
    turned = people().with_rows(-people().rows)
    attacker.refit(turned, PART, PRESET, tmp_path, start=raw, seed=0)
    before, after = (load_file(folder / "joint" / "model.safetensors") for folder in (raw, tmp_path))
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"classifier.weight", "classifier.bias"}
    refitted = attacker.scores(turned, PART.test, PART, PRESET, tmp_path)
    assert hits(refitted) > hits(attacker.scores(turned, PART.test, PART, PRESET, raw))
    # The same head by scikit-learn on the embeddings.
    config = attacker.config(PRESET)
    model = classifiers.load("shift-gcn", turned, PART, config, raw / "joint")
    generator = torch.Generator().manual_seed(0)
    learn = torch.cat([classifiers.embeddings(model, turned, PART.train, config, generator) for _ in range(4)]).double()
    head = LinearDiscriminantAnalysis("lsqr", "auto").fit(learn, np.tile(PART.labels[PART.train], 4))
    expected = head.predict_proba(classifiers.embeddings(model, turned, PART.test, config).double())
    assert np.allclose(refitted, expected, atol=1e-4)


def test_a_head_for_two_classes_names_both(tmp_path):
    labels = PART.labels.clip(max=1)
    two = dataclasses.replace(PART, classes=(0, 1), labels=labels)
    attacker = NeuralAttacker(backbone="sgn", balanced=True)
    preset = dataclasses.replace(PRESET, attack=dataclasses.replace(TINY, epochs=18))  # Adam's small steps need more of them
    attacker.fit(people(), two, preset, made(tmp_path / "raw"), seed=0)
    attacker.refit(people(), two, preset, made(tmp_path / "head"), start=tmp_path / "raw", seed=0)
    scores = attacker.scores(people(), two.test, two, preset, tmp_path / "head")
    assert (scores.argmax(1) == labels[two.test]).mean() > 0.9


def test_fine_tuning_starts_from_the_weights_of_the_raw_training(raw_trained, tmp_path):
    from safetensors.torch import load_file

    attacker, raw = raw_trained
    still = dataclasses.replace(PRESET, attack=dataclasses.replace(TINY, lr=0.0))
    attacker.fine_tune(people(), PART, still, tmp_path, start=raw, seed=1)
    before, after = (load_file(folder / "joint" / "model.safetensors") for folder in (raw, tmp_path))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert all("running" in key for key in moved)


def test_fine_tuning_takes_a_third_of_the_time_at_a_tenth_of_the_rate():
    tuned = dataclasses.replace(QUICK.attack, epochs=140, most_steps=600, steps=(60, 80, 100), lr=0.1).fine_tuning()
    assert (tuned.epochs, tuned.most_steps, tuned.steps, tuned.lr) == (47, 200, (20, 26, 33), pytest.approx(0.01))


def test_labels_that_mean_nothing_are_not_learnt(tmp_path):
    shuffled = dataclasses.replace(PART, labels=np.random.default_rng(0).permutation(PART.labels))
    attacker = NeuralAttacker(backbone="sgn")
    attacker.fit(people(), shuffled, PRESET, tmp_path, seed=0)
    found = attacker.scores(people(), PART.test, PART, PRESET, tmp_path).argmax(1)
    assert (found == shuffled.labels[PART.test]).sum() <= binom.ppf(0.999, len(PART.test), 1 / PEOPLE)


def test_arcface_by_hand():
    cosine = torch.tensor([[0.5, 0.1, -0.2], [0.3, 0.9, 0.0]])
    labels = torch.tensor([0, 1])
    loss = AdditiveAngularMargin(scale=10.0, margin=0.3)(10.0 * cosine, labels)
    harder = cosine.clone()
    harder[0, 0], harder[1, 1] = np.cos(np.arccos(0.5) + 0.3), np.cos(np.arccos(0.9) + 0.3)
    expected = -torch.log_softmax(10.0 * harder, dim=1)[[0, 1], labels].mean()
    assert loss == pytest.approx(float(expected), rel=1e-5)
    worst = torch.tensor([[-1.0, 0.0]])  # beyond pi an angle would look smaller again
    assert AdditiveAngularMargin(1.0, 0.3)(worst, torch.tensor([0])) == pytest.approx(float(np.log(1 + np.e)), rel=1e-3)


@pytest.mark.parametrize(
    "linker", [Verifier(backbone="sgn"), LinkageNetwork(epochs=15, batch=8, lr=3e-3)], ids=["verifier", "lan"]
)
def test_linkers_score_pairs_of_one_person_higher(linker, tmp_path):
    clips = people()
    linker.fit(clips, PART, PRESET, made(tmp_path / "raw"), seed=0)
    scores = linker.pair_scores(clips, clips, PART.pairs.clips, PART, PRESET, tmp_path / "raw")
    assert scores.shape == (len(PART.pairs),)
    assert PART.quality(scores, "test") > 0.8
    swapped = linker.pair_scores(clips, clips, PART.pairs.clips[:, ::-1], PART, PRESET, tmp_path / "raw")
    assert np.allclose(scores, swapped, atol=1e-4)  # two clips are as alike whichever comes first
    for again in ("refit", "fine_tune"):
        getattr(linker, again)(clips, PART, PRESET, made(tmp_path / again), start=tmp_path / "raw", seed=0)
        assert np.isfinite(linker.pair_scores(clips, clips, PART.pairs.clips, PART, PRESET, tmp_path / again)).all()


def test_a_pair_network_hears_both_clips():
    torch.manual_seed(0)
    encoder = classifiers.build("sgn", people(), 3, TINY, seed=0)
    network = PairNetwork(encoder, encoder.classifier.in_features).eval()
    clips = people()
    scores = _similarity(network, clips, clips, np.array([[54, 55], [54, 56], [57, 56]]), TINY)
    assert len(set(scores.round(6))) == 3
