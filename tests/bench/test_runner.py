"""Runs as whole processes: whatever executor does the work, and whatever happens to it, the records are the same."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from bench.executors import Where, Worker
from bench.files import UserError
from bench.records import records
from bench.status import read_status
from tests.small_run import DATA, run
from tests.tiny import record_bytes

SCRIPT = Path(__file__).parents[1] / "small_run.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
CPU = (torch.device("cpu"),)


def start(results: Path, *arguments: str, environment=ENVIRONMENT, **how) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(results), *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)


def outcome(process: subprocess.Popen) -> dict:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def logged(log: Path) -> dict[str, str]:
    """The environment in which a run writes down what it finishes, and where it goes on."""
    return {**ENVIRONMENT, "SMALL_RUN_LOG": str(log)}


def wait_for_workers(results: Path, process: subprocess.Popen) -> None:
    """Until a run's workers are at work, or it has ended."""
    for _ in range(2400):
        if read_status(results / "status")[1] or process.poll() is not None:
            return
        time.sleep(0.05)
    raise AssertionError("the run does not begin")


def wait_for_a_checkpoint(results: Path, process: subprocess.Popen) -> None:
    """Until a training of this run has got so far that it could go on from there, or the run has ended, or none does."""
    begun = time.time()
    while process.poll() is None and time.time() - begun < 20:
        with suppress(FileNotFoundError):  # a training has ended meanwhile
            if any(path.stat().st_mtime > begun for path in results.glob("stages/train/.*/*.checkpoint")):
                return
        time.sleep(0.002)


