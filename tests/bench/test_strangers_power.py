"""What a submission can do to others: strangers choose neither what counts as a leak, nor who has a rank, nor who is rejected."""

import dataclasses
import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bench.anonymizer import Anonymizer, anonymize, clip_seed, coordinates_digest
from bench.data.clips import ClipSet
from bench.data.prepare import open_or_prepare
from bench.files import UserError, digest
from bench.grid import failed_controls, trade_off
from bench.jobs import Job
from bench.pipeline import Bench
from bench.plan import choose_protocol, make_plan
from bench.presets import smoke_preset
from bench.records import records
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS, Plugin
from bench.runner import Result
from bench.specs import parse_spec
from bench.stages import FinishedStages, StageStore
from bench.submission import evaluate as evaluation
from bench.submission.evaluate import Budget, _own_failure, _own_releases, _plan, _seeds
from bench.submission.foreign import ForeignAttacker
from bench.submission.isolation import IsolationError, Limits, refuse_visible
from bench.submission.manifest import read_manifest, seal
from bench.submission.source import DeclaredParameter, Submission, SubmittedSpec
from bench.submission.states import find, on_the_board, receive, secret_of
from bench.submission.template import new_submission
from bench.submission.trials import _other_value
from bench.summary import _epochs, measure_all
from bench.threat import THREATS
from tests.bench.hostile import write_method
from tests.bench.test_flags import chosen, leaking
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
            full = Result([], 0, [{**failed.failed[0], "error": "OSError: [Errno 28] No space left on device"}])
            if job is own:
                with pytest.raises(UserError, match=r"came to no end .* No space left on device"):
                    _own_failure(plan, submission, full, results)


def test_the_first_seed_of_a_method_is_its_own(tmp_path):
    """Controls are measured with others: `identity` comes first in the plan, and has seed 0."""
    folder = new_submission(tmp_path / "my-own", "weights", tmp_path / "results")
    manifest = folder / "submission.toml"
    manifest.write_text(manifest.read_text().replace("seeds = [0, 1, 2]", "seeds = [5, 6]"))
    submission = Submission(folder, read_manifest(folder))
    plan = _plan(submission, submission.spec(), Budget(attackers="bones-lda"), tmp_path / "results")
    assert plan.jobs[0].seed == 0
    assert {job.seed for job in plan.jobs if job.anonymizer.plugin.name == "my-own"} == {5}


def test_a_submission_has_no_more_seeds_for_what_others_submitted(tmp_path, monkeypatch):
    """Raw clips met attackers of this package with two seeds, a submitted one with five of its own choice."""
    raw = {"names": {"anonymizer": "identity"}}
    own, others = {"parameters": {}}, {"parameters": {"submission": "s", "kind": "attacker"}}
    found = [SimpleNamespace(data={**raw, "seed": seed, "attacker": own}) for seed in (0, 1)]
    found += [SimpleNamespace(data={**raw, "seed": seed, "attacker": others}) for seed in (5, 6, 7, 8, 9)]
    monkeypatch.setattr(evaluation, "_records", lambda *where: found)
    stated = SimpleNamespace(seeds=[4])
    assert _seeds(stated, DATA, smoke_preset(), tmp_path, Budget()) == (4, 0)
    monkeypatch.setattr(evaluation, "submitted", lambda attacker: "")
    assert len(_seeds(stated, DATA, smoke_preset(), tmp_path, Budget())) == 7


def strangers(measured, name="stranger"):
    """The same row, had the attacker been submitted."""
    attacker = {**measured.first["attacker"], "parameters": {"submission": "s", "kind": "attacker"}}
    data = {**measured.first, "attacker": attacker, "names": {**measured.first["names"], "attacker": name}}
    return dataclasses.replace(measured, records=(dataclasses.replace(measured.records[0], data=data),))


def test_a_submitted_attacker_may_raise_a_leakage_and_withholds_no_rank(finished):
    """Whatever it is flagged for, and though it reads more while it says that it knows nothing."""
    rows = measure_all(records(finished[0] / "records"))
    gauss, null = (dataclasses.replace(leaking(chosen(rows, name), 0.25, 0.1), flags=()) for name in ("gauss", "null"))
    ignorant = dataclasses.replace(leaking(chosen(rows, "gauss", threat="ignorant"), 1.0, 0.9), flags=())
    worst = dataclasses.replace(leaking(gauss, 0.8, 0.7), flags=("frozen-beats-retrained", "no-control", "undertrained"))
    table = [gauss, null, strangers(worst), strangers(ignorant), strangers(null)]
    found = {point.anonymizer: point for point in trade_off(table, "semi-informed")}
    assert {name: point.withheld for name, point in found.items()} == {"gauss:std=0.1": (), "null": ()}
    assert found["gauss:std=0.1"].leakage.value == pytest.approx((0.8 - 0.25) / 0.75)
    own = [gauss, null, worst, ignorant]  # one of this package would have told that something is wrong
    assert next(p for p in trade_off(own, "semi-informed") if "gauss" in p.anonymizer).withheld != ()


