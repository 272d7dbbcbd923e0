"""Shows what a run measured: table, files, figure, MLflow, and an exit status that tells whether all of it ended well."""

import sys
from pathlib import Path

import click
from rich.console import Console

from bench.grid import Grid
from bench.report.pareto import pareto_figure, save_figure
from bench.report.table import print_tables, write_csv, write_json_document
from bench.runlog import make_log
from bench.runner import Result
from bench.submission.states import noted_flags
from bench.summary import measure_all

_LONG = 200  # characters of an error message


def present(result: Result, results: Path, *, json_file: str | None, mlflow: bool, experiment: str) -> None:
    """Prints the table and writes `table.csv`, `pareto.png`, the JSON file and the MLflow runs.

    Args:
        experiment: Digest of what was asked for.

    Raises:
        click.exceptions.Exit: with status 1 if a pair failed.
    """
    command = " ".join(["bench", *sys.argv[1:]])
    log = make_log(result.name, command, experiment, tuple(key for r in result.records for key in r.keys), len(result.failed))
    log.write(results)
    measured = measure_all(result.records, results / "measured", noted_flags(results))
    if measured:
        print_tables(measured, wide_console(stderr=json_file == "-"))
        write_csv(measured, results / "table.csv")
        figure = save_figure(pareto_figure(Grid.of(measured), str(measured[0].group)), results / "pareto.png")
        click.echo(f"table: {results / 'table.csv'}   Pareto figure: {figure}", err=True)
    if json_file and (text := write_json_document(measured, result.failed, json_file)):
        click.echo(text)
    click.echo(f"{result.computed} of {len(result.records)} records computed now, the others were already there", err=True)
    if measured and mlflow:
        from bench.tracking import sync

        try:
            sync(results, [log])
            click.echo("MLflow: run `bench ui` to see the runs", err=True)
        except Exception as error:  # MLflow is a view: the records are written, and the run ended well without it
            told = f"{type(error).__name__}: {error}"
            told = told if len(told) < _LONG else f"{told[:_LONG]}..."
            click.echo(f"MLflow could not be written ({told})", err=True)
            click.echo("the records are not affected; `bench mlflow sync` writes what is missing", err=True)
    tell_failures(result)


def tell_failures(result: Result) -> None:
    """Names what failed and why.

    Raises:
        click.exceptions.Exit: with status 1 if something did.
    """
    if result.failed:
        for failure in result.failed:
            pair = f"{failure['anonymizer']} x {failure['attacker']}, {failure['threat']}, seed {failure['seed']}"
            click.echo(f"FAILED {pair}: {failure['error']}", err=True)
        click.echo(
            f"{len(result.failed)} of {len(result.failed) + len(result.records)} pairs failed; run again to retry them", err=True
        )
        if result.log:
            click.echo(f"where each of them went wrong: {result.log}", err=True)
        raise click.exceptions.Exit(1)


def wide_console(*, stderr: bool = False) -> Console:
    """A console that does not fold the table when its output goes to a file or a pipe."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=10_000)