def nothing_half_written(results: Path) -> None:
    for record in records(results / "records"):
        record.predictions()
        record.manifest()
    stages = {path.name for path in results.glob("stages/*/*") if path.is_dir() and not path.name.startswith(".")}
    assert stages == {path.parent.name for path in results.glob("stages/*/[!.]*/stage.json")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A run in this process that nothing happened to."""
    results = tmp_path_factory.mktemp("undisturbed")
    result = run(results, Where("serial", CPU))
    assert (len(result.records), result.computed, result.failed) == (8, 8, [])
    return results


def test_processes_give_the_same_records(undisturbed, tmp_path):
    result = run(tmp_path, Where("local", CPU, workers=2))
    assert (result.computed, result.failed) == (8, [])
    assert record_bytes(tmp_path) == record_bytes(undisturbed)
    assert not list((tmp_path / "status").iterdir())


@pytest.mark.slow
def test_ray_gives_the_same_records_as_processes_and_as_none(tmp_path):
    pytest.importorskip("ray")
    grid = {"anonymizers": "identity,gauss:std=0.1,mean-skeleton", "attackers": "bones-lda,gait-dyn,shiftgcn-reid"}
    found = {}
    for name in ("serial", "local", "ray"):
        where = Where(name, CPU, workers=None if name == "serial" else 2)
        result = run(tmp_path / name, where, **grid)
        assert not result.failed
        found[name] = record_bytes(tmp_path / name)
    assert len(found["serial"]) == 4 * 3 + 2  # null and two controls besides
    assert found["serial"] == found["local"] == found["ray"]


def test_unknown_executors_and_clusters_are_told(tmp_path):
    with pytest.raises(UserError, match="no executor named 'slurm'; there are serial, local, ray"):
        run(tmp_path, Where("slurm", CPU))


@pytest.mark.slow
def test_two_runs_on_one_store_do_no_stage_twice(undisturbed, tmp_path):
    results, log = tmp_path / "r", tmp_path / "log"
    first, second = (start(results, environment=logged(log)) for _ in range(2))
    done = [outcome(first), outcome(second)]
    assert [one["records"] for one in done] == [8, 8]
    assert not any(one["failed"] for one in done)
    assert record_bytes(results) == record_bytes(undisturbed)
    nothing_half_written(results)
    finished = [line.removeprefix("finished ") for line in log.read_text().splitlines()]
    assert sorted(finished) == sorted(path.parent.name for path in results.glob("stages/*/*/stage.json"))  # each once


def test_a_stage_that_fails_is_tried_once_and_fails_all_pairs_that_need_it(tmp_path, monkeypatch):
    from anonymizers.noise import GaussianNoise

    tried = []

    def fails(self, batch, state):
        tried.append(len(batch.clips))
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(GaussianNoise, "transform", fails)
    result = run(tmp_path, Where("serial", CPU), threats="ignorant,semi-informed")
    assert {failure["anonymizer"] for failure in result.failed} == {"gauss:std=0.1"}
    assert len(result.failed) == 4
    assert len(tried) == 1  # the holder's release; that of the attacker is for pairs that have failed by then
    assert "out of ideas" in result.log.read_text()


def test_work_that_is_lost_ends_its_pairs_instead_of_being_done_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "_do", lambda self, task: None)
    result = run(tmp_path, Where("serial", CPU))
    assert not result.records
    assert len(result.failed) == 8
    assert all("was made, but cannot be found" in failure["error"] for failure in result.failed)


PLUGINS = '''
    import os
    import time
    from dataclasses import dataclass

    from bench.anonymizer import Anonymizer


    @dataclass(frozen=True)
    class Raises(Anonymizer):
        """Raises."""

        def transform(self, batch, state):
            raise RuntimeError("out of ideas")


    class Hangs(Anonymizer):
        """Never ends."""

        def transform(self, batch, state):
            time.sleep(1e6)


    class NotANumber(Anonymizer):
        """Gives no numbers."""

        def transform(self, batch, state):
            return batch.clips * float("nan")


    class Leaks(Anonymizer):
        """Takes more and more memory."""

        def transform(self, batch, state):
            kept = []
            while True:
                kept.append(b"x" * 50_000_000)
                time.sleep(0.01)


    class Dies(Anonymizer):
        """Takes its process with it."""

        def transform(self, batch, state):
            os.kill(os.getpid(), 9)


    class Leaves(Anonymizer):
        """Ends its process in an orderly way."""

        def transform(self, batch, state):
            raise SystemExit("enough")


    class Interrupts(Anonymizer):
        """Claims that somebody pressed Ctrl-C."""

        def transform(self, batch, state):
            raise KeyboardInterrupt("me")


    class EndsWell(Anonymizer):
        """Ends its process as if all were well."""

        def transform(self, batch, state):
            os._exit(0)


    class Exits(Anonymizer):
        """Ends its process."""

        def transform(self, batch, state):
            os._exit(3)
'''
NAMES = {
    "raises": ("Raises", "RuntimeError: out of ideas"),
    "hangs": ("Hangs", "TimeoutError: it took longer than 25 s (--time-limit)"),
    "not-a-number": ("NotANumber", "coordinates that are not finite"),
    "leaks": ("Leaks", "MemoryError: its process used more than 1500 MB (--memory-limit)"),
    "dies": ("Dies", "ProcessExpired: its process ended, killed by SIGKILL, perhaps for want of memory"),
    "leaves": ("Leaves", "SystemExit: enough"),
    "interrupts": ("Interrupts", "KeyboardInterrupt: me"),
    "ends-well": ("EndsWell", "ProcessExpired: its process ended, exit status 1"),
    "exits": ("Exits", "ProcessExpired: its process ended, exit status 3"),
}


@pytest.fixture
def plugins(tmp_path) -> dict[str, str]:
    """An installed distribution with plugins that misbehave; the environment in which it is found."""
    site = tmp_path / "site"
    (site / "rogue-1.0.dist-info").mkdir(parents=True)
    (site / "rogue-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: rogue\nVersion: 1.0\n")
    points = "\n".join(f"{name} = rogue:{kind}" for name, (kind, _) in NAMES.items())
    (site / "rogue-1.0.dist-info" / "entry_points.txt").write_text(f"[skeleton_privacy_bench.anonymizers]\n{points}\n")
    (site / "rogue.py").write_text(textwrap.dedent(PLUGINS))
    return {**ENVIRONMENT, "PYTHONPATH": f"{site}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}


@pytest.mark.slow
def test_plugins_that_misbehave_cost_their_own_pairs_and_no_others(undisturbed, tmp_path, plugins):
    everything = ",".join([*NAMES, "gauss:std=0.1"])
    limits = ("--seconds", "25", "--memory", "1500")
    done = outcome(start(tmp_path / "r", "--anonymizers", everything, *limits, environment=plugins))
    errors = {failure["anonymizer"]: failure["error"] for failure in done["failed"]}
    assert set(errors) == set(NAMES)
    for name, (_, expected) in NAMES.items():
        assert expected in errors[name], name
    assert record_bytes(tmp_path / "r") == record_bytes(undisturbed)
    nothing_half_written(tmp_path / "r")
    (log,) = (tmp_path / "r" / "failures").iterdir()
    assert 'raise RuntimeError("out of ideas")' in log.read_text()


@pytest.mark.slow
def test_a_hang_under_ray_ends_and_costs_no_other_pair(undisturbed, tmp_path, plugins):
    pytest.importorskip("ray")
    asked = ("--executor", "ray", "--anonymizers", "hangs,gauss:std=0.1", "--seconds", "25")
    done = outcome(start(tmp_path / "r", *asked, environment=plugins))
    assert {failure["anonymizer"] for failure in done["failed"]} == {"hangs"}
    assert all(failure["error"].startswith(NAMES["hangs"][1]) for failure in done["failed"])
    assert record_bytes(tmp_path / "r") == record_bytes(undisturbed)


@pytest.mark.slow
def test_a_full_disk_fails_what_it_must_and_leaves_nothing_half_written(undisturbed, tmp_path):
    def no_room():  # files of more than 60 kB cannot be written, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    run(tmp_path, Where("serial", CPU), anonymizers="identity", attackers="bones-lda", controls=False)
    full = start(tmp_path, "--executor", "serial", preexec_fn=no_room)
    done = outcome(full)
    assert done["failed"]
    assert {failure["error"].partition(":")[0] for failure in done["failed"]} == {"OSError", "SafetensorError"}
    nothing_half_written(tmp_path)
    again = outcome(start(tmp_path))
    assert (again["records"], again["failed"]) == (8, [])
    assert record_bytes(tmp_path) == record_bytes(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_at_random_moments_lose_nothing(undisturbed, tmp_path):
    chance = random.Random(7)
    results, log = tmp_path / "r", tmp_path / "log"
    expected, interrupted = record_bytes(undisturbed), 0
    for kill in range(300):  # on a quiet machine many runs end before they are killed
        if interrupted == 50:
            break
        process = start(results, environment=logged(log), start_new_session=True)
        if kill % 8:  # the others wherever they are, also before any work
            wait_for_workers(results, process)
        if kill % 4 == 2:  # random moments alone seldom meet a training between its first epoch and its last
            wait_for_a_checkpoint(results, process)
        else:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=chance.uniform(0.0, 1.5))
        if kill % 2:  # the run alone, whose workers must notice, or all of them at once
            process.kill()
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()  # until the workers have ended as well
        in_the_middle = list(results.glob("status/*.*.json"))  # of workers that were at a step, and could not remove it
        interrupted += bool(in_the_middle)
        for left in in_the_middle:
            left.unlink()
        nothing_half_written(results)
        assert record_bytes(results).items() <= expected.items()
        if record_bytes(results) == expected:  # begin again, with some of the stages
            doomed = [*results.glob("records/*"), *chance.sample(sorted(results.glob("stages/*/*/")), 12)]
            for path in doomed:
                subprocess.run(["rm", "-r", path], check=True)
    assert interrupted == 50
    assert [failure["error"] for failure in outcome(start(results, environment=logged(log)))["failed"]] == []
    assert record_bytes(results) == expected
    assert len([line for line in log.read_text().splitlines() if line.startswith("went on ")]) >= 5


def _heeds_ctrl_c():
    """Whoever starts the tests in the background may have told all processes to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_batch_systems_end_the_workers_and_the_rest_is_done_later(undisturbed, tmp_path, kind):
    asked = ("--anonymizer", "gauss:std=0.1", "--attacker", "bones-lda,shiftgcn-reid", "--threat", "semi-informed")
    how = ("--seeds", "1", "--workers", "2", "--device", "cpu", "--no-mlflow", "--results", str(tmp_path))
    command = [sys.executable, str(SCRIPT.with_name("small_bench.py")), "run", "--dataset", DATA, *asked, *how]
    process = subprocess.Popen(command, text=True, stderr=subprocess.PIPE, preexec_fn=_heeds_ctrl_c)
    wait_for_workers(tmp_path, process)
    process.send_signal(kind)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert told.splitlines()[-1] == "stopped; what was finished is kept, and the same command goes on from there"
    assert "Traceback" not in told
    for _ in range(100):
        if read_status(tmp_path / "status") == ({}, []):
            break
        time.sleep(0.1)
    assert read_status(tmp_path / "status") == ({}, [])
    if kind == signal.SIGINT:
        subprocess.run(command, check=True, capture_output=True)
        assert record_bytes(tmp_path) == record_bytes(undisturbed)
