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
@click.option(
    "--gender-csv",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Table of the people's gender that you supply, where the owners publish none: columns P,Gender; F or M.",
)
@results_option
def prepare(name: str, source: Path | None, gender_csv: Path | None, results: Path) -> None:
    """Read a data set into a clip store below the results folder, in the place of an earlier one."""
    from bench.data.prepare import prepare as read
    from bench.progress import Display
    from bench.registry import DATASETS
    from bench.specs import parse_spec

    spec = parse_spec(name, DATASETS)
    if gender_csv:
        spec = spec.with_value("gender_csv", str(gender_csv))
    with Display() as display, display.step(f"read {spec}") as report:
        store = read(spec, source, results, lambda done, total: report(done, total, f"{done} clips"), display.say)
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


@data.command()
@click.argument("name", metavar="NAME[:KEY=VALUE,...]")
@results_option
def check(name: str, results: Path) -> None:
    """Look for what is wrong or odd: absent frames, jumps, unstable bones, swapped sides, copies, uneven labels,
    rooms that name people.
    """
    from bench.data.prepare import open_or_prepare
    from bench.data.quality import check as look
    from bench.files import file_name
    from bench.progress import Display
    from bench.registry import DATASETS
    from bench.report.pareto import save_figure
    from bench.report.quality import quality_figure
    from bench.specs import parse_spec

    spec = parse_spec(name, DATASETS)
    with Display() as display, display.step(f"check {spec}", quiet=True) as report:
        store = open_or_prepare(spec, results)
        protocol = next(iter(spec.value.protocols.values()))
        found = look(store, protocol, lambda done, total: report(done, total, f"{done} clips"))
    for label, value in found.lines():
        click.echo(f"{label:<20} {value}")
    for skip in store.meta["skipped"][:10]:
        click.echo(f"{'left out':<20} {skip['clip']}: {skip['reason']}")
    figure = save_figure(quality_figure(found, str(spec)), results / f"check-{file_name(str(spec))}.png")
    click.echo(f"{'figure':<20} {figure}")
