"""After a run: full disks, clearing up, explanations and audits of what is there."""

import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from anonymizers.noise import GaussianNoise
from bench.execution import describe
from bench.files import UserError
from bench.inventory import Inventory
from bench.occupied import alone, at_work, looking
from bench.records import records
from bench.registry import ATTACKERS
from bench.stages import CHECKPOINT
from bench.status import Reporter
from tests.tiny import (
    HERE,
    RUN,
    bench,
    change_chance,
    change_predictions,
    cut_predictions,
    record_bytes,
    rewrite,
    shrink_budget,
)

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
WHAT = RUN[1 : RUN.index("--no-mlflow")]


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


@contextmanager
def no_room():
    """As on a full disk: files can be made, but nothing can be written to them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("command", [["table"], ["store", "verify"], ["run", "--no-mlflow", *HERE], ["plan"]])
def test_where_there_can_be_no_results_folder_that_is_told(tmp_path, command):
    (tmp_path / "file").write_text("x")
    told = bench(*command, results=tmp_path / "file" / "results")
    assert told.exit_code == 2
    assert str(tmp_path / "file") in told.output
    assert "writable             no: " in bench("doctor", results=tmp_path / "file" / "results").output


def test_nothing_is_dropped_beneath_a_run_of_another_machine(copied, monkeypatch):
    from bench import status

    before = record_bytes(copied)
    monkeypatch.setattr(status, "read_status", lambda folder: ([{}], []))
    told = bench("store", "drop", "--attacker", "bones-lda", results=copied)
    assert (told.exit_code, "1 runs are at work" in told.output) == (2, True)
    assert record_bytes(copied) == before


def test_what_was_only_tried_is_dropped_and_nothing_else(copied):
    before = record_bytes(copied)
    of = {key for key, text in before.items() if json.loads(text)["names"]["attacker"] == "bones-lda"}
    assert 0 < len(of) < len(before)
    assert (
        f"{len(of)} records would be removed"
        in bench("store", "drop", "--attacker", "bones-lda", "--dry-run", results=copied).output
    )
    assert record_bytes(copied) == before
    assert f"{len(of)} records removed" in bench("store", "drop", "--attacker", "bones-lda", results=copied).output
    assert record_bytes(copied) == {key: text for key, text in before.items() if key not in of}
    assert len(list((copied / "records").rglob("*.npz"))) == len(before) - len(of)
    assert "nothing damaged" in bench("store", "verify", results=copied).output
    left = bench("store", "drop", "--anonymizer", "gauss:std=.1", "--attacker", "bones-lda", results=copied)
    assert (left.exit_code, "has no such records" in left.output) == (2, True)
    assert bench("store", "drop", "--anonymizer", "gauss:std=.1", results=copied).exit_code == 0
    assert {json.loads(text)["names"]["anonymizer"] for text in record_bytes(copied).values()} == {"identity", "null"}
    assert bench("store", "drop", results=copied).exit_code == 2


def test_what_is_misspelt_is_told_and_what_is_no_longer_installed_is_dropped(copied, monkeypatch):
    told = bench("store", "drop", "--attacker", "bones-ldda", results=copied)
    assert (told.exit_code, "did you mean bones-lda" in told.output) == (2, True), told.output
    of = [key for key, text in record_bytes(copied).items() if json.loads(text)["names"]["attacker"] == "bones-lda"]
    monkeypatch.delitem(ATTACKERS._builtin, "bones-lda")
    told = bench("store", "drop", "--attacker", "bones-lda", results=copied)
    assert (told.exit_code, told.output) == (0, f"{len(of)} records removed\n")


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


@pytest.mark.parametrize("spoil", [cut_predictions, change_predictions, change_chance])
@pytest.mark.parametrize("remembered", [True, False])
def test_a_record_that_is_not_as_it_was_written_is_in_no_table_and_measured_again(copied, spoil, remembered):
    if not remembered:
        shutil.rmtree(copied / "measured")
    before = record_bytes(copied)
    path = spoil(copied)
    with pytest.warns(UserWarning, match=f"{path}: it.* differs? from what was written; it is left out"):
        told = bench("table", "--json", "-", results=copied)
    assert told.exit_code == 0
    assert len(json.loads(told.stdout)["rows"]) == 13
    with pytest.warns(UserWarning, match="left out"):
        again = bench(*RUN, results=copied)
    assert "1 of 14 records computed now" in again.output
    assert record_bytes(copied) == before


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


def test_an_audit_reproduces_records_to_the_bit(copied):
    told = bench("audit", "--sample", "4", *HERE, results=copied)
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
    change_predictions(copied, sealed=True)
    forged = next(records(copied / "records"))
    for manifest in (copied / "records").rglob("*.manifest.json"):
        manifest.unlink()
    told = bench("audit", forged.data["key"], *HERE, results=copied)
    assert told.exit_code == 1
    assert "DIFFERS by up to" in told.stdout
    assert bench("leaderboard", results=copied).exit_code == 0


def test_an_audit_finds_what_cannot_be_reproduced(copied):
    change_predictions(copied, sealed=True)
    forged, changed, *_ = records(copied / "records")
    new = {**changed.data, "attacker": {**changed.data["attacker"], "code": 99}}
    rewrite(changed, new)
    told = bench("audit", forged.data["key"], changed.data["key"], *HERE, results=copied)
    assert told.exit_code == 1
    first, second = told.stdout.splitlines()
    assert "DIFFERS by up to" in first
    assert "more than 0.0001; leakage" in first
    assert "cannot be done again: attacker changed since it was measured" in second


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("chance", 0.5, "DIFFERS: chance"),
        ("training", {}, ": equal to the bit in all predictions; training differ"),
    ],
)
def test_an_audit_compares_all_that_a_table_rests_on(copied, key, value, said):
    """Leakage is normalised by what a record states as chance; how a training went is told and no more."""
    record = next(records(copied / "records"))
    rewrite(record, {**record.data, key: value})
    told = bench("audit", record.data["key"], *HERE, results=copied)
    assert said in told.stdout
    assert told.exit_code == (key == "chance")
    assert not list(copied.glob(".audit-*"))


def test_what_an_audit_left_behind_is_freed(copied):
    (copied / ".audit-killed" / "stages").mkdir(parents=True)
    assert bench("store", "gc", results=copied).exit_code == 0
    assert not list(copied.glob(".audit-*"))


def test_nothing_is_cleared_up_while_somebody_reads(tmp_path, monkeypatch):
    with looking(tmp_path), pytest.raises(UserError, match="somebody is at work"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass

    def refused(results):
        raise PermissionError(results)

    monkeypatch.setattr("bench.occupied.at_work", refused)
    with looking(tmp_path):  # a folder that cannot be written
        pass


def test_pages_of_a_server_are_its_own(copied, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9/runs")
    told = bench("ui", results=copied)
    assert told.exit_code == 2
    assert "runs are logged to http://127.0.0.1:9/runs" in told.output


def test_stages_and_records_say_where_they_were_made_and_an_audit_tells_other_hardware_apart(copied):
    here = describe(torch.device("cpu"), "auto")
    assert set(here) == {"device", "cpu", "precision", "torch"}
    assert here["precision"] == "float32"
    states = [json.loads(path.read_text()) for path in (copied / "stages").rglob("stage.json")]
    assert all(state["made_on"] == here for state in states)
    assert not any("made_on" in json.dumps([state["inputs"], state["info"]]) for state in states)
    change_predictions(copied, sealed=True)
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
