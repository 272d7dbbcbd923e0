"""What a submission can do to others: strangers choose neither what counts as a leak, nor who has a rank, nor who is rejected."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bench.files import UserError
from bench.plan import make_plan
from bench.presets import smoke_preset
from bench.registry import ANONYMIZERS
from bench.runner import Result
from bench.specs import parse_spec
from bench.submission.check import DeclaredParameter, _other_value
from bench.submission.evaluate import Budget, _finished, _own_failure, _plan
from bench.submission.isolation import IsolationError, Limits, refuse_visible
from bench.submission.manifest import read_manifest, seal
from bench.submission.source import Submission
from bench.submission.states import find, on_the_board, receive
from bench.submission.template import new_submission
from bench.summary import _epochs
from tests.bench.hostile import write_method
from tests.bench.test_isolation import checked, wrong
from tests.bench.test_submission import DATA, scores_of


def test_the_action_is_nobodys_secret(tmp_path):
    """What keeps the action would leak it, and the most useful method would rank last."""
    common = {"dataset": DATA, "protocol": None, "threats": "ignorant", "preset": smoke_preset(), "seeds": (0,)}
    with pytest.raises(UserError, match="the action is what a release is to keep"):
        make_plan(anonymizers="identity", attackers="flat-svm:target=action", results=tmp_path, **common)
    folder = scores_of(tmp_path / "proof", tmp_path / "results")
    text = (folder / "submission.toml").read_text()
    (folder / "submission.toml").write_text(text.replace('target = "subject"', 'target = "action"'))
    with pytest.raises(UserError, match="its target is the action"):
        Submission(folder, read_manifest(folder)).spec()


@pytest.mark.parametrize(
    ("training", "lengths"),
    [
        ({"train_loss": [0.3, 0.2]}, [2]),
        ({"streams": {"joint": {"train_loss": [0.3]}, "bone": {"train_loss": [0.3] * 9}}}, [1, 9]),
        ({"train_loss": 0.3}, []),
        ({"train_loss": "xx"}, []),
        ({"train_loss": {"train_loss": [1]}}, [1]),
        ("text", []),
    ],
)
def test_only_curves_count_as_curves(training, lengths):
    """An honest author may report a last loss, a stranger anything."""
    assert list(_epochs(training)) == lengths


def _budget(kind):
    return Budget(attackers="bones-lda") if kind == "weights" else Budget(anonymizers="identity,null")


def test_a_failure_is_blamed_on_whose_code_it_was(tmp_path):
    """Without a release it was the anonymizer's, with one the attacker's; nobody is rejected for what others did."""
    for kind, rejected in (("weights", True), ("attacker-weights", False)):
        folder, results = new_submission(tmp_path / f"my-{kind}", kind, tmp_path / "results"), tmp_path / "results"
        submission = Submission(folder, read_manifest(folder))
        plan = _plan(submission, submission.spec(), _budget(kind), results)
        other = next(job for job in plan.jobs if str(job.anonymizer) == "null")
        mine = submission.manifest.provider
        own = next(job for job in plan.jobs if mine in (job.anonymizer.plugin.provider, job.attacker.plugin.provider))
        for job, blamed in ((own, rejected), (other, False)):
            names = {"anonymizer": str(job.anonymizer), "attacker": str(job.attacker), "threat": job.threat.name}
            failed = Result([], 0, [{**names, "seed": str(job.seed), "error": "RuntimeError: no"}])
            assert bool(_own_failure(plan, submission, failed, results)) == blamed, (kind, names)
            raw = {**failed.failed[0], "anonymizer": "identity"}  # an attacker that fails there is nobody else's failure
            both = Result([], 0, [raw, *failed.failed])
            assert not _own_failure(plan, submission, both, results), (kind, names)


def test_the_first_seed_of_a_method_is_its_own(tmp_path):
    """Controls are measured with others: `identity` comes first in the plan, and has seed 0."""
    folder = new_submission(tmp_path / "my-own", "weights", tmp_path / "results")
    manifest = folder / "submission.toml"
    manifest.write_text(manifest.read_text().replace("seeds = [0, 1, 2]", "seeds = [5, 6]"))
    submission = Submission(folder, read_manifest(folder))
    plan = _plan(submission, submission.spec(), Budget(attackers="bones-lda"), tmp_path / "results")
    assert plan.jobs[0].seed == 0
    _, spec, seed = _finished(plan, submission, tmp_path / "results")
    assert (spec.plugin.name, seed) == ("my-own", 5)


def test_records_count_at_the_level_of_the_last_evaluation(tmp_path):
    results = tmp_path / "results"
    entry = receive(write_method(tmp_path / "m", "pass"), results).moved("checked")
    entry = entry.moved("evaluating", isolation="namespace").moved("listed")
    mine = {"submission": entry.data["identity"]}
    builtin = {"parameters": {"std": 0.1}}

    def shown(**stated):
        return on_the_board(results)({"anonymizer": {"parameters": stated}, "attacker": builtin})

    assert shown(std=0.1)
    assert shown(**mine, isolation="namespace")
    assert not shown(**mine, isolation="process")
    assert shown(**mine)  # without code there is no level
    assert shown(submission="that of a bench submit evaluate elsewhere", isolation="process")
    find(results, "hostile")[0].moved("withdrawn")
    assert not shown(**mine, isolation="namespace")


def test_results_must_not_lie_where_isolated_code_reads(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    refuse_visible("namespace", tmp_path)
    with pytest.raises(IsolationError, match="/usr/src/app/results lies below /usr"):
        refuse_visible("namespace", tmp_path.__class__("/usr/src/app/results"))
    refuse_visible("process", tmp_path.__class__("/usr/src/app/results"))  # which promises nothing
    monkeypatch.setenv("BENCH_DATA", "/usr/share/data")
    with pytest.raises(IsolationError, match="/usr/share/data lies below /usr"):
        refuse_visible("namespace", tmp_path)


def test_parameters_may_have_any_name_and_no_end(tmp_path):
    folder = write_method(tmp_path / "m", "pass")
    run = Submission(folder, read_manifest(folder)).foreign("process", Limits(), changed={"level": 3, "limits": 1, "clock": 2.0})
    assert (run.level, run.clock, dict(run.parameters)) == ("process", 0.0, {"level": 3, "limits": 1, "clock": 2.0})
    endless = DeclaredParameter(name="n", minimum=0.0, maximum=float("inf"))
    assert _other_value(endless, 4) == 8
    assert _other_value(DeclaredParameter(name="n", minimum=4.0, maximum=float("inf")), 4) == 8
    assert _other_value(DeclaredParameter(name="n", minimum=4.0, maximum=4.0), 4) is None


@pytest.mark.parametrize("damage", ["missing", "shape", "uses"])
def test_weights_that_no_method_can_use_are_told(tmp_path, damage):
    folder = new_submission(tmp_path / "my-weights", "weights", tmp_path / "results")
    file, stated = folder / "fitted" / "state.safetensors", folder / "fitted" / "anonymizer.json"
    weights = load_file(file)
    if damage == "missing":
        weights = {"something": np.zeros(3, dtype=np.float32)}
    elif damage == "shape":
        weights = {name: value[..., :2].copy() for name, value in weights.items()}
    else:
        oracle = parse_spec("label-oracle", ANONYMIZERS)
        said = {"anonymizer": str(oracle), "description": oracle.describe()}
        stated.write_text(json.dumps({**json.loads(stated.read_text()), **said}))
    save_file(weights, file)
    seal(folder)
    report = checked(folder, tmp_path / "results")
    assert wrong(report) == {"contract"}
    assert ("uses labels" if damage == "uses" else "cannot use these weights") in report.findings[-1].what
