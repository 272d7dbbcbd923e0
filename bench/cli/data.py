"""`bench data`: read data sets into clip stores and say what is in them."""

from pathlib import Path

import click

from bench.cli.common import results_option


@click.group()
def data() -> None:
    """Prepare data sets and describe them."""


@data.command()
@click.argument("name", metavar="NAME[:KEY=VALUE,...]")
@click.option("--source", type=click.Path(path_type=Path), help="Folder or archive as its owners distribute it.")
@results_option
def prepare(name: str, source: Path | None, results: Path) -> None:
    """Read a data set into a clip store below the results folder."""
    from bench.data.prepare import prepare as read
    from bench.progress import Display
    from bench.registry import DATASETS
    from bench.specs import parse_spec

    spec = parse_spec(name, DATASETS)
    with Display() as display, display.step(f"read {spec}") as report:
        store = read(spec, source, results, lambda done, total: report(done, total, f"{done} clips"))
    click.echo(f"{len(store)} clips, {len(store.meta['skipped'])} left out, fingerprint {store.fingerprint}: {store.path}")


@data.command()
@click.argument("name", metavar="NAME[:KEY=VALUE,...]")
@results_option
def info(name: str, results: Path) -> None:
    """Say what a prepared data set holds: counts, lengths, priors, licence, fingerprint."""
    from bench.data.prepare import open_or_prepare
    from bench.registry import DATASETS
    from bench.report.health import describe_data
    from bench.specs import parse_spec

    spec = parse_spec(name, DATASETS)
    for label, value in describe_data(spec, open_or_prepare(spec, results)):
        click.echo(f"{label:<20} {value}")
