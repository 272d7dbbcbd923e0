"""Before a run: plans, jobs for a cluster, settings from a file."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.tiny import DATA, RUN, bench, record_bytes, shrink_budget

WHAT = RUN[1 : RUN.index("--no-mlflow")]


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


def planned(output: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Stage and plugin to how many there are in all, done, and to do."""
    lines = [line.split() for line in output.splitlines()[1:-1]]
    return {(row[0], "" if row[1].isdigit() else row[1]): tuple(map(int, [x for x in row if x.isdigit()][:3])) for row in lines}


def test_a_plan_counts_what_the_run_then_does(measured, tmp_path):
    told = bench("plan", *WHAT, results=tmp_path)
    assert told.exit_code == 0, told.output
    assert not (tmp_path / "stages").exists()
    assert [path.name for path in tmp_path.glob("data/*/meta.json")] == ["meta.json"]  # the data set alone is prepared
    kinds = Counter()
    for (kind, _), (whole, there, missing) in planned(told.stdout).items():
        assert (whole, there) == (missing, 0)
        kinds[kind] += whole
    made = {kind: len(list((measured / "stages" / kind).glob("*/stage.json"))) for kind in kinds if kind != "record"}
    assert kinds == {**made, "record": 14}
    assert "14 pairs, 0 of them there" in told.stdout
    assert "is not known: nothing like them was made in this folder yet" in told.stdout


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


def test_a_file_sets_what_the_command_line_does_not(copied, tmp_path):
    file = tmp_path / "grid.toml"
    lines = [f'dataset = "{DATA}"', 'anonymizer = ["identity", "null", "gauss:std=0.1"]', "mlflow = false", "seeds = 3"]
    file.write_text("\n".join([*lines, 'attacker = "bones-lda,shiftgcn-reid:backbone=simple"', 'executor = "serial"']))
    assert "42 pairs" in bench("plan", "--config", str(file), results=tmp_path).stdout
    told = bench("run", "--config", str(file), "--seeds", "1", results=tmp_path / "r")
    assert told.exit_code == 0, told.output
    assert record_bytes(tmp_path / "r") == record_bytes(copied)
    (log,) = (tmp_path / "r" / "runs").iterdir()
    (other,) = (copied / "runs").iterdir()
    experiments = [json.loads(file.read_text())["experiment"] for file in (log, other)]
    assert experiments[0] != experiments[1]  # seeds that were not named are the preset's
    named = bench("run", *RUN[1:], "--seeds", "1", results=copied)
    assert named.exit_code == 0
    assert experiments[0] in {json.loads(file.read_text())["experiment"] for file in (copied / "runs").iterdir()}


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
