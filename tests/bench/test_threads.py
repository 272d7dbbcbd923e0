"""One thread for sums on the CPU, in whatever process: their last bits must not depend on how many cores a machine has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from bench.executors import Where
from bench.threads import cores

ROOT = Path(__file__).resolve().parents[2]
POOLS = """
import json, sys
import numpy, torch
from threadpoolctl import threadpool_info
before = [pool["num_threads"] for pool in threadpool_info()]
from bench.executors import Recipe, Worker
Worker(Recipe((), __import__("pathlib").Path("."), "run"), torch.device("cpu"))
import scipy.linalg, sklearn.ensemble  # what a task loads later
after = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
print(json.dumps([before, after]))
"""


def test_a_worker_has_one_thread_in_every_library_also_in_those_loaded_later():
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", POOLS], env={**clean, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    before, after = json.loads(done.stdout)
    assert cores() == 1 or max(before) > 1  # or this would show nothing
    assert len(after) > len(before)
    assert set(after.values()) == {1}


def test_workers_on_gpus_share_the_cores(monkeypatch):
    monkeypatch.setattr("bench.executors.make.cores", lambda: 16)
    gpus = tuple(torch.device("cuda", i) for i in range(4))
    assert Where("local", gpus).threads == 4
    assert Where("local", gpus, workers=32).threads == 1
    assert Where("serial", gpus[:1]).threads == 16
    assert Where("local", (torch.device("cpu"),)).threads == 1
