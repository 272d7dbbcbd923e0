"""Shows what a run measured: table, files, figure, MLflow, and an exit status that tells whether all of it ended well."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from bench.grid import Grid
from bench.occupied import looking
from bench.report.pareto import pareto_figure, save_figure
from bench.report.table import print_tables, write_csv, write_json_document
from bench.runlog import make_log
from bench.runner import Result
from bench.summary import measure_all

_LONG = 200  # characters of an error message


def present(result: Result, results: Path, *, json_file: str | None, mlflow: bool, experiment: str) -> None:
    """Prints the table and writes `table.csv`, `pareto.png`, the JSON file and the MLflow runs.

    Args:
        experiment: Digest of what was asked for.

    What cannot be written, as on a full disk, keeps neither the others from being written nor the failures from being named.

    Raises:
        click.exceptions.Exit: with status 1 if a pair failed, or a file could not be written.
    """
    unwritten: list[str] = []
    try:
        with looking(results):
            _show(result, results, json_file, mlflow, experiment, unwritten)
    finally:
        _name_failures(result)
    if result.failed or unwritten:
        raise click.exceptions.Exit(1)


def _show(result: Result, results: Path, json_file: str | None, mlflow: bool, experiment: str, unwritten: list[str]) -> None:
    """All views of the records; those that cannot be written are told and added to `unwritten`."""
    command = " ".join(["bench", *sys.argv[1:]])
    log = make_log(result.name, command, experiment, tuple(key for r in result.records for key in r.keys), len(result.failed))
    with _one_of_many("the log of the run", unwritten):
        log.write(results)
    measured = measure_all(result.records, results)
    if measured:
        print_tables(measured, wide_console(stderr=json_file == "-"))
        with _one_of_many("the table", unwritten):
            write_csv(measured, results / "table.csv")
            click.echo(f"table: {results / 'table.csv'}", err=True)
        with _one_of_many("the Pareto figure", unwritten):
            figure = save_figure(pareto_figure(Grid.of(measured), str(measured[0].group)), results / "pareto.png")
            click.echo(f"Pareto figure: {figure}", err=True)
    if json_file:
        with _one_of_many(json_file, unwritten):
            if text := write_json_document(measured, result.failed, json_file):
                click.echo(text)
    click.echo(f"{result.computed} of {len(result.records)} records computed now, the others were already there", err=True)
    if measured and mlflow:
        from bench.tracking import sync, tracking_uri

        try:
            sync(results, [log])
            own = tracking_uri(results).startswith("sqlite:")
            click.echo(f"MLflow: {'run `bench ui` to see the runs' if own else tracking_uri(results)}", err=True)
        except Exception as error:  # MLflow is a view: the records are written, and the run ended well without it
            click.echo(f"MLflow could not be written ({_short(error)})", err=True)
            click.echo("the records are not affected; `bench mlflow sync` writes what is missing", err=True)


@contextmanager
def _one_of_many(name: str, unwritten: list[str]) -> Iterator[None]:
    """Tells that a file cannot be written, and goes on."""
    try:
        yield
    except OSError as error:
        unwritten.append(name)
        click.echo(f"{name} could not be written ({_short(error)})", err=True)


def _short(error: Exception) -> str:
    told = " ".join(f"{type(error).__name__}: {error}".split())
    return told if len(told) < _LONG else f"{told[:_LONG]}..."


def tell_failures(result: Result) -> None:
    """Names what failed and why.

    Raises:
        click.exceptions.Exit: with status 1 if something did.
    """
    _name_failures(result)
    if result.failed:
        raise click.exceptions.Exit(1)


def _name_failures(result: Result) -> None:
    if result.failed:
        for failure in result.failed:
            pair = f"{failure['anonymizer']} x {failure['attacker']}, {failure['threat']}, seed {failure['seed']}"
            click.echo(f"FAILED {pair}: {failure['error']}", err=True)
        click.echo(
            f"{len(result.failed)} of {len(result.failed) + len(result.records)} pairs failed; run again to retry them", err=True
        )
        if result.log:
            click.echo(f"where each of them went wrong: {result.log}", err=True)


def wide_console(*, stderr: bool = False) -> Console:
    """A console that does not fold the table when its output goes to a file or a pipe."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=10_000)
