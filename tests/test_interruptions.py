"""Long trainings beside the common loop: they go on where they were interrupted, and need no more memory than there is."""

import dataclasses
import time

import pytest
import torch

from anonymizers.adversarial import Adversarial
from anonymizers.minimax import Game
from anonymizers.networks.retargeting import Encoder
from anonymizers.retargeting_training import Retargeter
from attackers.inversion import RestoringNetwork, TemporalInverter
from attackers.linkage import LinkageNetwork, PairNetwork
from bench import checkpoint, classifiers
from bench.execution import Pieces
from bench.registry import ANONYMIZERS
from bench.specs import parse_spec
from bench.stages import StageStore
from bench.training import descend
from tests.anonymizers.test_adversarial import game
from tests.anonymizers.test_contract import TINY, make_clips, make_examples
from tests.attackers.test_inversion import part, smooth_clips
from tests.attackers.test_neural import PART, PRESET, people

BUDGET = {"epochs": 3, "most_steps": 12}
SMALL = dataclasses.replace(TINY, **{name: dataclasses.replace(getattr(TINY, name), **BUDGET) for name in ("attack", "utility")})
LARGER = dataclasses.replace(SMALL.attack, batch=8, most_steps=6)
SHORT = dataclasses.replace(PRESET, attack=dataclasses.replace(PRESET.attack, epochs=2, width=0.05))


class StopError(Exception):
    """Ends a training from its report of progress."""


def told_to(notes, stop):
    def progress(done, total, text=""):
        notes.append(text)
        if len(notes) == stop:
            raise StopError

    return progress


def fit_anonymizer(name, folder, notes, stop):
    examples = dataclasses.replace(make_examples(make_clips()), preset=SMALL, progress=told_to(notes, stop), folder=folder)
    fitted = parse_spec(name, ANONYMIZERS).value.fit(examples)
    return dict(fitted.state), dict(fitted.info)


def fit_inverter(name, folder, notes, stop):
    raw = smooth_clips()
    inverter, seen = TemporalInverter(epochs=4, channels=16, frames=20, batch=4), raw.with_rows(raw.rows + 0.3)
    info = inverter.fit(seen, raw, part(), SHORT, folder, seed=0, progress=told_to(notes, stop))
    return {"restored": inverter.restore(seen, SHORT, folder)}, info


def fit_linker(name, folder, notes, stop):
    clips, linker = people(), LinkageNetwork(backbone="sgn", epochs=3, batch=8)
    info = linker.fit(clips, PART, SHORT, folder, seed=0, progress=told_to(notes, stop))
    scores = linker.pair_scores(clips, clips, PART.pairs.clips, PART, SHORT, folder)
    return {"scores": torch.from_numpy(scores)}, info