@pytest.mark.parametrize("brought", ["ignorant", "semi-informed", "untried"])
def test_who_brings_answers_along_at_any_level_or_is_not_tried_counts_for_nothing(finished, brought):
    rows = measure_all(records(finished[0] / "records"))
    gauss = dataclasses.replace(leaking(chosen(rows, "gauss"), 0.25, 0.1), flags=())
    worst = strangers(dataclasses.replace(leaking(gauss, 0.8, 0.7), flags=()))
    nothing = [leaking(chosen(rows, "null", threat=level), 0.25, 0.1) for level in ("ignorant", "semi-informed")]
    caught = [leaking(m, 0.9, 0.8) if m.first["threat"] == brought else m for m in nothing]
    caught = [] if brought == "untried" else caught
    for on_null, leakage in ((nothing, (0.8 - 0.25) / 0.75), (caught, 0.0)):
        table = [gauss, worst, *(strangers(m) for m in on_null)]
        point = next(p for p in trade_off(table, "semi-informed") if "gauss" in p.anonymizer)
        assert point.leakage.value == pytest.approx(leakage)


def test_a_submitted_attacker_that_finds_nothing_fails_no_control(finished):
    rows = measure_all(records(finished[0] / "records"))
    raw = leaking(chosen(rows, "identity"), 0.25, 0.1)
    unusual = {**raw.first, "target": "height_class"}
    weak = dataclasses.replace(raw, records=(dataclasses.replace(raw.records[0], data=unusual),))
    assert any("no attacker finds height_class" in line for line in failed_controls([*rows, weak]))
    assert failed_controls([*rows, strangers(weak)]) == failed_controls(rows) == []


def test_code_cannot_tell_by_its_seeds_whose_release_it_makes(tmp_path):
    """What is mixed into them is a secret of the results folder; how they are made is none."""

    @dataclasses.dataclass(frozen=True)
    class Looks(Anonymizer):
        """Remembers the seeds that it was given."""

        secret: str = ""
        stochastic = True
        blind = True

        def transform(self, batch, state):
            seen.update(batch.seeds)
            return batch.clips

    clips = ClipSet.from_store(open_or_prepare(parse_spec(DATA, DATASETS), tmp_path / "results"))
    known = {clip_seed(0, "holder/0", coordinates_digest(clips, i)) for i in range(len(clips))}
    for secret, guessed in (("", True), (secret_of(tmp_path / "results"), False)):
        seen = set()
        anonymize(Looks(secret), {}, clips, seed=0, draw="holder/0")
        assert (seen == known, bool(seen & known)) == (guessed, guessed)


def test_noise_that_a_submitted_attacker_meets_is_drawn_for_it_alone(tmp_path):
    """Whoever knows the seeds of a run, and guesses names of clips, could take out what everybody else meets.

    Action classifiers learn from the same release for all.
    """
    store = open_or_prepare(parse_spec(DATA, DATASETS), tmp_path / "results")
    stages = StageStore(tmp_path / "stages")
    bench = Bench(store, choose_protocol(parse_spec(DATA, DATASETS), None), smoke_preset(), stages, torch.device("cpu"), silent)
    own = parse_spec("bones-lda", ATTACKERS)
    secret = secret_of(tmp_path / "results")
    theirs = SubmittedSpec(Plugin("attacker", "x", "s", "x 1"), ForeignAttacker(secret=secret), (("submission", "s"),), "x")
    for method, same in (("gauss", False), ("mean-skeleton", True)):
        anonymizer = parse_spec(method, ANONYMIZERS)
        ours, strange = (Job(anonymizer, attacker, THREATS["semi-informed"], 0) for attacker in (own, theirs))
        assert bench.own_release(ours).content == bench.own_release(strange).content
        first, second = ([release.content for release in bench.releases(job)] for job in (ours, strange))
        assert (first == second, bool({*first} & {*second})) == (same, same)
        assert bench.utility_trainings(ours) == bench.utility_trainings(strange)
    plan = SimpleNamespace(
        jobs=[Job(parse_spec("gauss", ANONYMIZERS), who, ours.threat, s) for who in (own, theirs) for s in (0, 1)]
    )
    mine = SimpleNamespace(manifest=SimpleNamespace(provider="builtin"))
    finished = Bench(store, bench.protocol, bench.preset, FinishedStages(tmp_path / "stages"), bench.device, silent)
    found = [(one.seed, one.draw, one.reader) for one, _ in _own_releases(plan, mine, finished)]
    holder = [(0, f"holder/{draw}") for draw in range(bench.preset.draws)]
    expected = [(*one, reader) for reader in (None, theirs) for one in holder] + [(0, "attacker/0", None)]  # seed 1 was not run
    assert sorted(map(str, found)) == sorted(map(str, expected))
    assert bench.preset.draws > 1
    written = "".join(path.read_text() for path in (tmp_path / "stages").rglob("*.json"))
    assert "holder/0" in written
    assert secret not in written


@contextmanager
def silent(text):
    yield lambda *progress: None


def test_records_count_at_the_level_of_the_last_evaluation(tmp_path):
    results = tmp_path / "results"
    entry = receive(write_method(tmp_path / "m", "pass"), results).moved("checked")
    entry = entry.moved("evaluating", isolation="namespace").moved("listed")
    mine = {"submission": entry.data["identity"], "secret": digest(secret_of(results))}
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
