"""`bench anonymize` and `bench view`: what an anonymizer releases, as files and as pictures."""

from pathlib import Path

import click

from bench.cli.common import results_option
from bench.files import UserError

_FORMATS = ("store", "skeleton", "npz")


def _data_options(command):
    for option in reversed(
        (
            click.option("--dataset", default="synthetic", show_default=True, metavar="NAME[:KEY=VALUE,...]", help="Data set."),
            click.option("--protocol", metavar="NAME", help="Split whose training clips anonymizers learn from."),
            click.option("--preset", default="quick", show_default=True, metavar="NAME", help="Budget of what is to be learnt."),
            click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."),
        )
    ):
        command = option(command)
    return command


@click.command()
@_data_options
@click.option("--anonymizer", metavar="A", help="Anonymizer; fitted first if it learns.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Folder of a fitted anonymizer, instead of --anonymizer: nothing is learnt.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder (npz: file) to write; must not exist.")
@click.option("--format", "kind", type=click.Choice(_FORMATS), default="store", show_default=True, help="What to write.")
@click.option("--save-weights", type=click.Path(path_type=Path), help="Also keep the fitted anonymizer in this new folder.")
@click.option("--seed", type=click.IntRange(0), help="Seed of what is drawn for clips. Without it a secret one, kept nowhere.")
@results_option
def anonymize(
    dataset: str,
    protocol: str | None,
    preset: str,
    device: str,
    anonymizer: str | None,
    weights: Path | None,
    out: Path,
    kind: str,
    save_weights: Path | None,
    seed: int | None,
    results: Path,
) -> None:
    """Anonymize a data set and write clips that others can use.

    Clips are normalised first. Names and labels are kept, for evaluation: they name the people. Who knows the seed can take noise
    out again, so a release needs a secret one.
    """
    from bench.publish import Wish, publish

    if (anonymizer is None) == (weights is None):
        raise UserError("name either --anonymizer or --weights")
    wish = Wish(dataset, protocol, preset, device, anonymizer, weights, out, kind, save_weights, seed, results)
    click.echo(publish(wish))


@click.command()
@_data_options
@click.option("--anonymizer", default="identity", show_default=True, metavar="A[,B...]", help="Anonymizers to show beside raw.")
@click.option("--clip", "names", multiple=True, metavar="NAME", help="Clip to show; several times for several. Default: three.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help=".gif moves, .png is a strip; by default a GIF below the results.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of what is drawn for clips.")
@results_option
def view(
    dataset: str,
    protocol: str | None,
    preset: str,
    device: str,
    anonymizer: str,
    names: tuple[str, ...],
    out: Path | None,
    seed: int,
    results: Path,
) -> None:
    """Draw raw clips beside anonymized ones, bones coloured by body part."""
    from bench.publish import show

    click.echo(show(dataset, protocol, preset, device, anonymizer, names, out, seed, results))
