"""Trained networks of an attacker as a submission: what is taken of them, what is refused, and what they count for."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.data.clips import ClipSet
from bench.data.prepare import open_or_prepare
from bench.files import UserError
from bench.grid import Grid
from bench.pipeline import Bench
from bench.plan import choose_protocol
from bench.presets import smoke_preset
from bench.registry import ATTACKERS, DATASETS
from bench.specs import parse_spec
from bench.stages import StageStore
from bench.submission.evaluate import Budget, _plan, evaluate
from bench.submission.manifest import read_manifest, seal
from bench.submission.networks import Networks, export
from bench.submission.source import Submission
from bench.submission.template import new_submission
from tests.attackers.test_neural import PART, PRESET, people
from tests.bench.test_isolation import _silent, checked, wrong
from tests.tiny import DATA, bench, shrink_budget


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project as the template makes it, and the results that it was made from."""
    home = tmp_path_factory.mktemp("networks")
    return new_submission(home / "my-net", "attacker-weights", home / "results"), home / "results"


@pytest.fixture
def copied(project, tmp_path):
    return shutil.copytree(project[0], tmp_path / "my-net")


def state(folder, **change):
    path = folder / "trained" / "attacker.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    seal(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"attacker": "sgn-reids"}, "sgn-reids"),
        ({"attacker": "bones-lda"}, "no neural attacker"),
        ({"attacker": "lan-linkage"}, "no neural attacker"),
        ({"attacker": "shuffled-labels"}, "no neural attacker"),
        ({"attacker": "sgn-reid:backbone=nope"}, "nope"),
        ({"attacker": "sgn-reid:target=linkage"}, "no neural attacker"),
        ({"attacker": "shiftgcn-reid"}, "another network"),
        ({"classes": 5}, "another network"),
        ({"fitted_to": {"dataset": "x" * 70_000}}, "plain file of at most"),
        ({"attacker": "sgn-reid:streams=joint+bone"}, "holds no weights"),
        ({"width": 0.2}, "another network"),
        ({"width": 1e6}, "width"),
        ({"bodies": 0}, "bodies"),
        ({"layout": "kinect-v1"}, "another network"),
        ({"layout": "nobody"}, "nobody"),
        ({"schema": 2}, "schema"),
        ({"more": 1}, "more"),
    ],
)
def test_networks_must_be_what_they_say(copied, project, change, told):
    state(copied, **change)
    report = checked(copied, project[1])
    assert wrong(report) == {"contract"}
    assert told in report.findings[0].what


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        *((damage, "holds no weights") for damage in ("cut", "absent")),
        *((damage, "not finite") for damage in ("nan", "variance")),
        *((damage, "another network") for damage in ("double", "more")),
        ("padding", "larger than the weights"),
    ],
)
def test_damaged_weights_are_refused(copied, project, damage, told):
    path = copied / "trained" / "joint" / "model.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "absent":
        path.unlink()
    else:
        weights = load_file(path)
        name = next(name for name, value in weights.items() if value.dtype == torch.float32 and "classifier" not in name)
        variance = next(name for name in weights if name.endswith("running_var"))
        weights |= {
            "nan": {name: torch.full_like(weights[name], torch.nan)},
            "double": {name: weights[name].double() * 1e300},
            "variance": {variance: -weights[variance]},
            "padding": {"classifier.padding": torch.zeros(2**20)},
            "more": {"more": torch.zeros(1)},
        }[damage]
        save_file(weights, path)
    seal(copied)
    report = checked(copied, project[1])
    assert wrong(report) == {"contract"}
    assert told in report.findings[0].what


def test_an_attacker_holds_code_or_weights_and_nothing_else(copied):
    path = copied / "submission.toml"
    path.write_text(path.read_text().replace("[weights]", "[data]"))
    with pytest.raises(UserError, match=r"\[code\] or \[weights\]"):
        read_manifest(copied)


def test_the_body_is_theirs_and_the_head_is_fitted_to_the_clips_at_hand(tmp_path, copied):
    """Whatever they put into the last layer is not used; whatever they put into the others is."""
    clips = people()
    _made_for(copied, clips)
    path = copied / "trained" / "joint" / "model.safetensors"
    body = load_file(path)

    def learn(name):
        folder, sent = tmp_path / name, shutil.copytree(copied, tmp_path / f"{name}, sent")
        folder.mkdir()
        seal(sent)
        value = Submission(sent, read_manifest(sent)).spec().value
        value.fit(clips, PART, PRESET, folder, seed=0)
        assert np.isfinite(value.scores(clips, PART.test, PART, PRESET, folder)).all()
        return load_file(folder / "joint" / "model.safetensors")

    learnt = learn("as sent")
    assert learnt["classifier.weight"].shape[0] == len(PART.classes) != body["classifier.weight"].shape[0]
    assert all(torch.equal(learnt[name], tensor) for name, tensor in body.items() if not name.startswith("classifier."))
    save_file({name: torch.zeros_like(t) if name.startswith("classifier.") else t for name, t in body.items()}, path)
    again = learn("another head")
    assert all(torch.equal(again[name], tensor) for name, tensor in learnt.items())
    _made_for(copied, clips, seed=2)
    assert not torch.equal(learn("another body")["classifier.weight"], learnt["classifier.weight"])


