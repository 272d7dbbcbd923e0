"""What only a GPU can show: the paths that other tests take on a CPU, taken there. Skipped where torch finds none."""

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import checkpoint, classifiers
from bench.execution import make_deterministic
from bench.records import records
from bench.registry import ANONYMIZERS, ATTACKERS, BACKBONES
from bench.specs import parse_specs
from bench.training import predict, train_classifier
from tests.attackers.test_neural import PART, TINY, people
from tests.bench.test_training import CONFIG, Dropping, fit, make_clips

if not torch.cuda.is_available():
    pytest.skip("torch finds no GPU", allow_module_level=True)

GPU = torch.device("cuda", 0)
ROOT = Path(__file__).parents[1]
DATA = "synthetic:people=4,motions=3,cameras=1"


@pytest.fixture(autouse=True)
def deterministic():
    """As a worker on a GPU is, for this process as long as a test takes."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    short = torch.backends.cudnn.allow_tf32
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        make_deterministic(GPU)
        yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]
    torch.backends.cudnn.allow_tf32 = short


def on_gpu(clips):
    index = {name: getattr(clips, name).to(GPU) for name in ("first", "lengths", "bodies")}
    return dataclasses.replace(clips, rows=clips.rows.to(GPU), **index)


def run(results, *arguments, device="cuda"):
    """Rows of a run of the tiny budget by processes of its own, and what it said."""
    asked = ["--dataset", DATA, "--no-mlflow", "--device", device, "--results", str(results), *arguments]
    command = [sys.executable, str(ROOT / "tests" / "small_bench.py"), "run", *asked, "--json", str(results / "rows.json")]
    results.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads((results / "rows.json").read_text()), done.stdout + done.stderr


def states(results):
    """All that records state, without what tells of the machine."""
    return {record.path.name: record.path.read_bytes() for record in records(results)}


@pytest.mark.parametrize("backbone", BACKBONES.names())
def test_a_backbone_says_the_same_as_on_a_cpu(backbone):
    config = dataclasses.replace(classifiers.config_for(backbone, TINY), precision="float32")
    clips, every = people(), np.arange(24)
    said = []
    for where in (clips, on_gpu(clips)):
        model = classifiers.build(backbone, where, 3, config, seed=0).eval()
        said.append(predict(model, where, every, config).cpu())
    assert (said[0] - said[1]).abs().max() < 1e-4 * said[0].abs().max()  # a network without training says large numbers


@pytest.mark.parametrize("backbone", BACKBONES.names())
def test_a_backbone_learns_and_the_same_training_gives_the_same_bits(backbone):
    config = classifiers.config_for(backbone, dataclasses.replace(TINY, epochs=8))
    clips = on_gpu(people())
    found = []
    for _ in range(2):
        model = classifiers.build(backbone, clips, 3, config, seed=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*deterministic")
            history = classifiers.train(model, clips, PART, config, seed=0)
        found.append((history, {name: value.cpu() for name, value in model.state_dict().items()}))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(value, found[1][1][name]) for name, value in found[0][1].items())
    assert found[0][0].train_loss[-1] < found[0][0].train_loss[0]


@pytest.mark.parametrize("backbone", BACKBONES.names())
def test_no_step_of_a_training_waits_for_the_gpu(backbone):
    """torch's own count of waits, by the number of steps; an epoch waits for its losses."""
    clips = on_gpu(people())
    clips.windows(torch.arange(1, device=GPU), 4, "window")
    labels = torch.from_numpy(PART.labels).to(GPU)
    config = classifiers.config_for(backbone, dataclasses.replace(TINY, batch=8))
    found = []
    for steps in (1, 1, 3):  # the first also loads what is loaded once
        short = dataclasses.replace(config, epochs=1, least_steps=0, most_steps=steps, warmup=0, clip_norm=1.0, rotate=10.0)
        model = classifiers.build(backbone, clips, 3, config, seed=0)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                train_classifier(model, clips, labels, PART.train, PART.validation, short, seed=0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found.append(sum("synchroniz" in str(warning.message) for warning in seen))
    assert found[1] == found[2] > 0


def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", -1.0)
    config = dataclasses.replace(CONFIG, optimiser="adam", lr=0.01, rotate=20.0)
    clips, truth = make_clips()
    clips = on_gpu(clips)

    def train(file=None, stop=None):
        def progress(done, total, note):
            if done == stop:
                raise KeyboardInterrupt

        with classifiers.seeded(1, GPU):
            model = Dropping().to(GPU)
            how = {"seed": 3, "progress": progress, "checkpoint": file}
            history = train_classifier(model, clips, truth, np.arange(40), np.arange(40, 50), config, **how)
        return model, history

    whole, history = train()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "c", stop=5)
    again, resumed = train(tmp_path / "c")
    assert resumed == history
    assert all(torch.equal(again.state_dict()[name], value) for name, value in whole.state_dict().items())