@pytest.mark.parametrize(
    ("fit", "name", "stops"),
    [
        (fit_anonymizer, "adversarial", (2, 8)),  # while a classifier learns from raw clips, and in the game
        (fit_anonymizer, "adversarial:gamma=0.1,private=both", (11,)),
        (fit_anonymizer, "adversarial:privacy_backbone=sgn", (8,)),  # which drops out
        (fit_anonymizer, "adversarial + adversarial", (14,)),  # the second sees other clips
        (fit_anonymizer, "explain-mask:k=3", (5,)),
        (fit_anonymizer, "calibrated:gauss", (2,)),
        (fit_anonymizer, "dmr", (2,)),
        pytest.param(fit_anonymizer, "pmr", (2,), marks=pytest.mark.slow),
        (fit_inverter, "temporal", (3,)),
        pytest.param(fit_linker, "lan-linkage", (1, 4), marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_training_goes_on_to_the_same_numbers(fit, name, stops, tmp_path, monkeypatch):
    folders = [tmp_path / "whole", tmp_path / "interrupted"]
    for folder in folders:
        folder.mkdir()
    whole: list[str] = []
    expected, told = fit(name, folders[0], whole, None)
    assert not list(folders[0].rglob("*.checkpoint"))  # in so short a time nothing is written
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    for stop in stops:
        with pytest.raises(StopError):
            fit(name, folders[1], [], stop)
    rest: list[str] = []
    found, again = fit(name, folders[1], rest, None)
    assert 0 < len(rest) < len(whole)
    assert rest == whole[-len(rest) :]
    assert again == told
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def at_most(count, network_class, monkeypatch):
    """Has a network run out of memory with more than `count` clips in training."""
    forward = network_class.forward

    def crowded(self, clips, *rest):
        if self.training and torch.is_grad_enabled() and len(clips) > count:
            raise torch.OutOfMemoryError("too many")
        return forward(self, clips, *rest)

    monkeypatch.setattr(network_class, "forward", crowded)


def test_the_game_takes_smaller_pieces_where_memory_is_short(monkeypatch):
    """Memory runs out with all four clips, and then after the first two, whose bones must not be judged twice."""
    budget = dataclasses.replace(SMALL.attack, batch=4)
    examples = dataclasses.replace(make_examples(make_clips()), preset=dataclasses.replace(SMALL, attack=budget))
    network, judge, shown = type(game().anonymizer), Game._judge, []
    forward, calls = network.forward, []

    def judged(self, real, made, critic):
        shown.append((real, made))
        return judge(self, real, made, critic)

    def crowded(self, clips):
        if self.training and torch.is_grad_enabled():
            calls.append(len(clips))
            if len(clips) > 2 or (len(clips) == 2 and calls.count(2) % 2 == 0):
                raise torch.OutOfMemoryError("too many")
        return forward(self, clips)

    monkeypatch.setattr(Game, "_judge", judged)
    adversarial = Adversarial(gamma=0.1)
    plain = adversarial.fit(examples)
    (real, _), *_ = shown
    shown.clear()
    monkeypatch.setattr(network, "forward", crowded)
    pieces = adversarial.fit(examples)
    assert calls[:7] == [4, 2, 2, 1, 1, 1, 1]
    assert "micro_batch" not in plain.info
    assert pieces.info["micro_batch"] == 1
    # The same clips, if in other windows: about as many bodies are there. Of each clip once they would be a quarter, or more.
    assert 0.8 * len(real) < len(shown[0][0]) < 1.2 * len(real)
    assert shown[0][1].shape == shown[0][0].shape


@pytest.mark.slow
def test_retargeting_takes_smaller_pieces_where_memory_is_short(monkeypatch):
    examples = dataclasses.replace(make_examples(make_clips()), preset=dataclasses.replace(SMALL, attack=LARGER))
    plain = Retargeter(examples, adversaries=True).train()
    at_most(4, Encoder, monkeypatch)
    pieces = Retargeter(examples, adversaries=True).train()
    assert "micro_batch" not in plain
    assert pieces["micro_batch"] == {"clips": 4, "quadruplets": 1}
    for stage in ("warm-up paired", "warm-up"):  # the error of poses is a mean over clips, so that pieces change nothing
        found = [told["losses"][stage]["reconstruction"] for told in (plain, pieces)]
        assert found[0] == pytest.approx(found[1], rel=0.05)


@pytest.mark.parametrize(
    ("fit", "network", "key"),
    [
        (fit_inverter, RestoringNetwork, "restored"),
        pytest.param(fit_linker, PairNetwork, "scores", marks=pytest.mark.slow),
    ],
)
def test_attackers_take_smaller_pieces_where_memory_is_short(fit, network, key, tmp_path, monkeypatch):
    """Not smaller than two pairs: the head of a network of pairs normalises over them."""
    for name in ("plain", "pieces"):
        (tmp_path / name).mkdir()
    expected, plain = fit("", tmp_path / "plain", [], None)
    at_most(2, network, monkeypatch)
    found, pieces = fit("", tmp_path / "pieces", [], None)
    assert "micro_batch" not in plain
    assert pieces["micro_batch"] == 2
    if fit is fit_inverter:  # nothing in it looks at other clips
        assert pieces["curve"] == pytest.approx(plain["curve"], rel=0.05)
        assert pieces["mpjpe_m"] < 0.9 * pieces["mpjpe_before_m"]
    assert torch.isfinite(found[key]).all()
    assert not torch.equal(found[key], expected[key])  # the last digits, or what batch normalisation saw


def test_pieces_have_alike_lengths_and_never_less_than_they_may():
    assert [piece.stop - piece.start for piece in Pieces(3).slices(10)] == [2, 3, 2, 3]
    assert [piece.stop - piece.start for piece in Pieces(3, least=2).slices(10)] == [2, 3, 2, 3]
    assert Pieces(2, least=2).slices(3) == [slice(0, 3)]
    assert Pieces(8).slices(5) == [slice(0, 5)]
    assert Pieces(8).slices(0) == [slice(0, 0)]

    def none(size):
        raise torch.OutOfMemoryError("none left")

    pieces = Pieces(32, least=2)
    with pytest.raises(torch.OutOfMemoryError):
        pieces(none, 32)
    assert pieces.size == 2


@pytest.mark.parametrize("change", ["labels", "clips"])
def test_a_checkpoint_of_other_clips_or_labels_is_not_taken(tmp_path, monkeypatch, change):
    """Even in the same file: a wrapper that hands its own folder on does no harm."""
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    clips, told = people(), []

    def train(clips, part):
        model = classifiers.build("sgn", clips, len(part.classes), PRESET.attack, 0)
        how = {"seed": 0, "progress": lambda done, total, text: told.append(done), "checkpoint": tmp_path / "c"}
        classifiers.train(model, clips, part, dataclasses.replace(SHORT.attack, least_steps=0), **how)

    train(clips, PART)
    assert told == [1, 2]
    train(clips, PART)
    assert told == [1, 2]
    if change == "labels":
        train(clips, dataclasses.replace(PART, labels=(PART.labels + 1) % len(PART.classes)))
    else:
        train(clips.with_rows(clips.rows * 1.5), PART)
    assert told == [1, 2, 1, 2]


def test_the_time_of_earlier_attempts_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    clips, store = people(), StageStore(tmp_path)

    def compute(folder, stop):
        def progress(done, total, text):
            time.sleep(0.2)
            if done == stop:
                raise StopError

        model = classifiers.build("sgn", clips, len(PART.classes), PRESET.attack, 0)
        config = dataclasses.replace(SHORT.attack, epochs=4)
        classifiers.train(model, clips, PART, config, seed=0, progress=progress, checkpoint=folder / "training.checkpoint")

    with pytest.raises(StopError):
        store.run("train", 1, {}, lambda folder: compute(folder, 4))
    output = store.run("train", 1, {}, lambda folder: compute(folder, None))
    assert output.seconds >= 0.8  # three epochs before, and one now


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_step_in_pieces_is_the_step_of_the_batch(size):
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))

    def step(size, most=0.0):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = torch.nn.Linear(5, 2)

        def loss_of(piece):
            if piece.stop - piece.start > size:
                raise torch.OutOfMemoryError("too many")
            loss = model(x[piece]).square().mean()
            return loss, {"told": loss}

        pieces = Pieces(8)
        told = descend(torch.optim.SGD(model.parameters(), lr=0.1), loss_of, 8, pieces, model.parameters(), most)
        return torch.cat([p.detach().flatten() for p in model.parameters()]), float(told["told"]), pieces.size

    for most in (0.0, 1e-3):
        whole, in_pieces = step(8, most), step(size, most)
        assert torch.allclose(whole[0], in_pieces[0], atol=1e-6)
        assert whole[1] == pytest.approx(in_pieces[1], rel=1e-5)
        assert in_pieces[2] <= size
    assert not torch.allclose(step(8)[0], step(8, 1e-3)[0], atol=1e-4)
