"""What a run would do, without doing it: its stages, which of them are there, and how long the others may take."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.experiment import Experiment
from bench.files import UserError, digest, read_json, write_json
from bench.jobs import Job
from bench.pipeline import Bench
from bench.plan import Plan
from bench.records import read_record, record_path
from bench.report.running import duration
from bench.stages import Output, StageStore

_WHO = ("anonymizer", "attacker", "utility", "inverter")
_HOW = ("backbone", "training", "budget")
_RECORD = "record"


@dataclass(frozen=True)
class Step:
    """A stage, or a record, that a run needs.

    Args:
        kind: Name of the stage; "record" for predictions and record of a pair.
        plugin: Whose work it is; "" for nobody's.
        how: Digest of that plugin with its parameters and budget.
        there: Whether it is there already.
    """

    kind: str
    plugin: str
    how: str
    there: bool


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Args:
        steps: Every step once, in the order in which they are first needed.
        past: Seconds of past steps, by kind, plugin and digest, and by kind and plugin alone.
        broken: Pairs that will fail before anything is computed, and why.
    """

    steps: tuple[Step, ...]
    past: Mapping[tuple[str, ...], float]
    broken: tuple[str, ...] = ()

    def seconds(self, step: Step) -> float | None:
        """What it may take on one worker; None if nothing like it was done here."""
        return self.past.get((step.kind, step.plugin, step.how), self.past.get((step.kind, step.plugin)))


class ImaginedStages(StageStore):
    """Goes through a graph of stages without computing: a stage that is not there is imagined, with a content of its own.

    So of clips that turn out to equal others, more is counted than will be done; only what `identity` releases is known before.
    """

    def __init__(self, root: Path):
        super().__init__(root)
        self.steps: dict[str, Step] = {}

    def run(
        self, name: str, version: int, inputs: Mapping[str, Any], compute: Callable[[Path], Mapping[str, Any] | None]
    ) -> Output:
        key, path = self._address(name, version, inputs)
        done = self._read(path, key)
        self.steps.setdefault(key, Step(name, *_who(inputs), there=done is not None))
        if done is not None:
            return done
        unchanged = name == "release" and inputs["anonymizer"]["name"] == "identity"
        return Output(path, key, f"imagined {key}", {"rows": inputs["clips"] if unchanged else f"imagined {key}"}, 0.0, 0.0)


def _who(inputs: Mapping[str, Any]) -> tuple[str, str]:
    """The plugin whose work a stage is, and a digest of it with its parameters and budget."""
    plugin = next((inputs[who]["name"] for who in _WHO if isinstance(inputs.get(who), Mapping)), "")
    return plugin, digest({name: inputs[name] for name in (*_WHO, *_HOW) if name in inputs})


def forecast(plans: Sequence[Plan], results: Path) -> Forecast:
    """Goes through all jobs of some plans.

    Args:
        plans: What a run would be asked for.
        results: Its results folder.
    """
    stages = ImaginedStages(results / "stages")
    records: dict[str, Step] = {}
    broken = []
    for job, bench in _jobs(plans, stages):
        try:
            path = record_path(results / "records", bench, job)
            there = read_record(path) is not None
            if not there:  # what a finished record rests on is needed no more
                bench.prepare(job)
        except Exception as error:  # whatever a plugin raises must not hide what is known of the others
            broken.append(f"{job}: {' '.join(f'{type(error).__name__}: {error}'.split())}")
        else:
            records[path.stem] = Step(_RECORD, job.attacker.plugin.name, "", there)
    return Forecast((*stages.steps.values(), *records.values()), _past(results), tuple(broken))


def _jobs(plans: Sequence[Plan], stages: StageStore) -> Iterator[tuple[Job, Bench]]:
    for plan in plans:
        bench = Bench(plan.store, plan.protocol, plan.preset, stages, torch.device("cpu"), step=None)
        for job in plan.jobs:
            yield job, bench


def _past(results: Path) -> dict[tuple[str, ...], float]:
    """Median seconds of what was done on this results folder."""
    found = defaultdict(list)
    damaged = ValueError, KeyError, TypeError, AttributeError  # they tell nothing; a run replaces them
    for path in (results / "stages").glob("*/[!.]*/stage.json"):
        with suppress(*damaged):
            state = read_json(path)
            name, seconds, (plugin, how) = state["name"], state["seconds"], _who(state["inputs"])
            found[name, plugin].append(seconds)
            found[name, plugin, how].append(seconds)
    for path in (results / "records").rglob("*.manifest.json"):
        with suppress(*damaged):
            found[_RECORD, path.parent.name].append(read_json(path).get("record_seconds", 0.0))
    return {key: median(seconds) for key, seconds in found.items()}


def print_forecast(found: Forecast, slots: int, console: Console) -> None:
    """Prints the stages by kind and plugin, and the time in all.

    Args:
        found: What a run would do.
        slots: Tasks at a time.
        console: Where to print.
    """
    table = Table("stage", "of", "in all", "there", "to do", "time for these", box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    kinds: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in found.steps:
        kinds[step.kind, step.plugin].append(step)
    total, unknown = 0.0, 0
    for (kind, plugin), steps in kinds.items():
        missing = [found.seconds(step) for step in steps if not step.there]
        known = [seconds for seconds in missing if seconds is not None]
        total, unknown = total + sum(known), unknown + len(missing) - len(known)
        time = duration(sum(known)) if known else "unknown" if missing else ""
        table.add_row(kind, plugin, *map(str, (len(steps), len(steps) - len(missing), len(missing))), time)
    console.print(table)
    for line in found.broken:
        console.print(f"will fail: {line}", highlight=False, markup=False, soft_wrap=True)
    pairs = [step for step in found.steps if step.kind == _RECORD]
    done = sum(step.there for step in pairs)
    time = f"{'at least' if unknown else 'about'} {duration(total / slots)} on {slots} workers, going by the past here"
    time += f", and {unknown} stages of which nothing is known" if unknown else ""
    if unknown and not total:
        time = f"how long {unknown} stages take is not known: nothing like them was made in this folder yet"
    console.print(f"{len(pairs)} pairs, {done} of them there; {time}", highlight=False, soft_wrap=True)


def write_jobs(plans: Sequence[Plan], results: Path, folder: Path) -> int:
    """Writes each pair that is missing as a file for `bench job`: `0000.json`, `0001.json`, ... Returns how many.

    Jobs of an earlier call are replaced, also where there were more; other files in the folder are left alone.

    Args:
        plans: What a run would be asked for.
        results: Its results folder.
        folder: Where to write.
    """
    for stale in folder.glob("*.json"):
        if re.fullmatch(r"\d{4,}", stale.stem):
            with suppress(UserError):  # no job
                Experiment.of_job(stale)
                stale.unlink()
    count = 0
    for job, bench in _jobs(plans, ImaginedStages(results / "stages")):
        try:
            there = read_record(record_path(results / "records", bench, job)) is not None
        except Exception:  # of a plugin: its job will tell
            there = False
        if not there:
            one = Experiment(
                dataset=bench.dataset,
                protocol=bench.protocol.name,
                anonymizer=str(job.anonymizer),
                attacker=str(job.attacker),
                threat=job.threat.name,
                preset=bench.preset.name,
                seeds=(job.seed,),
                controls=False,
            )
            write_json(folder / f"{count:04d}.json", asdict(one))
            count += 1
    return count
