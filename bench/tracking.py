"""Records into MLflow: a view that can be deleted and rebuilt. One process, the parent, writes it.

A run of kind "trade-off" for each invocation and table holds the table and the figure; one of kind "record" for each record,
below the first invocation that gave it, holds parameters, metrics with intervals, curves and the data it used. Whatever is there
already is not written again. A run gets its tag "of" last: one that lacks it was cut off, and is removed and written anew.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.files import UserError
from bench.grid import Grid
from bench.measured import Measured
from bench.records import Record, records
from bench.remembered import measured_or_remembered
from bench.report.pareto import pareto_figure
from bench.runlog import RunLog, run_logs
from bench.summary import measure_all

_CURVES = ("train_loss", "validation_loss", "validation_accuracy", "lr")
_PARAMS = ("dataset", "protocol", "preset", "anonymizer", "attacker", "target", "threat", "provider")
_BATCH = 1000  # the most metrics, parameters and tags that the store takes at once
_KINDS = ("trade-off", "record")
_PARENT = "mlflow.parentRunId"
_METRICS = ("leakage", "leakage_normalised", "top1", "top5", "action_raw", "action_retrained", "utility_retention")
# A server that is gone is noticed in seconds, rather than tried again for minutes; telemetry is off.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, or a database in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(results / 'mlflow.db').resolve()}"


def open_mlflow(results: Path) -> Any:
    """A client of MLflow's store, with telemetry off."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    results.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils"):  # the making of a new database is no news to the user
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri(results))  # not `set_tracking_uri`: it would hold for every other folder and process too


def sync(results: Path, logs: Iterable[RunLog] | None = None) -> int:
    """Writes what MLflow lacks of some invocations; of all, and of records of no invocation, if none are given.

    Returns:
        Number of runs that were written.
    """
    found = {record.data["key"]: record for record in records(results / "records")}
    results.mkdir(parents=True, exist_ok=True)
    with FileLock(results / "mlflow.lock"):  # two at a time would each write what both find missing
        store = _Store(results)
        for log in run_logs(results) if logs is None else logs:
            of_run = [found[key] for key in log.records if key in found]
            if of_run:
                store.write(of_run, log)
        if logs is None:
            store.write(list(found.values()), None)
    return store.written


@dataclass(frozen=True)
class _There:
    """A run that MLflow holds: its id, and that of the run above it or ""."""

    run: str
    parent: str


