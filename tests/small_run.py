"""A run of seconds, for tests that need whole processes: `python tests/small_run.py RESULTS [--executor NAME] ...`.

Prints one line of JSON: how many records were computed now, and what failed. Its processes write a checkpoint after every epoch,
and append to the file that SMALL_RUN_LOG names a line for each stage that they finish, and for each training that goes on.
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path

import torch

from bench import checkpoint, stages
from bench.checkpoint import Checkpoint
from bench.executors import Limits, Where
from bench.plan import make_plan
from bench.presets import PRESETS
from bench.runner import Result, run_plans

DATA = "synthetic:people=4,motions=3,cameras=1"


def tiny_preset():
    quick = PRESETS["quick"]
    budget = {"width": 0.1, "frames": 8, "epochs": 2, "most_steps": 6, "least_steps": 0, "batch": 8}
    return dataclasses.replace(
        quick, **{name: dataclasses.replace(getattr(quick, name), **budget) for name in ("attack", "utility")}
    )


def run(results: Path, where: Where, anonymizers="gauss:std=0.1", attackers="bones-lda,shiftgcn-reid", **how) -> Result:
    plan = make_plan(
        dataset=DATA,
        protocol=None,
        anonymizers=anonymizers,
        attackers=attackers,
        threats=how.pop("threats", "semi-informed"),
        preset=tiny_preset(),
        seeds=(0,),
        results=results,
        **how,
    )
    return run_plans([plan], results, where, "a test")


def log_to(path: str) -> None:
    """Has this process write down what it finishes, and where it goes on."""

    def tell(text):
        with open(path, "a") as file:
            file.write(f"{text}\n")

    def finishes(temporary, path, put_in_place=stages.put_in_place):
        tell(f"finished {path.name}")
        put_in_place(temporary, path)

    def restores(self, *arguments, restore=Checkpoint.restore):
        found = restore(self, *arguments)
        if found is not None:
            tell(f"went on {self.path}")
        return found

    stages.put_in_place, Checkpoint.restore = finishes, restores


if __name__ in ("__main__", "__mp_main__"):  # and in its workers, which read this file again
    checkpoint.EVERY = -1.0
    if "SMALL_RUN_LOG" in os.environ:
        log_to(os.environ["SMALL_RUN_LOG"])

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--executor", default="local")
    parser.add_argument("--anonymizers", default="gauss:std=0.1")
    parser.add_argument("--attackers", default="bones-lda,shiftgcn-reid")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--memory", type=float)
    asked = parser.parse_args()
    limits = Limits(asked.seconds, asked.memory)
    where = Where(asked.executor, (torch.device("cpu"),), workers=2, limits=limits)
    result = run(asked.results, where, asked.anonymizers, asked.attackers)
    print(json.dumps({"computed": result.computed, "records": len(result.records), "failed": result.failed}))