def test_where_memory_runs_out_a_prediction_is_made_in_pieces():
    clips = on_gpu(make_clips()[0])
    plain = predict(lambda batch: batch.mean(dim=2).flatten(1), clips, np.arange(60), CONFIG)
    sizes = []
    free, total = torch.cuda.mem_get_info(GPU)
    if free < 24 * 2**30:
        pytest.skip("less than 24 GiB of GPU memory are free")

    def greedy(batch):
        """Takes a GiB for each clip."""
        sizes.append(len(batch))
        torch.empty((len(batch), 2**30), dtype=torch.uint8, device=GPU)
        return batch.mean(dim=2).flatten(1)

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(20 * 2**30 / total, GPU)
    try:
        assert torch.equal(predict(greedy, clips, np.arange(60), CONFIG), plain)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
        torch.cuda.empty_cache()
    assert sizes[0] == 60
    assert sizes[-1] < 20


def test_a_compiled_training_learns_the_same(monkeypatch):
    plain, _, clips, truth = fit()
    monkeypatch.setenv("BENCH_COMPILE", "inductor")
    clips = on_gpu(clips)
    model, config = type(plain)().to(GPU), dataclasses.replace(CONFIG, precision="float32")
    train_classifier(model, clips, truth, np.arange(40), np.arange(40, 50), config, seed=0)
    accuracy = (predict(model, clips, np.arange(50, 60), CONFIG).argmax(1).cpu() == truth[50:]).float().mean()
    assert accuracy == 1


@pytest.mark.timeout(900)
def test_every_anonymizer_and_every_attacker_runs_on_a_gpu(tmp_path):
    run(tmp_path, "--anonymizer", "all", "--attacker", "bones-lda,shiftgcn-reid", "--workers", "8")
    eight = ["--dataset", "synthetic:people=12,cameras=1"]  # enough for linkage
    run(tmp_path, "--anonymizer", "identity", "--attacker", "all", "--workers", "8", *eight)
    found = list(records(tmp_path))
    name = torch.cuda.get_device_name(GPU)
    assert {record.manifest()["device"] for record in found} == {name}
    assert any(place["precision"] == "bfloat16" for record in found for place in record.manifest()["made_on"])
    for side, registry in (("anonymizer", ANONYMIZERS), ("attacker", ATTACKERS)):
        assert {str(spec) for spec in parse_specs("all", registry)} <= {record.data["names"][side] for record in found}


def test_the_same_run_gives_the_same_records_however_many_work_at_it(tmp_path):
    asked = ["--anonymizer", "gauss:std=0.1,adversarial", "--attacker", "shiftgcn-reid,bones-lda"]
    run(tmp_path / "one", *asked, "--executor", "serial")
    run(tmp_path / "many", *asked, "--workers", "4")
    one, many = states(tmp_path / "one"), states(tmp_path / "many")
    assert one == many
    assert one


def test_what_no_network_does_comes_out_as_on_a_cpu(tmp_path):
    """Anonymizers that learn no network, and an attacker that is none."""
    asked = ["--anonymizer", "identity,gauss:std=0.1,mean-skeleton", "--attacker", "bones-lda", "--seeds", "1"]
    run(tmp_path / "gpu", *asked)
    run(tmp_path / "cpu", *asked, device="cpu")

    gpu, cpu = ({record.path.stem: record.predictions() for record in records(tmp_path / name)} for name in ("gpu", "cpu"))
    assert gpu
    assert gpu.keys() == cpu.keys()
    for key, arrays in gpu.items():
        for name in ("label", "attack", "fidelity"):
            assert np.allclose(arrays[name], cpu[key][name], atol=1e-3), name
