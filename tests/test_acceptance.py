"""Promises of the whole suite, on real budgets: minutes, not seconds."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.floors import FLOORS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def bench(*arguments, results: Path, environment=None) -> str:
    command = [sys.executable, "-m", "bench", *arguments, "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rows_of(*arguments, results: Path, environment=None) -> dict[tuple[str, str, str], dict]:
    file = results / "rows.json"
    bench("run", *arguments, "--no-mlflow", "--json", str(file), results=results, environment=environment)
    document = json.loads(file.read_text())
    assert document["failed"] == []
    return {(row["anonymizer"], row["attacker"], row["threat"]): row for row in document["rows"]}


def covers_chance(row) -> bool:
    return row["leakage_low"] <= row["chance"] <= row["leakage_high"]


@pytest.fixture(scope="module")
def utd_mhad(bench_data, tmp_path_factory) -> dict:
    """Where tests of UTD-MHAD that run in one process have their results, which share what is trained, and its data."""
    if not (bench_data / "UTD-MHAD").is_dir():
        pytest.skip(f"{bench_data} has no UTD-MHAD")
    return {"results": tmp_path_factory.mktemp("utd-mhad"), "environment": {"BENCH_DATA": str(bench_data)}}


def test_utd_mhad_leaks_until_nothing_is_released(utd_mhad):
    command = ["--dataset", "utd-mhad", "--anonymizer", "identity,null,gauss:std=0.05", "--attacker", "shiftgcn-reid,bones-lda"]
    rows = rows_of(*command, **utd_mhad)
    for attacker in ("shiftgcn-reid", "bones-lda"):
        for threat in ("ignorant", "semi-informed"):
            assert rows["identity", attacker, threat]["leakage"] >= 0.90
            assert covers_chance(rows["null", attacker, threat])
    identity = rows["identity", "bones-lda", "semi-informed"]
    assert identity["action_retrained"] >= 0.80
    assert identity["utility_retention"] == 1
    noisy = rows["gauss:std=0.05", "shiftgcn-reid", "semi-informed"]
    assert noisy["leakage"] > rows["gauss:std=0.05", "shiftgcn-reid", "ignorant"]["leakage"]
    started = time.monotonic()
    output = bench("run", *command, "--no-mlflow", **utd_mhad)
    assert "0 of 14 records computed now" in output
    assert time.monotonic() - started < 60


def test_the_panel_reaches_its_floors_on_raw_clips_and_chance_on_nothing(utd_mhad):
    panel = ["bones-lda", "bones-knn", "flat-svm", "stats-rf", "gait-dyn", "sgn-reid", "verify-sgn"]
    command = [
        "--dataset",
        "utd-mhad",
        "--anonymizer",
        "identity,null",
        "--attacker",
        ",".join(panel),
        "--threat",
        "semi-informed",
    ]
    rows = rows_of(*command, **utd_mhad)
    floors = FLOORS["utd-mhad", "trial/1", "quick"]
    for attacker in panel:
        assert rows["identity", attacker, "semi-informed"]["leakage"] >= floors[attacker], attacker
        assert covers_chance(rows["null", attacker, "semi-informed"]), attacker
        assert not {"weak-attacker", "control-failed"} & set(rows["identity", attacker, "semi-informed"]["flags"])


@pytest.mark.parametrize(
    ("dials", "bones", "network"),
    [("body=0,dynamics=0,setup=0", False, False), ("dynamics=0,setup=0", True, None), ("body=0,setup=0", False, True)],
)
def test_attackers_find_the_channel_that_is_there_and_no_other(dials, bones, network, tmp_path):
    data = f"synthetic:{dials}"
    rows = rows_of(
        "--dataset", data, "--anonymizer", "identity", "--no-controls", "--attacker", "bones-lda,shiftgcn-reid", results=tmp_path
    )
    for attacker, succeeds in (("bones-lda", bones), ("shiftgcn-reid", network)):
        row = rows["identity", attacker, "semi-informed"]
        if succeeds is not None:
            assert (row["leakage_low"] > row["chance"]) == succeeds, row
            assert succeeds or covers_chance(row), row
