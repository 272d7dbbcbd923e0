"""`bench leaderboard`: what methods are worth, from the records of a results folder."""

from pathlib import Path

import click

from bench.cli.common import json_option, results_option
from bench.cli.views import filters


@click.command()
@filters
@json_option
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the board as CSV.")
@click.option("--html", "site", type=click.Path(file_okay=False, path_type=Path), help="Write pages into this folder.")
@click.option("--publish", type=click.Path(file_okay=False, path_type=Path), help="Write all tables, figures and boards here.")
@click.option("--explain", metavar="NAME", help="Only say why a method, or the record of this key, is on the board or not.")
@results_option
def leaderboard(
    dataset: str | None,
    protocol: str | None,
    preset: str | None,
    json_file: str | None,
    csv_file: Path | None,
    site: Path | None,
    publish: Path | None,
    explain: str | None,
    results: Path,
) -> None:
    """Rank methods by the use that they leave within leakage budgets, against the worst attacker that knows them."""
    from bench.cli.present import wide_console
    from bench.report.board import load_boards, print_boards, write_board_csv, write_board_json
    from bench.report.pages import write_site
    from bench.report.published import write_published

    if explain and (json_file or csv_file or site or publish):
        raise click.UsageError("--explain only explains; leave out --json, --csv, --html and --publish")
    loaded = load_boards(results, dataset, protocol, preset)
    if explain:
        for line in loaded.explain(explain):
            click.echo(line)
        return
    if json_file and (text := write_board_json(loaded.boards, json_file)):
        click.echo(text)
    if csv_file:
        write_board_csv(loaded.boards, csv_file)
    print_boards(loaded.boards, wide_console(stderr=json_file == "-"))
    if site:
        click.echo(f"pages: {write_site(loaded.boards, site, results)}", err=True)
    if publish:
        click.echo(f"{len(write_published(loaded.boards, publish))} files written to {publish}", err=True)
