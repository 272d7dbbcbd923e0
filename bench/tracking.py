"""Records into MLflow: a view that can be deleted and rebuilt. One process, the parent, writes it.

A parent run per invocation holds the trade-off table and the figure; a child run per pair and seed holds parameters, metrics with
intervals, curves and the data it used.
"""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.grid import Grid
from bench.measured import Measured, measure
from bench.report.pareto import pareto_figure

_CURVES = ("train_loss", "validation_loss", "validation_accuracy", "lr")
_PARAMS = ("dataset", "protocol", "preset", "anonymizer", "attacker", "target", "threat", "provider")
_BATCH = 1000  # the most metrics that the store takes at once
_METRICS = ("leakage", "leakage_normalised", "top1", "top5", "action_raw", "action_retrained", "utility_retention")


def tracking_uri(results: Path) -> str:
    return f"sqlite:///{(results / 'mlflow.db').resolve()}"


def open_mlflow(results: Path) -> Any:
    """The mlflow module, with its store in the results folder and telemetry off."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    results.mkdir(parents=True, exist_ok=True)
    import mlflow

    for name in ("alembic", "mlflow.store.db.utils"):  # the making of a new database is no news to the user
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(tracking_uri(results))
    return mlflow


def log_run(measured: Sequence[Measured], results: Path, command: str) -> str:
    """Logs one invocation: a parent run a table, a child run a record.

    Returns:
        Id of the last parent run.
    """
    import pandas as pd

    mlflow = open_mlflow(results)
    parent_id = ""
    for group in dict.fromkeys(m.group for m in measured):
        rows = [m for m in measured if m.group == group]
        dataset, data, protocol, preset, _ = group
        experiment = f"{dataset}, {protocol.replace('/', ' v')}, {preset}"  # MLflow reads a slash as a level of its own
        found = mlflow.get_experiment_by_name(experiment)
        identifier = (
            found.experiment_id
            if found
            else mlflow.create_experiment(experiment, (results / "mlflow-artifacts").resolve().as_uri())
        )
        source = mlflow.data.from_pandas(_labels(rows), name=dataset, digest=data)
        with mlflow.start_run(experiment_id=identifier, run_name="trade-off") as parent:
            parent_id = parent.info.run_id
            mlflow.set_tags({"command": command, "kind": "trade-off"})
            mlflow.log_params({"dataset": dataset, "data": data, "protocol": protocol, "preset": preset})
            mlflow.log_input(source, context="test")
            grid = Grid.of(rows)
            mlflow.set_tag("failed controls", "; ".join(grid.failed_controls) or "none")
            mlflow.log_metrics(_summary(grid))
            table = pd.DataFrame([{**m.row(), "flags": " ".join(m.flags), "record": " ".join(m.row()["record"])} for m in rows])
            mlflow.log_table(table, "trade-off.json")
            mlflow.log_figure(pareto_figure(grid, experiment), "pareto.png")
        for m in rows:
            for record in m.records:
                single = m if len(m.records) == 1 else replace(measure([record]), flags=m.flags)
                _log_record(mlflow, identifier, parent_id, single, source)
    return parent_id


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


def _log_record(mlflow: Any, experiment: str, parent: str, measured: Measured, source: Any) -> None:
    from mlflow.entities import Metric

    record = measured.records[0]
    data, manifest, row = record.data, record.manifest(), measured.row()
    names = data["names"]
    params = {name: row[name] for name in _PARAMS}
    params |= {"seed": data["seed"], "record": data["key"], "data": data["data"]}
    values = {f"{name}{end}": row.get(f"{name}{end}") for name in _METRICS for end in ("", "_low", "_high")}
    values |= {"chance": data["chance"], "prior": data["prior"]}
    values |= {name: manifest[name] for name in ("seconds", "peak_memory_mb")}
    curves = {name: curve for name, curve in data["training"].get("curves", {}).items() if name in _CURVES}
    with mlflow.start_run(
        experiment_id=experiment,
        run_name=f"{names['anonymizer']} x {names['attacker']}, {data['threat']}, seed {data['seed']}",
        parent_run_id=parent,
        nested=True,
        tags={"kind": "record", "record": data["key"], "flags": " ".join(measured.flags), "commit": manifest["commit"]},
    ) as run:
        mlflow.log_params(params)
        mlflow.log_metrics({name: value for name, value in values.items() if value is not None})
        mlflow.log_input(source, context="test")
        points = [
            Metric(f"attacker_{name}", value, run.info.start_time, epoch)
            for name, curve in curves.items()
            for epoch, value in enumerate(curve)
        ]
        for start in range(0, len(points), _BATCH):
            mlflow.MlflowClient().log_batch(run.info.run_id, metrics=points[start : start + _BATCH])
