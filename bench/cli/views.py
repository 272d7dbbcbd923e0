"""`bench table`, `bench plot` and `bench ui`: views of records that were measured before."""

from pathlib import Path

import click

from bench.cli.common import json_option, results_option
from bench.files import UserError, file_name


def filters(command):
    """Which records are looked at."""
    for option in (
        click.option("--dataset", metavar="NAME", help="Only this data set."),
        click.option("--protocol", metavar="NAME", help="Only this protocol."),
        click.option("--preset", metavar="NAME", help="Only this preset."),
    ):
        command = option(command)
    return command


def _measured(results: Path, dataset: str | None, protocol: str | None, preset: str | None):
    """Everything that was measured, filtered.

    Raises:
        UserError: if there is nothing.
    """
    from bench.records import newest, of_interest, records
    from bench.submission.states import on_the_board
    from bench.summary import measure_all

    shown = on_the_board(results)
    found = [r for r in records(results / "records") if of_interest(r, dataset, protocol, preset) and shown(r.data)]
    if not found:
        raise UserError(f"no records in {results} fit; `bench run` makes some, and --results names another folder")
    found, older = newest(found)
    if older:
        click.echo(f"{older} records are left out, of older code or of another method of the same name", err=True)
    return measure_all(found, results)


@click.command()
@filters
@json_option
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the rows as CSV.")
@click.option("--compare", nargs=2, metavar="A B", help="Only say whether anonymizer A is better than B, and how sure that is.")
@results_option
def table(
    dataset: str | None,
    protocol: str | None,
    preset: str | None,
    json_file: str | None,
    csv_file: Path | None,
    compare: tuple[str, str] | None,
    results: Path,
) -> None:
    """Print the trade-off tables of everything measured so far."""
    from bench.cli.present import wide_console
    from bench.report.table import print_tables, write_csv, write_json_document

    if compare and (json_file or csv_file):
        raise click.UsageError("--compare only compares; leave out --json and --csv")
    measured = _measured(results, dataset, protocol, preset)
    if compare:
        from bench.report.compare import compare as compare_methods
        from bench.report.compare import print_comparisons

        print_comparisons(compare_methods(measured, *compare), wide_console())
        return
    if json_file:
        text = write_json_document(measured, [], json_file)
        if text:
            click.echo(text)
    if csv_file:
        write_csv(measured, csv_file)
    print_tables(measured, wide_console(stderr=json_file == "-"))


@click.group()
def plot() -> None:
    """Draw figures of everything measured so far."""


@plot.command()
@filters
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="PNG to write; by default one in the results folder."
)
@results_option
def pareto(dataset: str | None, protocol: str | None, preset: str | None, out: Path | None, results: Path) -> None:
    """Draw utility against leakage, one figure for each data set, protocol and preset."""
    from bench.grid import Grid
    from bench.report.pareto import pareto_figure, save_figure

    measured = _measured(results, dataset, protocol, preset)
    groups = list(dict.fromkeys(m.group for m in measured))
    if out and len(groups) > 1:
        raise UserError(f"--out names one file, but there are {len(groups)} figures; choose with --dataset, --protocol, --preset")
    for group in groups:
        file = out or results / f"pareto-{file_name('-'.join(group))}.png"
        rows = [m for m in measured if m.group == group]
        click.echo(save_figure(pareto_figure(Grid.of(rows), str(group)), file))


@click.group()
def mlflow() -> None:
    """MLflow's view of the records."""


@mlflow.command()
@results_option
def sync(results: Path) -> None:
    """Write what MLflow lacks: every record, and the table and figure of every run. Twice is as good as once."""
    from bench.tracking import sync as write_missing
    from bench.tracking import tracking_uri

    if not (results / "records").is_dir():
        raise UserError(f"{results} holds no records; --results names another folder")
    click.echo(f"{write_missing(results)} runs written to {tracking_uri(results)}")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port of the local server.")
@results_option
def ui(port: int, results: Path) -> None:
    """Serve the MLflow pages of this results folder on this machine."""
    from bench.server import serve

    serve(results, port, announce=click.echo)
