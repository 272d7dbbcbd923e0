"""MLflow's view: written once whoever writes, whenever it was cut off; below the invocation that gave it."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mlflow
import pytest

from bench import tracking
from bench.runlog import run_logs
from bench.tracking import sync
from tests.tiny import DATA, HERE, bench, shrink_budget

pytestmark = pytest.mark.slow  # making a database takes MLflow several seconds
ROOT = Path(__file__).resolve().parents[2]
FEW = ("--anonymizer", "identity", "--attacker", "bones-lda", "--threat", "semi-informed", "--no-mlflow", *HERE)
RUNS = 1 + 4  # the table; identity, null and two controls


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A finished run, and an empty database, that no test may change."""
    results = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        shrink_budget(patch)
        assert bench("run", "--dataset", DATA, *FEW, results=results).exit_code == 0
        client(results).search_experiments()
    return results


@pytest.fixture
def copied(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "copy")


def client(results: Path) -> mlflow.MlflowClient:
    return tracking.open_mlflow(results)


def runs_of(results: Path) -> list:
    (experiment,) = client(results).search_experiments(filter_string=f"name LIKE '{DATA}%'")
    return list(client(results).search_runs([experiment.experiment_id]))


def whole(results: Path) -> bool:
    """Whether every run is there once, ended, and every record's run lies below the table's."""
    runs = runs_of(results)
    (table,) = (run.info.run_id for run in runs if run.data.tags["kind"] == "trade-off")
    parents = [run.data.tags.get("mlflow.parentRunId") for run in runs if run.data.tags["kind"] == "record"]
    once = max(Counter(run.data.tags["of"] for run in runs).values()) == 1
    return once and len(runs) == RUNS and {run.info.status for run in runs} == {"FINISHED"} and set(parents) == {table}


def test_what_was_cut_off_is_removed_and_written_anew(copied, monkeypatch):
    def dies(self, *arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow.MlflowClient, "log_batch", dies)
        sync(copied)
    cut_off = [run for run in runs_of(copied) if "of" not in run.data.tags]
    assert cut_off
    (experiment,) = {run.info.experiment_id for run in cut_off}
    own = client(copied).create_run(experiment, run_name="of the user").info.run_id
    sync(copied)
    assert own in {run.info.run_id for run in runs_of(copied)}
    client(copied).delete_run(own)
    assert whole(copied)


def test_on_a_server_only_what_this_folder_left_is_removed(copied, monkeypatch):
    sync(copied)
    (experiment,) = {run.info.experiment_id for run in runs_of(copied)}
    of_others = client(copied).create_run(experiment, tags={"kind": "record", "writer": "another:/results"}).info.run_id
    monkeypatch.setattr(tracking._Store, "_experiment", _as_on_a_server(tracking._Store._experiment))
    sync(copied)
    assert of_others in {run.info.run_id for run in runs_of(copied)}


def _as_on_a_server(method):
    def run(self, group):
        self._local = False
        return method(self, group)

    return run


def test_a_record_that_was_there_before_its_invocation_gets_below_it(copied):
    (copied / "runs").rename(copied / "aside")
    assert sync(copied) == RUNS - 1
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs_of(copied))
    (copied / "aside").rename(copied / "runs")
    assert sync(copied, run_logs(copied)) == 1
    assert whole(copied)


def test_a_record_takes_one_batch_unless_it_is_long(copied, monkeypatch):
    sizes = []
    log = mlflow.MlflowClient.log_batch

    def counted(self, run_id, metrics=(), params=(), tags=(), **named):
        sizes.append((len(metrics), len(params), len(tags)))
        return log(self, run_id, metrics, params, tags, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", counted)
    monkeypatch.setattr(tracking, "_curves", lambda training: (("lr", epoch, 0.1) for epoch in range(1500)))
    sync(copied)
    of_records = [size for size in sizes if size[0] > 100]
    assert len(sizes) == len(of_records) + 1  # the table's
    assert len(of_records) == 2 * (RUNS - 1)
    assert all(sum(size) <= 1000 for size in sizes)
    history = [client(copied).get_metric_history(run.info.run_id, "attacker_lr") for run in runs_of(copied)]
    assert sorted(map(len, history)) == [0, *[1500] * (RUNS - 1)]


def test_two_at_a_time_on_a_new_database_write_everything_once(copied):
    (copied / "mlflow.db").unlink()
    command = [sys.executable, "-m", "bench", "mlflow", "sync", "--results", str(copied)]
    both = [subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum(int(out.split()[0]) for out, _ in told) == RUNS
    assert whole(copied)
