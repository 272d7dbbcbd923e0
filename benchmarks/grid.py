"""What a grid costs: `python -m benchmarks.grid [RESULTS] [--overhead] [--one-by-one]`.

RESULTS: where the time of a finished grid went. Its "one by one" is a sum: of the time of every stage that each record rests on.

`--overhead`: for each executor its start-up, until every worker has answered once, and what a task costs beside its work, over
many tasks whose stage is there already, medians of several; then, of one small grid, the part of the workers' time that was
spent neither in stages and records nor in starting up: scheduling, and workers that wait since too little is left to do.

`--one-by-one`: every pair of a small grid is really evaluated from scratch, each in an empty folder, and the same pairs together;
both in this process, one after the other. The records must be equal.
"""

import argparse
import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from bench.audit import experiment_of
from bench.executors import EXECUTORS, Recipe, Task, Where, make_executor
from bench.experiment import Experiment
from bench.forecast import forecast
from bench.inventory import Inventory
from bench.plan import Plan
from bench.runner import Result, run_plans
from bench.stages import FinishedStages, MissingStageError

_WHO = ("attacker", "anonymizer", "inverter")
_CPU = (torch.device("cpu"),)
_TASKS = 200  # with nothing to do, one after the other
SMALL = Experiment(
    "synthetic:people=4,motions=3,cameras=1", anonymizer="gauss,mean-skeleton", attacker="bones-lda,gait-dyn", controls=False
)


def where_it_went(results: Path, dataset: str | None) -> None:
    """Prints the time of each kind of stage, and the two sums."""
    found = Inventory(results)
    found.records = [record for record in found.records if dataset in (None, record.data["dataset"])]
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key in found.needed():
        state = found.stages[key].state
        who = next((state["inputs"][name]["name"] for name in _WHO if name in state["inputs"]), "action classifier")
        seconds[state["name"], who].append(state["seconds"])
    together = sum(map(sum, seconds.values()))
    for (kind, who), times in sorted(seconds.items(), key=lambda one: -sum(one[1])):
        if sum(times) > 0.005 * together:
            print(f"{kind:10} {who:20} {len(times):5} times {sum(times):9.1f} s {sum(times) / together:7.1%}")
    apart = sum(record.manifest()["seconds"] for record in found.records)
    told = f"{len(found.records)} pairs together {together:.0f} s, the stages of each summed {apart:.0f} s"
    print(f"{told}: {apart / together:.1f} times")
    memory = max(record.manifest()["peak_memory_mb"] for record in found.records)
    print(f"largest process {memory:.0f} MB")


def overhead(grid: Experiment, executors: Sequence[str], repeats: int) -> None:
    """Prints what each executor costs beside the work: by itself, then in a small grid."""
    _whole_grid(dataclasses.replace(grid, anonymizer="null"), Where("serial", _CPU))  # not measured: imports and caches
    for name in executors:
        where = Where(name, _CPU)
        start_up, task = map(median, zip(*(_executor_alone(grid, where) for _ in range(repeats)), strict=True))
        print(f"{name:6} start-up {start_up:.2f} s, {task * 1000:.1f} ms a task, medians of {repeats}", flush=True)
        whole, work, again = _whole_grid(grid, where)
        beside = 1 - (work / where.slots + start_up) / whole
        told = f"a grid of {whole:.1f} s on {where.slots}, {work:.1f} s of work, {beside:.1%} beside work and start-up"
        print(f"{name:6} {told}; again {again:.2f} s", flush=True)


def _executor_alone(grid: Experiment, where: Where) -> tuple[float, float]:
    """Seconds until every worker of an executor has answered, and of each task after that, with a stage that is there."""
    with tempfile.TemporaryDirectory() as folder:
        plan = grid.plans(Path(folder))[0]
        recipe = Recipe(((plan.store, plan.protocol, plan.preset),), Path(folder).resolve(), "overhead")
        try:
            recipe.bench(0, FinishedStages, _CPU[0], step=None).prepare(plan.jobs[0])
        except MissingStageError as missing:
            task = next(Task(key, 0, unit) for key, unit in missing.stages.items())
        made = make_executor(Where("serial", _CPU), recipe)
        made.submit(task)
        assert not made.wait().error
        with _timed() as start_up:
            executor = make_executor(where, recipe)
            for _ in range(executor.slots):
                executor.submit(task)
            for _ in range(executor.slots):
                assert not executor.wait().error
        try:
            with _timed() as tasks:
                for sent in range(_TASKS + executor.slots):
                    if sent >= executor.slots:
                        assert not executor.wait().error
                    if sent < _TASKS:
                        executor.submit(task)
        finally:
            executor.close()
    return start_up[0], tasks[0] / _TASKS


def _whole_grid(grid: Experiment, where: Where) -> tuple[float, float, float]:
    """Seconds of a grid from scratch, of its stages and records, and of the grid when all of it is there."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        plans = grid.plans(results)
        kinds = {step.kind for step in forecast(plans, results).steps}
        with _timed() as whole:
            _run(plans, results, where)
        found = Inventory(results)
        states = [stage.state for stage in found.stages.values()]
        work = sum(state["seconds"] for state in states if state["name"] in kinds)  # the others are made with their record
        work += sum(record.manifest()["record_seconds"] for record in found.records)
        with _timed() as again:
            _run(plans, results, where)
    return whole[0], work, again[0]


def one_by_one(grid: Experiment) -> None:
    """Prints what the pairs of a grid cost together, and each in an empty folder.

    Raises:
        AssertionError: if a record is not the same both ways.
    """
    where = Where("serial", _CPU)
    _whole_grid(dataclasses.replace(grid, anonymizer="null"), where)  # not measured: whoever is first imports what all need
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        with _timed() as together:
            found = _run(grid.plans(results), results, where).records
        apart = 0.0
        for record in found:
            with tempfile.TemporaryDirectory() as empty:
                with _timed() as alone:
                    (again,) = _run(experiment_of(record).plans(Path(empty)), Path(empty), where).records
                assert again.path.read_bytes() == record.path.read_bytes(), record.path
            apart += alone[0]
    told = f"{len(found)} pairs together {together[0]:.1f} s, one by one {apart:.1f} s: {apart / together[0]:.1f} times"
    print(f"{told}; all records are equal")


def _run(plans: Sequence[Plan], results: Path, where: Where) -> Result:
    result = run_plans(plans, results, where)
    assert not result.failed, result.failed
    return result


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Yields a list that holds the seconds that the block took, at its end."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--dataset", help="of RESULTS: only this one; of a small grid: another one")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--one-by-one", action="store_true")
    parser.add_argument("--executors", default=",".join(EXECUTORS), help="whose overhead")
    parser.add_argument("--repeats", type=int, default=3, help="how often start-up is measured")
    for name in ("anonymizer", "attacker", "threat", "preset"):
        parser.add_argument(f"--{name}", default=getattr(SMALL, name), help="of the small grid")
    asked = parser.parse_args(arguments)
    if not (asked.results or asked.overhead or asked.one_by_one):
        parser.error("name RESULTS, --overhead or --one-by-one")
    dataset = SMALL.dataset if asked.dataset is None or asked.results else asked.dataset
    named = {name: getattr(asked, name) for name in ("anonymizer", "attacker", "threat", "preset")}
    grid = dataclasses.replace(SMALL, dataset=dataset, **named)
    if asked.results:
        where_it_went(asked.results, asked.dataset)
    if asked.overhead:
        overhead(grid, asked.executors.split(","), asked.repeats)
    if asked.one_by_one:
        one_by_one(grid)


if __name__ == "__main__":
    main()
