"""Where the time of a finished grid went, and what sharing stages saved: `python -m benchmarks.grid RESULTS [--dataset NAME]`.

"One by one" is what the same pairs would have cost if each had been evaluated in an empty folder: the sum, over all records, of
the time of every stage that the record rests on. "Together" is the time of the stages that these records share, each counted
once. With `--overhead` a small grid is run in this process as well, and the time that was spent on anything but stages is
compared with the time of the stages.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch

from bench.executors import Where
from bench.experiment import Experiment
from bench.inventory import Inventory
from bench.runner import run_plans

_WHO = ("attacker", "anonymizer", "inverter")


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
    one_by_one = sum(record.manifest()["seconds"] for record in found.records)
    print(
        f"{len(found.records)} pairs together {together:.0f} s, one by one {one_by_one:.0f} s: {one_by_one / together:.1f} times"
    )
    memory = max(record.manifest()["peak_memory_mb"] for record in found.records)
    print(f"largest process {memory:.0f} MB")


def overhead() -> None:
    """Prints the share of a run that is not spent in stages."""
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        data = "synthetic:people=4,motions=3,cameras=1"
        plans = Experiment(data, anonymizer="identity,null,gauss,mean-skeleton", attacker="bones-lda,gait-dyn").plans(results)
        started = time.perf_counter()
        run_plans(plans, results, Where("serial", (torch.device("cpu"),)))
        whole = time.perf_counter() - started
        stages = sum(stage.state["seconds"] for stage in Inventory(results).stages.values())
        started = time.perf_counter()
        run_plans(plans, results, Where("serial", (torch.device("cpu"),)))
        again = time.perf_counter() - started
        pairs = len(plans[0].jobs)
        print(f"{pairs} pairs: {whole:.1f} s, {stages:.1f} s of them in stages: overhead {(whole - stages) / stages:.1%}")
        print(f"the same pairs again: {again:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--dataset")
    parser.add_argument("--overhead", action="store_true")
    asked = parser.parse_args()
    where_it_went(asked.results, asked.dataset)
    if asked.overhead:
        overhead()
