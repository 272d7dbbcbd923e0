"""Where work is done: limits that end what hangs or leaks and nothing else, and devices as Ray's machines name them."""

import dataclasses
import os
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from filelock import FileLock
from pebble import ProcessExpired

from bench.executors import Limits, Recipe, Task, Where, make_executor
from bench.executors.base import Done
from bench.executors.limits import OUT_OF_MEMORY, _free_bytes, fair_share_mb
from bench.executors.local import LocalExecutor
from bench.files import UserError
from bench.jobs import Unit
from bench.stages import StageStore
from tests.tiny import DATA, bench

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
RECIPE = Recipe((), Path("results"), "run")
TASK = Task("key", 0, Unit("normalise"))
STAGE = """
import sys, time
from pathlib import Path
from bench.stages import StageStore
from bench.time_limit import limited
with limited(1.0):
    StageStore(Path(sys.argv[1])).run("sleep", 1, {}, lambda folder: time.sleep(float(sys.argv[2])))
    time.sleep(float(sys.argv[3]))
time.sleep(1.5)  # the limit is over
"""


def stage(root: Path, inside: float, after: float) -> subprocess.Popen:
    command = [sys.executable, "-c", STAGE, str(root), str(inside), str(after)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_time_spent_waiting_for_another_run_does_not_count(tmp_path):
    key, path = StageStore(tmp_path)._address("sleep", 1, {})
    path.parent.mkdir()
    with FileLock(path.parent / f"{key}.lock"):
        waits, waits_and_hangs = stage(tmp_path, 0, 0), stage(tmp_path, 0, 60)
        time.sleep(4)
        assert (waits.poll(), waits_and_hangs.poll()) == (None, None)
    assert waits.wait(30) == 0
    assert waits_and_hangs.wait(30) == -14  # SIGALRM
    assert (path / "stage.json").is_file()


def test_a_task_that_hangs_is_ended(tmp_path):
    hangs = stage(tmp_path, 60, 0)
    begun = time.monotonic()
    assert hangs.wait(30) == -14
    assert time.monotonic() - begun < 20


def outcome(executor: LocalExecutor, error: Exception) -> str:
    def result():
        raise error

    return executor._outcome(TASK, SimpleNamespace(result=result)).error


def test_without_a_limit_each_worker_has_its_share_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10e9))
    monkeypatch.setattr("bench.executors.limits._free_bytes.__defaults__", (Path("/none"), Path("/none")))
    assert fair_share_mb(3) == pytest.approx(3000)
    expired = ProcessExpired("it ended", OUT_OF_MEMORY)
    told = outcome(LocalExecutor(RECIPE, [CPU] * 3, 1, Limits()), expired)
    assert "more than 3000 MB (--memory-limit), its share of what was free: fewer --workers" in told
    told = outcome(LocalExecutor(RECIPE, [CPU] * 3, 1, Limits(memory_mb=500)), expired)
    assert told.endswith("more than 500 MB (--memory-limit)")


class Fake:
    """A slot whose tasks end as they are told to."""

    def __init__(self, *endings):
        self.endings, self.tasks, self.begun = list(endings), 0, 0

    def submit(self, task):
        self.tasks, self.begun = self.tasks + 1, self.begun + 1
        future = Future()
        ending = self.endings.pop(0)
        if isinstance(ending, BaseException):
            future.set_exception(ending)
        else:
            future.set_result(ending)
        return future


def ended(*endings, before=0):
    """What a task ends with, if its attempts end so in a process that did `before` others; and how often it was begun."""
    executor = LocalExecutor(RECIPE, [CPU], 1, Limits(memory_mb=500))
    slot = Fake(*[Done(TASK)] * before, *endings)
    executor._free = [slot]
    for number in range(before):
        executor.submit(dataclasses.replace(TASK, key=str(number)))
        executor.wait()
    executor.submit(TASK)
    return executor.wait().error.partition(":")[0], slot.begun - before


@pytest.mark.parametrize("code", [OUT_OF_MEMORY, -9])
def test_what_earlier_tasks_left_behind_costs_no_other_task(code):
    """A plugin may keep memory and return: whoever comes next in that process is ended, and begins again in a new one."""
    full, fine = ProcessExpired("it ended", code), Done(TASK)
    what = "MemoryError" if code == OUT_OF_MEMORY else "ProcessExpired"
    assert ended(full, fine, before=2) == ("", 2)
    assert ended(full, full, fine, before=2) == (what, 2)  # once, or it would go on for ever
    assert ended(full, fine) == (what, 1)  # nobody was there before: it was the task itself
    assert ended(ProcessExpired("it ended", 3), fine, before=2) == ("ProcessExpired", 1)
    assert ended(BrokenProcessPool("it had ended before"), fine) == ("", 2)


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("not even that")


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), SilentError()])
def test_whatever_comes_back_from_a_process_ends_its_task(error):
    assert ended(error) == (type(error).__name__, 1)


