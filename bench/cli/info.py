"""`bench list` and `bench doctor`: what there is to choose from, and what this machine has."""

from pathlib import Path

import click

from bench.cli.common import results_option
from bench.files import UserError

KINDS = ("anonymizers", "attackers", "backbones", "inverters", "datasets", "layouts")


@click.command()
@click.argument("kind", required=False, type=click.Choice(KINDS))
def list_plugins(kind: str | None) -> None:
    """List anonymizers, attackers, backbones, inverters and data sets with their parameters, and layouts with their joints."""
    from bench.report.listing import listing

    for name in (kind,) if kind else KINDS:
        click.echo(listing(name))


@click.command()
@click.argument("name", metavar="NAME|all")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for `all`: a page each, and an index.")
def card(name: str, out: Path | None) -> None:
    """Print the model card of an anonymizer: what it does, declares and takes."""
    from bench.registry import ANONYMIZERS, UnknownPluginError
    from bench.report.card import card as card_of
    from bench.report.card import write_cards

    if (name == "all") != (out is not None):
        raise click.UsageError("`bench card all` needs --out DIR, and one card has none")
    if out:
        click.echo(f"{write_cards(out)} cards in {out}")
        return
    try:
        click.echo(card_of(ANONYMIZERS[name]), nl=False)
    except UnknownPluginError as error:
        raise UserError(str(error)) from error


@click.command()
@results_option
def doctor(results: Path) -> None:
    """Show versions, devices, threads and the state of the results folder."""
    from bench.report.health import health

    for name, value in health(results):
        click.echo(f"{name:<20} {value}")