def _made_for(folder, clips: ClipSet, seed: int = 1):
    """Has the submission hold networks for clips of that layout and number of bodies."""
    from attackers.neural import SGNReID
    from bench import classifiers

    stated = json.loads((folder / "trained" / "attacker.json").read_text())
    config = Networks.load(folder / "trained").budget(PRESET).attack
    model = classifiers.build(SGNReID().backbone, clips, stated["classes"], config, seed)
    classifiers.save(model, folder / "trained" / "joint")
    state(folder, layout=clips.layout.name, bodies=clips.num_bodies)


@pytest.mark.parametrize("attacker", ["shiftgcn-gender", "msg3d-reid", "2sagcn-reid", "sgn-reid", "sgn-reid:backbone=st-gcn"])
def test_networks_of_every_kind_are_written_and_read(tmp_path, attacker):
    store = open_or_prepare(parse_spec(DATA, DATASETS), tmp_path)
    bench = Bench(store, choose_protocol(parse_spec(DATA, DATASETS), None), smoke_preset(), *_place(tmp_path))
    spec = parse_spec(attacker, ATTACKERS)
    networks = Networks.load(export(bench, spec, 0, tmp_path / "out"))
    assert networks.spec == spec
    assert len(networks.bodies) == (2 if attacker.startswith("2s") else 1)


def _place(folder):
    return StageStore(folder / "stages"), torch.device("cpu"), _silent


@pytest.mark.parametrize("kind", ["attacker-weights", "weights"])
def test_strangers_do_not_choose_the_seeds_of_controls(tmp_path, project, kind):
    """Controls stand in one row with those of everybody else: with seeds of their choice one of them might fail."""
    folder = new_submission(tmp_path / "my-own", kind, tmp_path / "results")
    manifest = folder / "submission.toml"
    manifest.write_text(manifest.read_text().replace("seeds = [0, 1, 2]", "seeds = [123456, 987654]"))
    submission = Submission(folder, read_manifest(folder))
    spec = submission.spec()
    what = {"attackers": "bones-lda"} if kind == "weights" else {"anonymizers": "identity,null"}
    budget = Budget(preset="standard", **what)  # of three seeds
    plan = _plan(submission, spec, budget, tmp_path / "results")
    own = {job.seed for job in plan.jobs if spec in (job.anonymizer, job.attacker)}
    others = {job.seed for job in plan.jobs if spec not in (job.anonymizer, job.attacker)}
    assert own == {123456, 987654, 0}  # as many as others have: who has fewer than raw clips has no rank
    assert others == ({0, 1, 2} if kind == "weights" else set())
    few = _plan(submission, spec, dataclasses.replace(budget, preset="quick"), tmp_path / "results")
    assert {job.seed for job in few.jobs if spec in (job.anonymizer, job.attacker)} == {123456}


def test_other_clips_than_they_are_made_for_are_refused(copied, tmp_path):
    value = Submission(copied, read_manifest(copied)).spec().value
    clips = people()
    if value.reads(clips):
        pytest.fail("the example must not fit these clips")
    with pytest.raises(UserError, match="its networks read 1 bodies of layout ntu"):
        value.fit(clips, PART, PRESET, tmp_path, seed=0)


def test_they_are_evaluated_at_every_level_listed_as_unproven_and_rank_nothing(project, tmp_path, monkeypatch):
    from bench.cli.options import make_where

    shrink_budget(monkeypatch)
    where = make_where(
        {"device": "cpu", "executor": "serial", "workers": None, "address": None, "time_limit": None, "memory_limit": None}
    )
    budget = Budget(anonymizers="identity,null,gauss:std=0.1", seeds=1)
    done = evaluate(project[0], None, budget, tmp_path / "results", where, _silent, "a test")
    rows = [m for m in done.measured if m.first["names"]["attacker"] == "my-net"]
    assert {m.first["threat"] for m in rows} == {"ignorant", "lazy-informed", "semi-informed", "inverter"}
    assert {m.flags for m in rows} == {("unproven",)}
    assert (done.entry.state, done.entry.reason) == ("listed-with-flags", "unproven")
    assert done.entry.data["isolation"] == "no code"
    assert not Grid.of(done.measured).points
    semi = [m.records[0].data["training"] for m in rows if m.first["threat"] == "semi-informed"]
    assert {told["isolation"] for told in semi} == {"no code"}


def test_a_trained_attacker_is_exported_as_it_was_trained(tmp_path, monkeypatch):
    shrink_budget(monkeypatch)
    asked = ("submit", "export", str(tmp_path / "out"), "--attacker", "sgn-reid", "--dataset", DATA, "--device", "cpu")
    told = bench(*asked, results=tmp_path / "results")
    assert told.exit_code == 0, told.output
    networks = Networks.load(tmp_path / "out")
    assert (str(networks.spec), networks.stated.classes) == ("sgn-reid", 4)
    (trained,) = (tmp_path / "results").glob("stages/train/*/joint/model.safetensors")
    assert (tmp_path / "out" / "joint" / "model.safetensors").read_bytes() == trained.read_bytes()
    again = bench(*asked, results=tmp_path / "results")
    assert (again.exit_code, "there already" in again.output) == (2, True)
    other = bench(*asked[:2], str(tmp_path / "other"), "--attacker", "bones-lda", *asked[5:], results=tmp_path / "results")
    assert (other.exit_code, "no neural attacker" in other.output) == (2, True)