class _Store:
    """MLflow's store of a results folder."""

    def __init__(self, results: Path):
        self._results = results
        self._client = open_mlflow(results)
        self._local = tracking_uri(results).startswith("sqlite")
        self._writer = f"{socket.gethostname()}:{results.resolve()}"
        self._there: dict[str, dict[str, _There]] = {}  # by what they are of, by experiment
        self.written = 0

    def write(self, of_run: Sequence[Record], log: RunLog | None) -> None:
        """Writes the tables of an invocation, if there is one, and its records."""
        from mlflow.data.pandas_dataset import from_pandas

        measured = measure_all(of_run, self._results)
        for group in dict.fromkeys(m.group for m in measured):
            rows = [m for m in measured if m.group == group]
            experiment = self._experiment(group)
            source = from_pandas(_labels(rows), name=group.dataset, digest=group.data)
            there = self._there.setdefault(experiment, {})
            parent = ""
            if log:
                name = f"{log.name} {group.version}"
                if name not in there:
                    there[name] = _There(self._write_table(experiment, rows, log, name, source), "")
                    self.written += 1
                parent = there[name].run
            for m in rows:
                for record in m.records:
                    key = record.data["key"]
                    if key not in there:
                        there[key] = _There(self._write_record(experiment, parent, self._alone(m, record), source), parent)
                        self.written += 1
                    elif parent and not there[key].parent:  # it was written before any invocation was known to give it
                        self._client.set_tag(there[key].run, _PARENT, parent)
                        there[key] = _There(there[key].run, parent)

    def _alone(self, measured: Measured, record: Record) -> Measured:
        """One seed of a row, by itself."""
        if len(measured.records) == 1:
            return measured
        return replace(measured_or_remembered([record], self._results), flags=measured.flags)

    def _experiment(self, group: Any) -> str:
        """Id of a table's experiment; what is there is looked up once, and what a killed process left unfinished is removed."""
        name = f"{group.dataset}, {group.protocol.replace('/', ' v')}, {group.preset}"  # a slash would be a level of its own
        found = self._client.get_experiment_by_name(name)
        if found:
            identifier = found.experiment_id
        else:
            where = (self._results / "mlflow-artifacts").resolve().as_uri() if self._local else None
            identifier = self._client.create_experiment(name, where)
        if identifier not in self._there:
            there = self._there[identifier] = {}
            for run in list(_all_runs(self._client, identifier)):
                tags = run.data.tags
                if "of" in tags:
                    there[tags["of"]] = _There(run.info.run_id, tags.get(_PARENT, ""))
                elif tags.get("kind") in _KINDS and (self._local or tags.get("writer") == self._writer):
                    self._client.delete_run(run.info.run_id)  # ours alone: on a server others may be at work
        return identifier

    def _write_table(self, experiment: str, rows: Sequence[Measured], log: RunLog, name: str, source: Any) -> str:
        import pandas as pd

        grid, group, now = Grid.of(rows), rows[0].group, int(time.time() * 1000)
        tags = {
            "command": log.command,
            "experiment": log.experiment,
            "failed controls": "; ".join(grid.failed_controls) or "none",
        }
        run = self._create(experiment, "trade-off", now, _KINDS[0], tags, source)
        table = pd.DataFrame([{**m.row(), "flags": " ".join(m.flags), "record": " ".join(m.row()["record"])} for m in rows])
        self._client.log_table(run, table, "trade-off.json")
        self._client.log_figure(run, pareto_figure(grid, str(group)), "pareto.png")
        params = {"dataset": group.dataset, "data": group.data, "protocol": group.protocol, "preset": group.preset}
        self._finish(run, now, name, params, [(metric, 0, value) for metric, value in _summary(grid).items()])
        return run

    def _write_record(self, experiment: str, parent: str, measured: Measured, source: Any) -> str:
        record = measured.records[0]
        data, row = record.data, measured.row()
        try:
            manifest = record.manifest()
        except UserError:  # missing or damaged: only how it was made is not known
            manifest = {}
        names, now = data["names"], int(time.time() * 1000)
        tags = {"record": data["key"], "flags": " ".join(measured.flags), "commit": manifest.get("commit", "")}
        tags |= {_PARENT: parent} if parent else {}
        name = f"{names['anonymizer']} x {names['attacker']}, {data['threat']}, seed {data['seed']}"
        run = self._create(experiment, name, now, _KINDS[1], tags, source)
        params = {name: row[name] for name in _PARAMS} | {"seed": data["seed"], "record": data["key"], "data": data["data"]}
        metrics = [(name, 0, value) for name, value in _values(data, manifest, row).items()]
        metrics += [(f"attacker_{name}", epoch, value) for name, epoch, value in _curves(data["training"])]
        self._finish(run, now, data["key"], params, metrics)
        return run

    def _create(self, experiment: str, name: str, now: int, kind: str, tags: Mapping[str, str], source: Any) -> str:
        """A new run with its data; it counts as cut off until it is finished."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = {**tags, "kind": kind, "writer": self._writer}
        run = self._client.create_run(experiment, start_time=now, tags=tags, run_name=name).info.run_id
        self._client.log_inputs(run, [DatasetInput(Dataset(**source.to_dict()), [InputTag("mlflow.data.context", "test")])])
        return run

    def _finish(self, run: str, now: int, of: str, params: Mapping[str, Any], values: Sequence[tuple[str, int, float]]) -> None:
        """Ends a run and writes all else in as few batches as the store takes, what it is of in the last one.

        Args:
            values: Name, step and value of each metric.
        """
        from mlflow.entities import Metric, Param, RunTag

        self._client.set_terminated(run)
        metrics = [Metric(name, value, now, step) for name, step, value in values]
        last = [Param(name, str(value)) for name, value in params.items()], [RunTag("of", of)]
        room = _BATCH - sum(map(len, last))
        while len(metrics) > room:
            self._client.log_batch(run, metrics[:_BATCH])
            metrics = metrics[_BATCH:]
        self._client.log_batch(run, metrics, *last)


def _all_runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _values(data: Mapping[str, Any], manifest: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, float]:
    values = {f"{name}{end}": row.get(f"{name}{end}") for name in _METRICS for end in ("", "_low", "_high")}
    values |= {"chance": data["chance"], "prior": data["prior"]}
    values |= {name: manifest.get(name) for name in ("seconds", "peak_memory_mb")}
    return {name: value for name, value in values.items() if value is not None}


def _curves(training: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    for name, curve in training.get("curves", {}).items():
        if name in _CURVES:
            yield from ((name, epoch, value) for epoch, value in enumerate(curve))


def _summary(grid: Grid) -> dict[str, float]:
    """The points of the Pareto figure, by anonymizer, and the hypervolume."""
    values = {"hypervolume": grid.hypervolume.value} if grid.hypervolume else {}
    for point in grid.points:
        name = point.anonymizer.replace("=", " ").replace(",", " ")
        values[f"worst leakage/{name}"] = point.leakage.value
        values[f"utility retention/{name}"] = point.utility.value
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _labels(rows: Sequence[Measured]) -> Any:
    """The test clips and their labels: what the runs were measured on; coordinates stay where they are."""
    import pandas as pd

    arrays = rows[0].records[0].predictions()
    columns = {"clip": arrays["action_clip"], "action": arrays["action_label"], "subject": arrays["action_subject"]}
    return pd.DataFrame(columns).astype(str)
