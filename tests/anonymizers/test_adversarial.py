"""Adversarial training: its terms, its turns, and what is as published."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from anonymizers.adversarial import Adversarial
from anonymizers.minimax import Game, Terms, entropy
from attackers.backbones import create as backbone
from bench.files import UserError
from bench.presets import get_preset
from bench.registry import ANONYMIZERS
from bench.specs import SpecError, parse_spec
from tests.anonymizers.test_contract import TINY, make_clips, make_examples


def examples(**change):
    preset = dataclasses.replace(
        TINY, **{name: dataclasses.replace(getattr(TINY, name), **change) for name in ("attack", "utility")} if change else {}
    )
    return dataclasses.replace(make_examples(make_clips()), preset=preset)


PUBLISHED = Terms(1.0, 10.0, 0.0)


def game(found=None, *, network="resnet-signed", terms=PUBLISHED, private=("subject",), n=1):
    found = found or examples()
    where = {"action": ("shift-gcn", ""), "privacy": "shift-gcn", "private": private}
    return Game(found, network, terms, **where, lr=0.01, minimization_steps=n)


def test_entropy_is_in_nats_and_largest_for_the_uniform_answer():
    assert float(entropy(torch.zeros(3, 8))) == pytest.approx(math.log(8))
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    assert float(entropy(logits)) == pytest.approx(1.5 * math.log(2))
    assert float(entropy(torch.tensor([[50.0, 0.0]]))) == pytest.approx(0, abs=1e-6)


def test_the_anonymizer_has_n_turns_to_one_of_the_privacy_classifier(monkeypatch):
    turns = []
    monkeypatch.setattr(Game, "_minimise", lambda self, *args: turns.append("f") or {"action_loss": torch.zeros(())})
    monkeypatch.setattr(Game, "_maximise", lambda self, *args: turns.append("g") or {"privacy_loss": torch.zeros(())})
    game(examples(epochs=3, most_steps=12), n=1).play()
    assert turns == ["f", "g"] * 6
    turns.clear()
    game(examples(epochs=3, most_steps=12), n=2).play()
    assert turns == ["f", "f", "g"] * 4


def weights(model):
    return torch.cat([value.detach().flatten().double().clone() for value in model.state_dict().values()])


def test_each_turn_moves_its_own_network_alone():
    played = game()
    indices = played.train[:4]
    models = {"f": played.anonymizer, "g": played.privacy[0].model, "h": played.action.model}
    movers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    before = {name: weights(model) for name, model in models.items()}
    played._minimise(indices, 0, movers["f"], torch.optim.SGD(played.discriminator.parameters(), lr=0.1))
    assert not torch.equal(weights(models["f"]), before["f"])
    assert torch.equal(weights(models["g"]), before["g"])
    between = weights(models["f"])
    played._maximise(indices, 0, [movers["g"]])
    assert torch.equal(weights(models["f"]), between)
    assert not torch.equal(weights(models["g"]), before["g"])
    assert torch.equal(weights(models["h"]), before["h"])


def test_the_loss_is_that_of_the_paper():
    played = game(terms=Terms(2.0, 3.0, 0.0))
    with torch.no_grad():
        for parameter in played.anonymizer.parameters():
            parameter.add_(0.02)
    indices = played.train[:2]
    state = played.generator.get_state()
    told = played._minimise(indices, 0, torch.optim.SGD(played.anonymizer.parameters(), lr=0.0), None)
    played.generator.set_state(state)
    with torch.no_grad():
        played.anonymizer.train()
        x, out, (seen, read) = played._anonymized(indices, 0, [played.action, played.privacy[0]], played.generator)
        action = torch.nn.functional.cross_entropy(played.action.model.eval()(seen), played.action.labels[indices])
        hidden = entropy(played.privacy[0].model.eval()(read))
    there = (x != 0).any(dim=3, keepdim=True).any(dim=1, keepdim=True).expand_as(x)
    error = (out - x)[there].square().mean()
    expected = {"action_loss": action, "entropy": hidden, "squared_error": error}
    assert {name: float(value) for name, value in told.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=1e-4
    )
    assert float(error) > 0


def test_the_published_error_counts_absent_bodies_and_mended_one_does_not():
    x = torch.zeros(1, 3, 2, 25, 2)
    x[..., 0] = 1
    out = x + 2
    mended = game()
    assert float(mended._error(out, x)) == pytest.approx(4)
    assert torch.equal(mended._masked(out, x)[..., 1], x[..., 1])
    published = game(examples(published=True, most_steps=2, warmup=0))
    assert float(published._error(out * torch.tensor([1.0, 0.0]), x)) == pytest.approx(2)
    assert torch.equal(published._masked(out, x), out)


def test_the_preset_paper_takes_the_published_recipe():
    paper, quick = get_preset("paper"), get_preset("quick")
    method = Adversarial()
    assert method.budget(paper)["network"] == "resnet"
    assert method.budget(quick)["network"] == "resnet-signed"
    config = method.budget(paper)["training"]
    recipe = {"epochs": 140, "steps": (60, 80, 100), "batch": 64, "frames": 300, "sampling": "cyclic", "weight_decay": 1e-4}
    assert {name: config[name] for name in recipe} == recipe
    assert (config["rotate"], config["stretch"], config["clip_norm"], config["warmup"]) == (0, 0, 0, 0)


@pytest.mark.parametrize(("network", "weights", "rate"), [("resnet", (1, 10), 0.01), ("unet", (3, 10), 0.001)])
def test_weights_and_rates_are_as_published(monkeypatch, network, weights, rate):
    seen = {}

    def build(examples, name, terms, **rest):
        seen.update(name=name, terms=terms, **rest)
        raise InterruptedError

    monkeypatch.setattr("anonymizers.adversarial.Game", build)
    with pytest.raises(InterruptedError):
        Adversarial(network=network).fit(examples(published=True))
    assert (seen["terms"].alpha, seen["terms"].beta, seen["lr"], seen["minimization_steps"]) == (*weights, rate, 1)


@pytest.mark.parametrize("network", ["resnet", "unet", "unet-residual", "transformer"])
def test_every_network_learns_and_is_released_masked(network):
    found = examples()
    method = Adversarial(network=network, gamma=1.0, private="both")
    fitted = method.fit(found)
    assert {"action_loss", "entropy", "squared_error", "realism", "discriminator_loss", "privacy_loss"} <= fitted.info[
        "curves"
    ].keys()
    assert all(np.isfinite(values).all() for values in fitted.info["curves"].values())
    assert fitted.info["seed"] == 0


@pytest.mark.parametrize("network", ["resnet", "unet"])
def test_the_published_recipe_plays_by_sgd_with_clips_repeated_to_its_length(network):
    found = examples(published=True, most_steps=4, warmup=0, frames=40, sampling="cyclic", choose_best=False)
    fitted = Adversarial(network=network).fit(found)
    assert fitted.info["network"] == network
    assert fitted.state["arguments"].tolist() == [2, 4, 40]  # bodies, width, frames
    assert fitted.info["best_epoch"] == len(fitted.info["curves"]["entropy"]) - 1
    assert Adversarial().fit(found).info["network"] == "resnet"


def test_published_weights_of_the_action_classifier_are_loaded_and_frozen(tmp_path):
    file = tmp_path / "weights.pt"
    found = examples()
    with pytest.raises(SpecError, match="names no file"):
        parse_spec(f"adversarial:action_weights={file}", ANONYMIZERS)
    width = found.preset.utility.width
    known = backbone("2s-agcn", layout="ntu", num_classes=2, num_bodies=2, width=width)
    torch.save(known.state_dict(), file)
    spec = parse_spec(f"adversarial:action_backbone=2s-agcn,action_weights={file}", ANONYMIZERS)
    with pytest.raises(UserError, match="holds no weights for this action classifier"):
        spec.value.fit(found)
    digest = spec.digest
    file.write_bytes(b"no weights")
    assert spec.digest != digest  # a file counts by its content
    with pytest.raises(UserError, match="holds no weights"):
        spec.value.fit(found)


@pytest.mark.slow
def test_the_published_classifier_takes_part_in_a_game(bench_data):
    file = bench_data / "pretrained" / "ntu_ShiftGCN_joint_xview.pt"
    if not file.is_file():
        pytest.skip(f"no published weights: {file}")
    found = examples(width=1.0)
    part = found.parts["action"]
    sixty = dataclasses.replace(part, classes=tuple(range(1, 61)))
    found = dataclasses.replace(found, parts={**found.parts, "action": sixty})
    fitted = Adversarial(action_weights=str(file)).fit(found)
    assert fitted.info["raw_curves"]["action"] == {}  # nothing was trained


def test_missing_labels_are_named():
    found = examples()
    lacking = dataclasses.replace(found, parts={"action": found.parts["action"]})
    with pytest.raises(UserError, match="needs labels of 'subject'"):
        Adversarial().fit(lacking)
