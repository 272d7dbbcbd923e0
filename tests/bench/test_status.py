"""What runs tell of themselves: the latest, of living processes only, failures and GPUs included."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bench.executors import Where, Worker
from bench.report.running import print_running
from bench.status import Reporter, read_status
from tests.small_run import run


def change(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_status_tells_how_far_things_are_and_forgets_the_dead(tmp_path):
    worker = Reporter(tmp_path, "run")
    with worker.step("train") as report:
        report(3, 12, "loss 1")  # too soon after the first to be written
        (status,) = read_status(tmp_path)[1]
        assert (status.text, status.done, status.left) == ("train", 0, None)
        worker.write("train", status.started - 30, 3, 12, "loss 1", now=True)
        (status,) = read_status(tmp_path, "run")[1]
        assert status.left == pytest.approx(90, abs=1)
        assert 10 < status.memory_mb < 10_000
        assert read_status(tmp_path, "another") == ({}, [])
    assert len(worker.finished) == 1
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    change(next(tmp_path.iterdir()), pid=ended.pid)
    assert read_status(tmp_path) == ({}, [])
    assert not list(tmp_path.iterdir())


def test_the_last_of_several_quick_reports_is_the_one_that_stays(tmp_path):
    worker = Reporter(tmp_path, "run")
    for done in range(1, 5):
        worker.write("train", time.time(), done, 4)
    assert read_status(tmp_path)[1][0].done == 1  # the others come too soon
    for _ in range(60):
        time.sleep(0.05)
        if read_status(tmp_path)[1][0].done == 4:
            break
    assert read_status(tmp_path)[1][0].done == 4
    worker.write("train", time.time(), 3, 4)
    worker.close()
    time.sleep(0.7)
    assert read_status(tmp_path) == ({}, [])  # what was still to be told is told no more


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path):
    Reporter(tmp_path, "run", worker=False).write("bench run", time.time(), 1, 2)
    (file,) = tmp_path.iterdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as another:
        change(file, pid=another.pid, updated=time.time() + 1)
        assert list(read_status(tmp_path)[0]) == ["run"]
        change(file, updated=time.time() - 3600)  # an hour before that process began
        assert read_status(tmp_path) == ({}, [])
    assert not list(tmp_path.iterdir())


def test_a_process_that_ended_and_that_nobody_waited_for_is_dead(tmp_path):
    Reporter(tmp_path, "run", worker=False).write("bench run", time.time(), 1, 2)
    (file,) = tmp_path.iterdir()
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    ended.stdout.read()  # until it ends
    change(file, pid=ended.pid, updated=time.time() + 1)
    for _ in range(60):
        if read_status(tmp_path) == ({}, []):
            break
        time.sleep(0.05)
    assert not list(tmp_path.iterdir())
    ended.stdout.close()
    ended.wait()


def test_pairs_that_failed_are_through_as_well(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Reporter, "write", lambda self, *said, now=False: told.append(said[2:]))
    monkeypatch.setattr(Worker, "_do", lambda self, task: None)
    run(tmp_path, Where("serial", (torch.device("cpu"),)))
    assert told[0] == (0, 8, "")
    assert told[-1] == (8, 8, "8 of them failed")


def test_memory_of_gpus_is_shown_where_there_are_any(tmp_path, monkeypatch):
    def shown() -> str:
        Reporter(tmp_path, "run").write("train", time.time(), 1, 2, now=True)
        console = Console(width=200)
        with console.capture() as capture:
            print_running(tmp_path, console)
        return capture.get()

    assert "GPU" not in shown()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: [1.5e9, 2e9][device])
    assert " GB + 3.5 GB GPU" in shown()
