"""`bench list` and `bench doctor`: what there is to choose from, and what this machine has."""

from pathlib import Path

import click

from bench.cli.common import results_option

KINDS = ("anonymizers", "attackers", "backbones", "inverters", "datasets")


@click.command()
@click.argument("kind", required=False, type=click.Choice(KINDS))
def list_plugins(kind: str | None) -> None:
    """List anonymizers, attackers, backbones and data sets with their parameters."""
    from bench.report.listing import listing

    for name in (kind,) if kind else KINDS:
        click.echo(listing(name))


@click.command()
@results_option
def doctor(results: Path) -> None:
    """Show versions, devices, threads and the state of the results folder."""
    from bench.report.health import health

    for name, value in health(results):
        click.echo(f"{name:<20} {value}")