def test_a_process_that_ends_while_it_has_nothing_to_do_costs_nothing(tmp_path):
    executor = LocalExecutor(dataclasses.replace(RECIPE, results=tmp_path), [CPU], 1, Limits())
    try:
        answers = []
        for _ in range(2):
            executor.submit(TASK)
            answers.append(executor.wait().error)
            for process in psutil.Process().children():
                if "multiprocessing.spawn" in " ".join(process.cmdline()):
                    process.kill()
            time.sleep(1)  # until the pool has noticed
        assert answers == ["IndexError: tuple index out of range"] * 2  # this recipe has no bench
    finally:
        executor.close()


def test_the_memory_of_a_container_counts_rather_than_the_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10e9))
    groups, own = tmp_path / "cgroup", tmp_path / "own"
    assert _free_bytes(groups, own) == 10e9
    own.write_text("0::/job/step\n")
    for name, most, used in (("job", "4000000000", 1_000_000_000), ("job/step", "max", 500_000_000)):
        (groups / name).mkdir(parents=True)
        (groups / name / "memory.max").write_text(f"{most}\n")
        (groups / name / "memory.stat").write_text(f"anon {used}\nfile 7\n")
    assert _free_bytes(groups, own) == 3e9


@pytest.mark.parametrize("limit", [("--time-limit", "60"), ("--memory-limit", "500")])
def test_a_limit_that_cannot_be_kept_is_refused(tmp_path, limit):
    what = ("--dataset", DATA, "--anonymizer", "null")
    told = bench("plan", *what, *limit, "--executor", "serial", results=tmp_path)
    assert told.exit_code == 2
    assert "--executor serial has none" in told.output
    assert len(told.output.strip().splitlines()) == 1
    assert bench("plan", *what, *limit, results=tmp_path).exit_code == 0


class Cluster:
    """As much of Ray as an executor uses; one machine with some GPUs, or none."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, monkeypatch, **resources):
        self.resources, self.made, self.asked, self.ends = resources, [], [], None
        monkeypatch.setitem(sys.modules, "ray", self)

    def init(self, **how):
        pass

    shutdown = init

    def cluster_resources(self):
        return self.resources

    def remote(self, **share):
        self.asked.append(share)
        do = SimpleNamespace(remote=lambda task: task)
        actor = SimpleNamespace(do=do)
        return lambda worker: SimpleNamespace(remote=lambda *arguments: self.made.append(arguments) or actor)

    def wait(self, running):
        return running, []

    def get(self, one):
        if self.ends:
            raise self.ends
        return one


def test_ray_chooses_the_gpu_and_an_actor_sees_no_other(monkeypatch):
    cluster = Cluster(monkeypatch, CPU=16.0, GPU=2.0)
    executor = make_executor(Where("ray", (torch.device("cuda"),)), RECIPE)  # this machine has none
    executor.submit(TASK)
    assert executor.slots == 2
    assert cluster.asked == [{"num_gpus": 1}]
    assert cluster.made[0][1:3] == (torch.device("cuda", 0), 8)  # the machine's cores are shared by its GPUs


@pytest.mark.parametrize(("gpus", "kind"), [({}, "cpu"), ({"GPU": 1.0}, "cuda")])
def test_ray_uses_gpus_by_itself_if_its_cluster_has_any(monkeypatch, gpus, kind):
    cluster = Cluster(monkeypatch, CPU=4.0, **gpus)
    executor = make_executor(Where("ray", ()), RECIPE)
    executor.submit(TASK)
    assert executor.slots == (1 if gpus else 4)
    assert cluster.made[0][1].type == kind
    on_cpu = make_executor(Where("ray", (CPU,), workers=2), RECIPE)
    on_cpu.submit(TASK)
    assert on_cpu.slots == 2
    assert cluster.made[1][1:3] == (CPU, 1)


def test_ray_without_gpus_refuses_what_asks_for_one(tmp_path, monkeypatch):
    Cluster(monkeypatch, CPU=4.0)
    with pytest.raises(UserError, match="has no GPU; use --device cpu"):
        make_executor(Where("ray", (torch.device("cuda"),)), RECIPE)
    asked = ("plan", "--dataset", DATA, "--anonymizer", "null", "--executor", "ray", "--device")
    assert "is not for Ray, which gives each worker a GPU" in bench(*asked, "cuda:1", results=tmp_path).output
    for device in ("cuda", "auto", "cpu"):  # whether the cluster has a GPU, this machine cannot know
        assert bench(*asked, device, results=tmp_path).exit_code == 0


def test_why_a_process_of_ray_ended_is_told_as_far_as_it_can_be_known(monkeypatch):
    cluster = Cluster(monkeypatch, CPU=4.0)
    cluster.ends = cluster.exceptions.RayError("a long\nstory " + "x" * 1000)

    def told(**limits) -> str:
        executor = make_executor(Where("ray", (CPU,), limits=Limits(**limits)), RECIPE)
        executor.submit(TASK)
        return executor.wait().error

    assert told(seconds=0.0).startswith("TimeoutError: it took longer than 0 s (--time-limit), or RayError: its process ended")
    assert told().startswith("RayError: its process ended: a long story xxx")
    assert len(told()) < 400
    assert "perhaps because it used more than 500 MB (--memory-limit)" in told(memory_mb=500.0)
