"""One training by several processes: the same gradients as in as many pieces, one decision for all, errors that are told."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn

from attackers.verification import Verifier
from bench import classifiers, devices, training
from bench.devices import choose_devices
from bench.distributed import Group, wanted
from bench.execution import Pieces
from bench.files import UserError
from bench.training import TrainingDivergedError, _Backward
from tests.attackers.test_neural import PART, PRESET, TINY, people
from tests.bench.test_training import CONFIG, Linear, fit, make_clips

SHORT = dataclasses.replace(
    classifiers.config_for("shift-gcn", TINY), epochs=2, least_steps=0, most_steps=8, choose_best=False, rotate=20.0, lr=0.01
)


def test_one_process_alone_has_the_whole_batch_and_changes_nothing():
    alone, batch = Group.current(), torch.arange(5.0)
    assert alone == Group(0, 1)
    assert torch.equal(alone.own(batch), batch)
    alone.add([batch])
    alone.agree([batch])
    assert batch.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_a_batch_add_up_to_its_loss_and_gradients(balanced, count):
    """Batches of 8 and 7, dealt out to processes of which one has too little memory for its slice."""
    clips, labels = make_clips()
    weights = torch.tensor([0.5, 2.0]) if balanced else None
    loss_of = nn.CrossEntropyLoss(weight=weights)
    for size in (8, 7):
        batch = clips.windows(torch.arange(size), 4, "uniform")
        sums, losses = torch.zeros(2, 60), 0.0
        for rank in range(count):
            model = Linear()
            pieces = Pieces(1 if rank else 8)
            share = _Backward(model, loss_of, weights, CONFIG, pieces, Silent(rank, count))
            losses += float(share(batch, labels[:size]))
            sums += model.linear.weight.grad
        whole = Linear()
        loss_of(whole(batch), labels[:size]).backward()
        assert losses == pytest.approx(loss_of(whole(batch), labels[:size]).item(), rel=1e-5)
        assert torch.allclose(sums, whole.linear.weight.grad, atol=1e-6)
        assert float(sums.abs().max()) > 0.01


class Silent(Group):
    """Sends nothing: the test adds up."""

    def _each(self, tensors, act):
        list(tensors)


def test_sums_and_agreement_go_by_type_and_leave_shapes(monkeypatch):
    monkeypatch.setattr(distributed, "all_reduce", lambda flat: flat.mul_(2))
    monkeypatch.setattr(distributed, "broadcast", lambda flat, src: flat.fill_(7) if src == 0 else None)
    tensors = [torch.ones(2, 3), torch.tensor(4), torch.full((), 0.5), torch.ones(2, 2).T]
    Group(1, 2).add(iter(tensors))
    assert [tensor.tolist() for tensor in tensors] == [[[2.0] * 3] * 2, 8, 1.0, [[2.0] * 2] * 2]
    Group(1, 2).agree(tensors)
    assert [tensor.unique().tolist() for tensor in tensors] == [[7]] * 4
    assert tensors[1].dtype == torch.int64


def test_only_who_asks_for_processes_gets_them(monkeypatch):
    monkeypatch.delenv("BENCH_PROCESSES", raising=False)
    assert wanted(1000, 64) == 1
    monkeypatch.setenv("BENCH_PROCESSES", "4")
    assert (wanted(1000, 64), wanted(1000, 5), wanted(3, 64), wanted(0, 64)) == (4, 2, 1, 1)
    monkeypatch.setattr(Group, "current", classmethod(lambda cls: cls(1, 4)))
    assert wanted(1000, 64) == 1
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("BENCH_PROCESSES", wrong)
        with pytest.raises(UserError, match=f"BENCH_PROCESSES={wrong}: expected a whole number"):
            choose_devices("cpu")


def test_gpus_are_dealt_out_to_processes(monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 5)
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)

    def numbers(name, each):
        monkeypatch.setenv("BENCH_PROCESSES", each)
        return [device.index for device in choose_devices(name)]

    assert numbers("cuda", "") == numbers("auto", "1") == [0, 1, 2, 3, 4]
    assert numbers("cuda", "2") == [0, 2]
    assert numbers("cuda:2", "3") == [2]
    for name, each in (("cuda", "6"), ("cuda:3", "3")):
        with pytest.raises(UserError, match=f"BENCH_PROCESSES={each} needs as many GPUs from {name} on"):
            numbers(name, each)


def test_a_training_of_one_process_does_not_mention_it():
    _, history, _, _ = fit()
    assert "processes" not in history.describe()


def trained(folder, config=SHORT, backbone="shift-gcn"):
    folder.mkdir()
    told = []
    how = {"seed": 3, "progress": lambda *of: told.append(of)}
    info = classifiers.fit_classifier(backbone, people(), PART, config, folder, **how)
    return info, load_file(folder / "model.safetensors"), told


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_in_two_pieces(monkeypatch, tmp_path):
    """But for running statistics, which each process gathers from its own half, and what is said by them."""
    monkeypatch.setenv("BENCH_PROCESSES", "2")
    info, together, told = trained(tmp_path / "two")
    monkeypatch.delenv("BENCH_PROCESSES")
    monkeypatch.setattr(training, "Pieces", lambda size: Pieces(-(-size // 2)))
    pieces, alone, told_alone = trained(tmp_path / "one")
    assert info["curves"]["processes"] == 2
    assert "processes" not in pieces["curves"]
    assert info["curves"]["train_loss"] == pytest.approx(pieces["curves"]["train_loss"], rel=1e-4)
    assert [one[:2] for one in told] == [one[:2] for one in told_alone] == [(1, 2), (2, 2)]
    learnt = [name for name in alone if "running" not in name and "num_batches" not in name]
    assert len(learnt) > 50
    assert all(torch.allclose(together[name], alone[name], atol=1e-4) for name in learnt)
    start = classifiers.build("shift-gcn", people(), 3, SHORT, 3).state_dict()
    assert max(float((start[name] - alone[name]).abs().max()) for name in learnt) > 0.01
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["model.safetensors"]


@pytest.mark.slow
def test_a_verifier_is_learnt_by_two_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_PROCESSES", "2")
    preset = dataclasses.replace(PRESET, attack=dataclasses.replace(TINY, epochs=2, least_steps=0))
    linker = Verifier(backbone="sgn", dimensions=8)
    assert linker.fit(people(), PART, preset, tmp_path, seed=0)["curves"]["processes"] == 2
    scores = linker.pair_scores(people(), people(), PART.pairs.clips, PART, preset, tmp_path)
    assert np.isfinite(scores).all()


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_told_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_PROCESSES", "2")
    with pytest.raises(TrainingDivergedError, match="the training loss became nan in epoch"):
        trained(tmp_path / "a", dataclasses.replace(SHORT, lr=1e38, clip_norm=0.0, warmup=0))


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = f"""
        import dataclasses, pathlib
        from bench import classifiers
        from tests.bench.test_distributed import PART, SHORT, people
        config = dataclasses.replace(SHORT, epochs=10**6, most_steps=0)
        touch = lambda *of: pathlib.Path({str(tmp_path)!r}, "started").touch()
        classifiers.fit_classifier("sgn", people(), PART, config, pathlib.Path({str(tmp_path)!r}), seed=0, progress=touch)
    """
    environment = os.environ | {"BENCH_PROCESSES": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment)
    while not (tmp_path / "started").exists():
        assert parent.poll() is None
        time.sleep(0.2)
    others = psutil.Process(parent.pid).children(recursive=True)
    assert len(others) >= 3  # torchrun and two more
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(others, timeout=60)
    assert not alive
