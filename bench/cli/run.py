"""`bench run`, `bench plan`, `bench job` and `bench status`."""

import sys
from pathlib import Path
from typing import Any

import click

from bench.cli.common import json_option, results_option
from bench.cli.options import experiment_options, make_experiment, make_where, where_options
from bench.files import UserError


@click.command()
@experiment_options
@where_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would be done, as `bench plan` does; a data set that is not prepared yet is prepared all the same.",
)
@json_option
@click.option("--mlflow/--no-mlflow", default=True, show_default=True, help="Log the run to MLflow.")
@results_option
def run(dry_run: bool, json_file: str | None, mlflow: bool, results: Path, **options: Any) -> None:
    """Train and evaluate every pair of anonymizer and attacker; print the trade-off table."""
    from bench.cli.present import present
    from bench.runner import run_plans

    experiment, where = make_experiment(options), make_where(options)
    plans = experiment.plans(results)
    if dry_run:
        _tell(plans, results, where.slots)
        return
    command = " ".join(["bench", *sys.argv[1:]])
    present(run_plans(plans, results, where, command), results, json_file=json_file, mlflow=mlflow, experiment=experiment.digest)


@click.command()
@experiment_options
@where_options
@click.option(
    "--jobs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write each pair that is missing as a file for `bench job`.",
)
@results_option
def plan(jobs: Path | None, results: Path, **options: Any) -> None:
    """Say what a run would do: stages, which of them are there, and how long the others may take.

    A data set that is not prepared yet is prepared first: what is possible depends on its labels.
    """
    from bench.forecast import write_jobs

    experiment, where = make_experiment(options), make_where(options)
    plans = experiment.plans(results)
    _tell(plans, results, where.slots)
    if jobs:
        count = write_jobs(plans, results, jobs)
        click.echo(
            f"{count} jobs in {jobs}: bench job {jobs / '0000.json'}" if count else f"no jobs in {jobs}: nothing is missing"
        )


def _tell(plans: Any, results: Path, slots: int) -> None:
    from bench.cli.present import wide_console
    from bench.forecast import forecast, print_forecast

    print_forecast(forecast(plans, results), slots, wide_console())


@click.command()
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@results_option
def job(spec: Path, device: str, results: Path) -> None:
    """Evaluate the one pair that a file of `bench plan --jobs` describes, in this process: for batch systems."""
    from bench.cli.present import tell_failures
    from bench.devices import choose_devices
    from bench.executors import Where
    from bench.experiment import Experiment
    from bench.runner import run_plans

    where = Where("serial", choose_devices(device)[:1])
    result = run_plans(Experiment.of_job(spec).plans(results), results, where, f"bench job {spec}")
    for record in result.records:
        click.echo(record.path)
    tell_failures(result)


@click.command()
@results_option
def status(results: Path) -> None:
    """Show what runs at this moment on this results folder, in whatever terminal."""
    from bench.cli.present import wide_console
    from bench.report.running import print_running

    if not results.is_dir():
        raise UserError(f"{results} is no folder; name the one of the run with --results")
    print_running(results / "status", wide_console())
