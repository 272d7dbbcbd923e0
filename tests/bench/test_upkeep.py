"""Before and after a run: plans, jobs, settings from a file; checks, clearing up, explanations and audits of what is there."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from anonymizers.noise import GaussianNoise
from bench.execution import describe
from bench.inventory import Inventory
from bench.occupied import alone, at_work
from bench.records import records
from bench.stages import CHECKPOINT
from bench.status import Reporter
from tests.tiny import DATA, HERE, RUN, bench, record_bytes, shrink_budget

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
WHAT = RUN[1 : RUN.index("--no-mlflow")]


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A finished run that no test may change."""
    results = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        shrink_budget(patch)
        assert bench(*RUN, results=results).exit_code == 0
    return results


@pytest.fixture
def copied(measured, tmp_path):
    """A copy of it."""
    return shutil.copytree(measured, tmp_path / "copy")


def planned(output: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Stage and plugin to how many there are in all, done, and to do."""
    lines = [line.split() for line in output.splitlines()[1:-1]]
    return {(row[0], "" if row[1].isdigit() else row[1]): tuple(map(int, [x for x in row if x.isdigit()][:3])) for row in lines}


def test_a_plan_counts_what_the_run_then_does(measured, tmp_path):
    told = bench("plan", *WHAT, results=tmp_path)
    assert told.exit_code == 0, told.output
    assert not (tmp_path / "stages").exists()
    kinds = Counter()
    for (kind, _), (whole, there, missing) in planned(told.stdout).items():
        assert (whole, there) == (missing, 0)
        kinds[kind] += whole
    made = {kind: len(list((measured / "stages" / kind).glob("*/stage.json"))) for kind in kinds if kind != "record"}
    assert kinds == {**made, "record": 14}
    assert "14 pairs, 0 of them there" in told.stdout
    assert "of which nothing is known" in told.stdout


def test_a_plan_knows_what_is_there_and_how_long_the_rest_took_before(copied):
    same = bench("run", *WHAT, "--dry-run", results=copied).stdout
    assert all(there == whole for whole, there, _ in planned(same).values())
    assert "14 pairs, 14 of them there; about 0 s" in same
    before = record_bytes(copied)
    more = bench("plan", *WHAT, "--anonymizer", "identity,null,gauss:std=0.1,gauss:std=0.2", results=copied).stdout
    assert planned(more)["record", "bones-lda"] == (8, 6, 2)
    assert planned(more)["release", "gauss"] == (4, 0, 4)  # the attacker's, and three of the holder
    assert "nothing is known" not in more
    assert record_bytes(copied) == before


def test_jobs_give_the_records_of_the_run(measured, tmp_path):
    told = bench("plan", *WHAT, "--jobs", str(tmp_path / "jobs"), results=tmp_path)
    files = sorted((tmp_path / "jobs").iterdir())
    assert f"14 jobs in {tmp_path / 'jobs'}" in told.stdout
    assert [file.name for file in files] == [f"{i:04d}.json" for i in range(14)]
    for file in files:
        done = bench("job", str(file), results=tmp_path)
        assert done.exit_code == 0, done.output
        assert Path(done.stdout.strip()).is_file()
    assert record_bytes(tmp_path) == record_bytes(measured)


def submitted(jobs: Path) -> str:
    """What the README's line for Slurm asks `sbatch` for, with the jobs in that folder."""
    (line,) = re.findall(r"^.*sbatch .*$", (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    script = f"sbatch() {{ echo $1; }}\n{line}"
    return subprocess.run(["sh", "-c", script], cwd=jobs.parent, capture_output=True, text=True, check=False).stdout.strip()


def test_files_that_are_no_jobs_are_left_alone(measured, tmp_path):
    (tmp_path / "2024.json").write_text('{"mine": 1}')
    bench("plan", *WHAT, "--jobs", str(tmp_path), results=measured)
    assert (tmp_path / "2024.json").read_text() == '{"mine": 1}'


def test_jobs_that_are_stale_are_gone_and_an_array_is_of_those_that_are_missing(measured, tmp_path):
    jobs = tmp_path / "jobs"
    bench("plan", *WHAT, "--jobs", str(jobs), results=tmp_path / "r")
    (jobs / "notes.txt").write_text("mine")
    assert submitted(jobs) == "--array=0-13"
    more = [*WHAT, "--anonymizer", "identity,null,gauss:std=0.1,gauss:std=0.2"]
    assert f"4 jobs in {jobs}" in bench("plan", *more, "--jobs", str(jobs), results=measured).stdout
    assert sorted(file.name for file in jobs.iterdir()) == [*(f"{i:04d}.json" for i in range(4)), "notes.txt"]
    assert submitted(jobs) == "--array=0-3"
    told = bench("plan", *WHAT, "--jobs", str(jobs), results=measured)
    assert f"no jobs in {jobs}: nothing is missing" in told.stdout
    assert "0000.json" not in told.stdout
    assert [file.name for file in jobs.iterdir()] == ["notes.txt"]
    assert submitted(jobs) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no settings"),
        ('{"anonymiser": "null"}', "sets 'anonymiser', which is unknown; did you mean anonymizer?"),
        ('{"anonymizer": 3}', "anonymizer must not be 3"),
        ('{"anonymizer": null}', "anonymizer must not be null"),
        ('{"seeds": 1}', "seeds must not be 1"),
        ('{"anonymizer": "nul"}', "no anonymizer named 'nul'; did you mean null?"),
    ],
)
def test_a_wrong_job_is_told_in_one_line(tmp_path, text, message):
    file = tmp_path / "job.json"
    file.write_text(text)
    told = bench("job", str(file), results=tmp_path / "r")
    assert told.exit_code == 2
    assert message in told.output
    assert len(told.output.strip().splitlines()) == 1


def test_a_file_sets_what_the_command_line_does_not(measured, tmp_path):
    file = tmp_path / "grid.toml"
    lines = [f'dataset = "{DATA}"', 'anonymizer = ["identity", "null", "gauss:std=0.1"]', "mlflow = false", "seeds = 3"]
    file.write_text("\n".join([*lines, 'attacker = "bones-lda,shiftgcn-reid:backbone=simple"', 'executor = "serial"']))
    assert "42 pairs" in bench("plan", "--config", str(file), results=tmp_path).stdout
    told = bench("run", "--config", str(file), "--seeds", "1", results=tmp_path / "r")
    assert told.exit_code == 0, told.output
    assert record_bytes(tmp_path / "r") == record_bytes(measured)
    (log,) = (tmp_path / "r" / "runs").iterdir()
    (other,) = (measured / "runs").iterdir()
    experiments = [json.loads(file.read_text())["experiment"] for file in (log, other)]
    assert experiments[0] != experiments[1]  # seeds that were not named are the preset's
    named = bench("run", *RUN[1:], "--seeds", "1", results=measured)
    assert named.exit_code == 0
    assert experiments[0] in {json.loads(file.read_text())["experiment"] for file in (measured / "runs").iterdir()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset =", "is no TOML"),
        ("dataste = 'synthetic'", "sets 'dataste', which is unknown; did you mean dataset?"),
        ("controls = 'no'", "controls must be true or false"),
        ("dataset = true", "dataset must be a text, a number or a list"),
        ("[dataset]\nname = 'x'", "dataset must be a text, a number or a list"),
        ("preset = 'fast'", "no preset named 'fast'"),
        ("seeds = 0", "seeds must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_told_in_one_line(tmp_path, text, message):
    file = tmp_path / "grid.toml"
    file.write_text(text)
    told = bench("run", "--config", str(file), results=tmp_path / "r")
    assert told.exit_code == 2
    assert message in told.output
    assert len(told.output.strip().splitlines()) == 1


def test_an_undamaged_store_is_found_to_be(measured):
    told = bench("store", "verify", results=measured)
    assert told.exit_code == 0
    assert "14 records read; nothing damaged" in told.stdout


def _spoil_model(results):
    file = next((results / "stages" / "train").glob("*/*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    return file.parent


def _spoil_record(results):
    record = next(records(results / "records"))
    record.path.write_text(json.dumps({**record.data, "seed": 5}))
    return record.path


def _cut_index(results):
    """Where clips begin in the rows of every release."""
    (stage,) = (results / "stages" / "normalise").glob("*/stage.json")
    index = stage.parent / "clips" / "index.npy"
    index.write_bytes(index.read_bytes()[:140])
    return stage.parent


def _cut_predictions(results):
    record = next(records(results / "records"))
    file = record.path.with_suffix(".npz")
    file.write_bytes(file.read_bytes()[:1000])
    return record.path


def _change_predictions(results):
    record = next(records(results / "records"))
    arrays = record.predictions()
    arrays["attack"][0] = 1 - arrays["attack"][0]
    np.savez(record.path.with_suffix(".npz"), **arrays)
    return record.path


def _change_clips(results):
    (meta,) = (results / "data").glob("*/meta.json")
    labels = meta.with_name("labels.csv")
    labels.write_text(labels.read_text().replace(",1,", ",2,", 1))
    return meta.parent


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])
    return path


def _cut_stage(results):
    return _cut(next(results.glob("stages/train/*/stage.json"))).parent


def _cut_scores(results):
    return _cut(next(results.glob("stages/predict/*/scores.npy"))).parent


def _cut_record(results):
    return _cut(next(records(results / "records")).path)


def _roll_labels(results):
    record = next(records(results / "records"))
    arrays = record.predictions()
    rolled = {name: np.roll(arrays[name], 1) for name in ("label", "subject")}
    np.savez(record.path.with_suffix(".npz"), **{**arrays, **rolled})
    return record.path


def _change_chance(results):
    record = next(records(results / "records"))
    record.path.write_text(json.dumps({**record.data, "chance": 0.5}))
    return record.path


def _drop_manifest(results):
    record = next(records(results / "records"))
    record.path.with_name(f"{record.path.stem}.manifest.json").unlink()
    return record.path


def _flip_scores_of_a_published_record(results):
    shutil.rmtree(results / "stages")
    return _change_predictions(results)


def _forge(name):
    def spoil(results):
        path = next(results.glob(f"stages/{name}/*/stage.json"))
        state = json.loads(path.read_text())
        path.write_text(json.dumps({**state, "info": {**state["info"], "rows": "0" * 16}}))
        return path.parent

    return spoil


def _cut_data(results):
    return _cut(next((results / "data").glob("*/index.npy"))).parent


SPOILT = {
    "model": _spoil_model,
    "record": _spoil_record,
    "predictions cut": _cut_predictions,
    "predictions": _change_predictions,
    "clips": _change_clips,
    "stage cut": _cut_stage,
    "scores cut": _cut_scores,
    "record cut": _cut_record,
    "labels": _roll_labels,
    "chance": _change_chance,
    "manifest": _drop_manifest,
    "published": _flip_scores_of_a_published_record,
    "rows": _forge("normalise"),
    "released rows": _forge("release"),
    "index": _cut_index,
    "data cut": _cut_data,
}


@pytest.mark.filterwarnings("ignore:.* is damaged")
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_whatever_is_damaged_is_found(copied, spoil):
    path = spoil(copied)
    told = bench("store", "verify", results=copied)
    assert told.exit_code == 1
    assert f"DAMAGED {path}: " in told.stdout
    assert "1 damaged" in told.stdout


def test_damaged_records_and_stages_are_told_and_measured_again(copied):
    before = record_bytes(copied)
    empty, cut = [record.path for record in records(copied / "records")][:2]
    empty.write_text("")
    cut.write_bytes(cut.read_bytes()[:100])
    stage = next(copied.glob("stages/train/*/stage.json"))
    stage.write_text("")
    with pytest.warns(UserWarning, match="is damaged") as told:
        assert bench("table", results=copied).exit_code == 0
    assert {str(one.message) for one in told} == {
        f"{path} is damaged: it is left out, and `bench run` measures it again" for path in (empty, cut)
    }
    with pytest.warns(UserWarning, match="is damaged"):
        again = bench(*RUN, results=copied)
    assert again.exit_code == 0, again.output
    assert "2 of 14 records computed now" in again.output
    assert record_bytes(copied) == before


def test_records_of_earlier_versions_are_compared_with_their_stages(copied):
    first, second = list(records(copied / "records"))[:2]
    for record in (first, second):
        path = record.path.with_name(f"{record.path.stem}.manifest.json")
        path.write_text(json.dumps({name: value for name, value in record.manifest().items() if name != "sha256"}))
    told = bench("store", "verify", results=copied)
    assert told.exit_code == 0
    assert "nothing damaged, 2 records unsealed" in told.stdout
    arrays = first.predictions()
    np.savez(first.path.with_suffix(".npz"), **{**arrays, "attack": 1 - arrays["attack"]})
    told = bench("store", "verify", results=copied)
    assert told.exit_code == 1
    assert f"DAMAGED {first.path}: attack" in told.stdout


@contextmanager
def no_room():
    """As on a full disk: files can be made, but nothing can be written to them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_run_on_a_full_disk_names_what_failed_and_what_is_not_written(copied, tmp_path):
    before = record_bytes(copied)
    more = [*RUN[:4], "identity,gauss:std=0.2", *RUN[5:], "--threat", "semi-informed", "--json", str(tmp_path / "rows.json")]
    with no_room():
        told = bench(*more, results=copied)
        new = bench(*more, results=tmp_path / "new")
    assert told.exit_code == 1
    failed = [line for line in told.stderr.splitlines() if line.startswith("FAILED ")]
    assert [line.partition(",")[0] for line in failed] == [
        f"FAILED gauss:std=0.2 x {attacker}" for attacker in ("bones-lda", "shiftgcn-reid:backbone=simple")
    ]
    assert all("File too large" in line for line in failed)
    for name in ("the log of the run", "the table", "the Pareto figure", str(tmp_path / "rows.json")):
        assert f"{name} could not be written (OSError: [Errno 27] File too large" in told.stderr
    assert "where each of them went wrong" not in told.stderr
    assert "identity" in told.stdout  # what is known is shown all the same
    assert record_bytes(copied) == before
    assert not list(tmp_path.rglob("*.tmp"))
    assert new.exit_code == 1
    assert new.stderr.startswith("error: no room on the disk for ")
    assert len(new.stderr.splitlines()) == 1
    again = bench(*more, results=copied)
    assert again.exit_code == 0
    assert "2 of 8 records computed now" in again.stderr
    assert (tmp_path / "rows.json").exists()


def test_a_plugin_that_cannot_say_what_it_is_costs_its_own_pairs_alone(copied, monkeypatch):
    def budget(self, preset):
        raise RuntimeError("out of\nideas") if self.std == 0.2 else AssertionError("asked though it is there")

    before = record_bytes(copied)
    monkeypatch.setattr(GaussianNoise, "budget", budget)
    asked = [*WHAT, "--anonymizer", "identity,null,gauss:std=0.2", "--threat", "semi-informed"]
    told = bench("plan", *asked, results=copied)
    assert told.exit_code == 0
    assert "will fail: gauss:std=0.2 x bones-lda, semi-informed, seed 0: RuntimeError: out of ideas\n" in told.stdout
    assert "6 pairs, 6 of them there" in told.stdout
    told = bench("run", *asked, "--no-mlflow", *HERE, results=copied)
    assert told.exit_code == 1
    assert "FAILED gauss:std=0.2 x bones-lda, semi-informed, seed 0: RuntimeError: out of ideas\n" in told.stderr
    assert "2 of 8 pairs failed" in told.stderr
    (log,) = (copied / "failures").iterdir()
    assert log.read_text().count('raise RuntimeError("out of\\nideas")') == 1
    assert record_bytes(copied) == before


def test_a_table_of_damaged_predictions_is_refused_in_one_line(copied):
    shutil.rmtree(copied / "measured")
    path = _cut_predictions(copied)
    told = bench("table", results=copied)
    assert told.exit_code == 2
    assert f"{path.with_suffix('.npz')} is damaged" in told.output


def test_what_no_record_needs_is_freed_and_nothing_else(copied):
    whole = record_bytes(copied)
    assert bench("store", "gc", results=copied).exit_code == 0  # models that were not chosen, what was measured to choose
    assert "0 stages, 0 left-overs, 0.0 MB would be freed" in bench("store", "gc", "--dry-run", results=copied).stdout
    assert "0 of 14 records computed now" in bench(*RUN, results=copied).output
    gone = {record.data["key"] for record in records(copied / "records") if record.data["anonymizer"]["name"] == "gauss"}
    for path in [path for path in (copied / "records").rglob("*") if path.is_file() and path.name.partition(".")[0] in gone]:
        path.unlink()
    killed_last = copied / "stages" / "train" / ".0123.partial"  # when everything was written, and nothing had its name
    shutil.copytree(next(copied.glob("stages/train/*/")), killed_last)
    assert bench("store", "verify", results=copied).exit_code == 0
    (copied / "stages" / "train" / "0123.lock").touch()
    left = [copied / "records" / "new" / name for name in ("0a.npz", "0a.manifest.json", ".0b.json.x.tmp")]
    left += [copied / "measured" / ".1.npz.x.tmp", copied / "runs" / ".2.json.x.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    checkpoint = copied / "stages" / "train" / ".4567.partial" / "net" / f"training{CHECKPOINT}"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    before = set((copied / "stages").glob("*/*"))
    assert "would be freed" in bench("store", "gc", "--dry-run", results=copied).stdout
    assert set((copied / "stages").glob("*/*")) == before
    assert all(path.exists() for path in left)
    told = bench("store", "gc", results=copied)
    assert told.exit_code == 0
    assert "6 left-overs" in told.stdout
    assert "1 interrupted trainings are kept" in told.stdout
    assert checkpoint.exists()
    assert not any(path.exists() for path in left)
    assert "1 left-overs" in bench("store", "gc", "--all", results=copied).stdout
    left = Inventory(copied)
    assert left.needed() == set(left.stages)
    assert not any(stage.state["inputs"].get("anonymizer", {}).get("name") == "gauss" for stage in left.stages.values())
    assert not list((copied / "stages").glob("*/.*"))
    assert not list((copied / "stages").glob("*/*.lock"))
    assert bench("store", "verify", results=copied).exit_code == 0
    kept = {path: path.stat().st_mtime_ns for path in (copied / "stages").rglob("stage.json")}
    again = bench(*RUN, results=copied)
    assert "4 of 14 records computed now" in again.output
    assert record_bytes(copied) == whole
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in (copied / "stages").rglob("stage.json")}.items()


def test_nothing_is_freed_while_a_run_is_at_work(copied):
    worker = Reporter(copied / "status", "run")
    with worker.step("train"):
        told = bench("store", "gc", results=copied)
    assert told.exit_code == 2
    assert "at work" in told.output
    shown = bench("status", results=copied).stdout
    assert "train" in shown
    assert str(os.getpid()) in shown
    worker.close()
    assert "nothing runs here" in bench("status", results=copied).stdout


def test_a_run_and_a_clearing_up_never_overlap(tmp_path):
    (tmp_path / "stages").mkdir()
    ask = f"from pathlib import Path; from bench.occupied import at_work, alone\nwith at_work(Path({str(tmp_path)!r})): "
    with at_work(tmp_path), at_work(tmp_path):  # runs get along
        told = bench("store", "gc", results=tmp_path)
        assert told.exit_code == 2
        assert "somebody is at work" in told.output
    with alone(tmp_path):
        begun = subprocess.Popen([sys.executable, "-c", f"{ask}print('begun')"], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            begun.wait(timeout=1)
    assert begun.communicate(timeout=60)[0] == "begun\n"
    killed = subprocess.Popen([sys.executable, "-c", f"{ask}print('begun', flush=True); input()"], **PIPES)
    assert killed.stdout.readline() == "begun\n"
    assert bench("store", "gc", results=tmp_path).exit_code == 2
    killed.kill()
    killed.communicate()
    assert bench("store", "gc", results=tmp_path).exit_code == 0


def test_a_run_holds_its_folder_until_it_ends(copied, monkeypatch):
    tried = []

    def release(self, batch, state):
        tried.append(bench("store", "gc", results=copied).output)
        raise RuntimeError("enough")

    monkeypatch.setattr(GaussianNoise, "transform", release)
    monkeypatch.setattr("bench.status.read_status", lambda folder: ({}, []))  # as if it were told nothing
    asked = ["--anonymizer", "gauss:std=0.2", "--attacker", "bones-lda", "--threat", "ignorant"]
    assert bench(*RUN, *asked, results=copied).exit_code == 1
    assert tried
    assert all("somebody is at work" in one for one in tried)
    monkeypatch.undo()
    assert bench("store", "gc", results=copied).exit_code == 0


def test_a_number_is_explained_down_to_the_clips(measured):
    record = next(r for r in records(measured / "records") if r.data["names"]["attacker"].startswith("shiftgcn"))
    told = bench("explain", record.data["key"][:12], results=measured)
    assert told.exit_code == 0, told.output
    for of in record.data["stages"].values():
        if "key" in of:
            assert of["key"] in told.stdout
    (normalised,) = (measured / "stages" / "normalise").glob("*/stage.json")
    assert normalised.parent.name in told.stdout
    assert "not on this disk" not in told.stdout
    arrays = record.predictions()
    assert f"among the 1 first of {np.mean(arrays['attack'].argmax(2) == arrays['label']):.0%}, " in told.stdout
    assert "among the 3 first of" in told.stdout
    assert "no record begins with 'zz'" in bench("explain", "zz", results=measured).output
    assert "records begin with ''; give more of it" in bench("explain", "", results=measured).output


def test_an_audit_reproduces_records_to_the_bit(measured):
    told = bench("audit", "--sample", "4", *HERE, results=measured)
    assert told.exit_code == 0, told.output
    assert told.stdout.count(": equal to the bit\n") == 4


def test_an_audit_without_the_prepared_clips_prepares_them_anew(copied):
    shutil.rmtree(copied / "data")
    told = bench("audit", "--sample", "1", *HERE, results=copied)
    assert told.exit_code == 0, told.output
    assert ": equal to the bit" in told.stdout
    assert not (copied / "data").exists()


def test_without_manifests_audits_and_boards_go_on(copied):
    """How a record was made is not known then; what was measured is."""
    _change_predictions(copied)
    forged = next(records(copied / "records"))
    for manifest in (copied / "records").rglob("*.manifest.json"):
        manifest.unlink()
    told = bench("audit", forged.data["key"], *HERE, results=copied)
    assert told.exit_code == 1
    assert "DIFFERS by up to" in told.stdout
    assert bench("leaderboard", results=copied).exit_code == 0


def test_an_audit_finds_what_cannot_be_reproduced(copied):
    _change_predictions(copied)
    forged, changed, *_ = records(copied / "records")
    new = {**changed.data, "attacker": {**changed.data["attacker"], "code": 99}}
    changed.path.write_text(json.dumps(new))
    told = bench("audit", forged.data["key"], changed.data["key"], *HERE, results=copied)
    assert told.exit_code == 1
    first, second = told.stdout.splitlines()
    assert "DIFFERS by up to" in first
    assert "more than 0.0001; leakage" in first
    assert "cannot be done again: attacker changed since it was measured" in second


def test_stages_and_records_say_where_they_were_made_and_an_audit_tells_other_hardware_apart(copied):
    here = describe(torch.device("cpu"), "auto")
    assert set(here) == {"device", "cpu", "precision", "torch"}
    assert here["precision"] == "float32"
    states = [json.loads(path.read_text()) for path in (copied / "stages").rglob("stage.json")]
    assert all(state["made_on"] == here for state in states)
    assert not any("made_on" in json.dumps([state["inputs"], state["info"]]) for state in states)
    _change_predictions(copied)
    record = next(records(copied / "records"))
    assert "made_on" not in record.data
    assert record.manifest()["made_on"] == [here]
    path = record.path.with_name(f"{record.path.stem}.manifest.json")
    whole = record.manifest()

    def said(manifest):
        path.write_text(json.dumps(manifest))
        told = bench("audit", record.data["key"], *HERE, results=copied)
        assert told.exit_code == 1
        return told.stdout

    mixed = [here, {**here, "device": "NVIDIA H100", "precision": "bfloat16", "compile": "inductor"}]
    told = said({**whole, "made_on": mixed})
    for change in ("precision bfloat16 and float32 -> float32", "device NVIDIA H100 and", "compile inductor and none -> none"):
        assert change in told
    assert "other hardware" in told
    assert "DIFFERS" not in told
    assert "DIFFERS by up to" in said(whole)
    before = {name: value for name, value in whole.items() if name != "made_on"}
    told = said({**before, "device": "NVIDIA A100"})
    assert f"(device NVIDIA A100 -> {here['device']})" in told


def test_measurements_that_are_remembered_are_those_that_were_made(copied):
    shutil.rmtree(copied / "measured")
    first = bench("table", "--json", "-", results=copied).stdout
    kept = list((copied / "measured").iterdir())
    assert len(kept) == 14
    assert bench("table", "--json", "-", results=copied).stdout == first
    kept[0].write_bytes(kept[0].read_bytes()[:500])
    kept[1].unlink()
    assert bench("table", "--json", "-", results=copied).stdout == first
