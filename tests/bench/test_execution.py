"""How work is done: no waiting for a GPU in inner loops, fused optimisers, compiled networks, bfloat16, little memory."""

import copy
import dataclasses
import os
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from anonymizers.retargeting_training import Retargeter
from attackers.linkage import LinkageNetwork
from bench import checkpoint, classifiers, execution, training
from bench.execution import Pieces, compiled, make_deterministic
from bench.files import UserError
from bench.training import make_optimiser, predict, train_classifier
from tests.anonymizers.test_adversarial import game
from tests.anonymizers.test_contract import make_clips as make_anonymizer_clips
from tests.anonymizers.test_contract import make_examples
from tests.attackers.test_neural import PART, TINY, people
from tests.bench.test_training import CONFIG, Dropping, Linear, fit, make_clips


class Waits(TorchDispatchMode):
    """Counts operations for which a program waits until a GPU has caught up.

    These are answers to the program (`.item()`, `float`, `if tensor`), results whose size only the device knows (masks as
    indices, nonzero, unique), and numbers that the program sends it (`torch.tensor`).
    """

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        kind = name.partition(".")[0]
        masks = kind.startswith("index") and any(
            isinstance(of, torch.Tensor) and of.dtype == torch.bool
            for of in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        told = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero", "lift_fresh")
        if masks or kind in told:
            self.seen["mask" if masks else kind] += 1
        return func(*args, **(kwargs or {}))


def waits_of(work):
    with Waits() as waits:
        work()
    return waits.seen


def test_the_counter_sees_what_makes_a_program_wait():
    x, mask = torch.arange(4.0), torch.arange(4) > 1
    assert waits_of(lambda: x.sum().item()) == {"_local_scalar_dense": 1}
    assert waits_of(lambda: bool((x > 0).any())) == {"_local_scalar_dense": 1}
    assert waits_of(lambda: x[mask]) == {"mask": 1}
    assert waits_of(lambda: x.clone().index_put_((mask,), x[0])) == {"mask": 1}
    assert waits_of(lambda: torch.tensor([1, 2])) == {"lift_fresh": 1}
    assert waits_of(lambda: (x[torch.arange(2)] * 2).sum().sqrt().clamp_min(1)) == {}


def waits_by_steps(clips, model, config, **change):
    """What a training of one epoch waits for, with 1 step and with 3."""
    clips.windows(torch.arange(1), 4, "window")  # what is made once and kept
    found = []
    for steps in (1, 3):
        short = dataclasses.replace(config, epochs=1, least_steps=0, most_steps=steps, batch=8, warmup=0, **change)
        what = copy.deepcopy(model), clips, torch.from_numpy(PART.labels), PART.train, PART.validation, short
        found.append(waits_of(lambda what=what: train_classifier(*what, seed=0)))
    return found


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize(("backbone", "stream"), [("shift-gcn", "bone"), ("2s-agcn", "joint-motion"), ("sgn", "bone-motion")])
def test_a_step_of_a_classifier_waits_for_nothing(monkeypatch, backbone, stream, optimiser):
    monkeypatch.setattr(training, "fused", lambda device: True)  # as on a GPU; plain Adam on a CPU asks for its number of steps
    clips = dataclasses.replace(people(), stream=stream, num_bodies=2)
    model = classifiers.build(backbone, clips, 3, TINY, seed=0)
    change = {"rotate": 10.0, "stretch": 0.1, "clip_norm": 1.0, "optimiser": optimiser, "balanced": True}
    once, thrice = waits_by_steps(clips, model, classifiers.config_for(backbone, TINY), **change)
    assert once == thrice
    assert once["_local_scalar_dense"] > 0  # losses and accuracies, once an epoch


class Curious(nn.Module):
    """Looks at its input in training."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(60, 3)

    def forward(self, clips):
        if self.training:
            assert float(clips.abs().sum()) > 0
        return self.linear(clips.mean(dim=2).flatten(1))


def test_a_network_that_waits_is_found():
    once, thrice = waits_by_steps(people(), Curious(), TINY)
    assert thrice["_local_scalar_dense"] == once["_local_scalar_dense"] + 2


def test_a_step_of_a_network_of_pairs_waits_for_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "fused", lambda device: True)
    found = []
    for steps in (5, 15):  # a fifth of them an epoch
        config = dataclasses.replace(TINY, most_steps=steps, rotate=0.0)
        clips, linker = people(), LinkageNetwork(backbone="st-gcn", epochs=1, batch=8)
        encoder = classifiers.build("st-gcn", clips, 3, config, seed=0)
        network = linker._network(encoder, clips, seed=0)
        what = (network, network.parameters(), clips, PART, config, tmp_path, 0, 1e-3, None)
        found.append(waits_of(lambda what=what, linker=linker: linker._learn_pairs(*what)))
    assert found[0] == found[1]


@pytest.mark.parametrize("network", ["resnet-signed", "unet"])  # reads windows; reads whole clips
def test_a_step_of_the_minimax_game_waits_for_nothing(monkeypatch, network):
    monkeypatch.setattr(training, "fused", lambda device: True)
    played = game(network=network)
    movers = [
        make_optimiser("adam", [{"params": list(m.parameters())}], 1e-3) for m in (played.anonymizer, played.privacy[0].model)
    ]
    (longest,) = played._longest([played.train[:4]])
    assert longest == int(played.clips.lengths[played.train[:4]].max()) or played.anonymizer.frame_wise
    assert waits_of(lambda: played._minimise(played.train[:4], longest, movers[0], None)) == {}
    assert waits_of(lambda: played._maximise(played.train[:4], longest, movers[1:])) == {}


def test_a_step_of_retargeting_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(training, "fused", lambda device: True)
    retargeter = Retargeter(make_examples(make_anonymizer_clips()), adversaries=True)
    batches = retargeter._quadruplets()
    groups = {
        "coders": (retargeter.motion, retargeter.privacy, retargeter.decoder),
        "judges": (retargeter.heads, retargeter.critic),
    }
    retargeter.movers = {
        name: make_optimiser("adamw", [{"params": [p for m in of for p in m.parameters()]}], 1e-3) for name, of in groups.items()
    }
    for stage in ("warm-up", "heads", "paired"):
        assert waits_of(lambda stage=stage: retargeter._step(stage, next(batches))) == {}


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_a_fused_optimiser_takes_the_same_steps(monkeypatch, kind):
    found = []
    for fused in (False, True):
        monkeypatch.setattr(training, "fused", lambda device, fused=fused: fused)
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimiser = make_optimiser(kind, [{"params": list(model.parameters()), "weight_decay": 0.1}], 0.01)
        assert optimiser.defaults["fused"] is fused
        for _ in range(20):
            loss_of = lambda piece, model=model: (model(torch.ones(4, 5)[piece]).square().sum(), {})  # noqa: E731
            training.descend(optimiser, loss_of, 4, execution.Pieces(4), model.parameters(), 1.0)
        found.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert torch.allclose(*found, atol=1e-6)
    assert not torch.allclose(found[0], torch.cat([value.flatten() for value in _fresh().state_dict().values()]), atol=1e-2)


def _fresh():
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def test_optimisers_are_fused_on_a_gpu_and_only_there():
    assert execution.fused(torch.device("cuda", 1))
    assert not execution.fused(torch.device("cpu"))


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_whole_training_with_a_fused_optimiser(monkeypatch, optimiser):
    config = dataclasses.replace(CONFIG, optimiser=optimiser, lr=0.02)
    plain, _, _, _ = fit(config)
    monkeypatch.setattr(training, "fused", lambda device: True)
    fused, _, _, _ = fit(config)
    assert torch.allclose(plain.linear.weight, fused.linear.weight, atol=1e-4)
    assert (plain.linear.weight.abs() > 0.1).any()


@pytest.mark.parametrize(("fused", "optimiser"), [(False, "sgd"), (True, "sgd"), (True, "adam")])
def test_training_in_bfloat16_learns_predicts_and_goes_on_from_a_checkpoint(monkeypatch, tmp_path, fused, optimiser):
    monkeypatch.setattr(training, "fused", lambda device: fused)
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    config = dataclasses.replace(CONFIG, precision="bfloat16", optimiser=optimiser, lr=0.01, rotate=20.0)
    clips, truth = make_clips()
    types = set()

    def run(file=None, stop=None):
        def progress(done, total, note):
            if done == stop:
                raise KeyboardInterrupt

        with classifiers.seeded(1, clips.device):
            model = Dropping()
            model.layers[1].register_forward_hook(lambda module, given, out: types.add(out.dtype))
            how = {"seed": 3, "progress": progress, "checkpoint": file}
            history = train_classifier(model, clips, truth, np.arange(40), np.arange(40, 50), config, **how)
        return model, history

    whole, history = run()
    assert types == {torch.bfloat16}
    assert all(value.dtype != torch.bfloat16 for value in whole.state_dict().values())
    said = predict(whole, clips, np.arange(50, 60), config)
    assert said.dtype == torch.float32
    exact = predict(whole, clips, np.arange(50, 60), dataclasses.replace(config, precision="float32"))
    assert 0 < float((said - exact).abs().max()) < 0.05
    assert history.train_loss[-1] < 0.9 * history.train_loss[0]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", stop=5)
    again, resumed = run(tmp_path / "c")
    assert resumed == history
    assert all(torch.equal(again.state_dict()[name], value) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("change", ["precision", "device"])
def test_a_checkpoint_of_other_precision_or_another_kind_of_device_is_not_taken(monkeypatch, tmp_path, change):
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    clips, truth = make_clips()

    def epochs(config):
        told = []
        how = {"seed": 0, "progress": lambda done, total, note: told.append(done), "checkpoint": tmp_path / "c"}
        train_classifier(Linear(), clips, truth, np.arange(40), np.arange(40, 50), config, **how)
        return told

    assert epochs(CONFIG)[0] == 1
    assert epochs(CONFIG) == []
    if change == "precision":  # as what "auto" stands for on another device
        monkeypatch.setattr(training, "precision_of", lambda device, asked: "bfloat16")
    else:
        file, of = tmp_path / "c", training.Checkpoint

        def elsewhere(path, digest, **on):
            return of(path, digest + "on a GPU", **on)

        monkeypatch.setattr(training, "Checkpoint", elsewhere)
        assert file.exists()
    assert epochs(CONFIG)[0] == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_training_gives_the_same_network_by_its_own_names(monkeypatch, backend):
    torch.compiler.reset()
    counters.clear()
    plain, history, _, _ = fit()
    assert not counters["frames"]
    monkeypatch.setenv("BENCH_COMPILE", backend)
    made, again, _, _ = fit()
    assert counters["frames"]["ok"] == counters["stats"]["unique_graphs"] == 1  # in one piece, once for all epochs
    assert list(made.state_dict()) == list(plain.state_dict()) == ["linear.weight", "linear.bias"]
    assert torch.allclose(made.linear.weight, plain.linear.weight, atol=1e-5)
    assert again.train_loss == pytest.approx(history.train_loss, abs=1e-5)


def test_without_being_asked_nothing_is_compiled_and_an_unknown_backend_is_refused(monkeypatch):
    monkeypatch.delenv("BENCH_COMPILE", raising=False)
    model = Linear()
    assert compiled(model) is model
    monkeypatch.setenv("BENCH_COMPILE", "inductr")
    with pytest.raises(UserError, match=r"BENCH_COMPILE=inductr: torch has no such backend; there are .*inductor"):
        compiled(model)


@pytest.mark.parametrize("backbone", ["sgn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("shift-gcn", "2s-agcn"))])
def test_a_compiled_backbone_keeps_names_and_groups_of_its_parameters(monkeypatch, backbone):
    config = dataclasses.replace(classifiers.config_for(backbone, TINY), epochs=1, most_steps=1, least_steps=0)
    states = []
    for backend in ("", "eager"):
        monkeypatch.setenv("BENCH_COMPILE", backend)
        model = classifiers.build(backbone, people(), 3, config, seed=0)
        classifiers.train(model, people(), PART, config, seed=0)
        states.append(model.state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-5) for name in states[0])


def test_a_prediction_for_which_memory_runs_out_is_made_in_smaller_batches():
    clips, _ = make_clips()
    sizes = []

    def crowded(batch):
        sizes.append(len(batch))
        if len(batch) > 20:
            raise torch.OutOfMemoryError("too many")
        return batch.mean(dim=2).flatten(1)

    def roomy(batch):
        return batch.mean(dim=2).flatten(1)

    every = np.arange(60)
    drawn = [torch.Generator().manual_seed(1) for _ in range(2)]
    said = predict(crowded, clips, every, CONFIG, generator=drawn[0], batch=50)
    assert torch.equal(said, predict(roomy, clips, every, CONFIG, generator=drawn[1], batch=50))  # the same windows
    assert torch.equal(drawn[0].get_state(), drawn[1].get_state())
    assert sizes == [50, 25, 13, 13, 13, 11, 10]
    with pytest.raises(torch.OutOfMemoryError, match="too many"):
        predict(lambda batch: crowded(batch.repeat(21, 1, 1, 1, 1)), clips, every, CONFIG)


def test_windows_for_which_memory_runs_out_are_gathered_in_pieces(monkeypatch):
    plain, history, clips, _ = fit()
    gather, sizes = type(clips).gather, []

    def crowded(self, which, *where):
        sizes.append(len(which))
        if len(which) > 3:
            raise torch.OutOfMemoryError("too many")
        return gather(self, which, *where)

    monkeypatch.setattr(type(clips), "gather", crowded)
    again, resumed, _, _ = fit()
    assert {1, 2, 3} & set(sizes)
    assert resumed == history  # the batches are whole: nothing to record
    assert torch.equal(again.linear.weight, plain.linear.weight)


def test_pieces_become_smaller_and_stay_so():
    pieces, seen = Pieces(8), []

    def work(part):
        seen.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("too many")
        return part * 2

    assert pieces.map(work, torch.arange(6)).tolist() == [0, 2, 4, 6, 8, 10]
    assert pieces.map(work, torch.arange(3)).tolist() == [0, 2, 4]
    assert seen == [6, 3, 2, 2, 2, 2, 1]


def test_a_gpu_is_asked_for_deterministic_sums_and_a_cpu_left_as_it_is(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    short = torch.backends.cudnn.allow_tf32
    try:
        make_deterministic(torch.device("cpu"))
        assert (torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")) == (
            False,
            None,
        )
        make_deterministic(torch.device("cuda", 0))
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.allow_tf32 = short
