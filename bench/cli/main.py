"""`bench`: run, anonymize, view, table, plot, list, data, ui, doctor, validate."""

from pathlib import Path

import click

from bench.cli.common import FriendlyGroup, json_option, results_option
from bench.cli.data import data
from bench.cli.info import doctor, list_plugins
from bench.cli.release import anonymize, view
from bench.cli.validation import validate
from bench.cli.views import plot, table, ui


@click.group(cls=FriendlyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="skeleton-privacy-bench", prog_name="bench")
def main() -> None:
    """Measures how much of a person can be read out of anonymized skeleton clips, and how much action accuracy is left."""


@main.command()
@click.option("--dataset", default="synthetic", show_default=True, metavar="NAME[:KEY=VALUE,...]", help="Data set to measure on.")
@click.option("--protocol", metavar="NAME", help="Split of the data set, its default one if not given; 5-fold, 5-fold-2 or loso.")
@click.option("--anonymizer", default="identity,null,gauss", show_default=True, metavar="A[,B...]", help="Anonymizers, or `all`.")
@click.option(
    "--attacker", metavar="X[,Y...]", help="Attackers, or `all`. Default: shiftgcn-reid; bones-lda for re-ID and for gender."
)
@click.option(
    "--threat",
    default="ignorant,semi-informed",
    show_default=True,
    metavar="LEVEL[,...]",
    help="What the attackers know: ignorant, lazy-informed, semi-informed, inverter, or `all`.",
)
@click.option("--preset", default="quick", show_default=True, metavar="NAME", help="Budget: quick, standard or paper.")
@click.option("--seeds", type=int, help="Number of seeds; the preset's if not given.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(1), help="Processes to train in; by default one a core, or one on a GPU.")
@click.option("--controls/--no-controls", default=True, show_default=True, help="Also measure identity and null if not named.")
@json_option
@click.option("--mlflow/--no-mlflow", default=True, show_default=True, help="Log the run to MLflow.")
@results_option
def run(
    dataset: str,
    protocol: str | None,
    anonymizer: str,
    attacker: str | None,
    threat: str,
    preset: str,
    seeds: int | None,
    device: str,
    workers: int | None,
    controls: bool,
    json_file: str | None,
    mlflow: bool,
    results: Path,
) -> None:
    """Train and evaluate every pair of anonymizer and attacker; print the trade-off table."""
    from bench.cli.present import present
    from bench.devices import choose_device
    from bench.presets import get_preset
    from bench.progress import Display
    from bench.runner import Result, make_plan, protocol_names, run_plan

    budget = get_preset(preset)
    chosen = choose_device(device)
    plans = []
    names = protocol_names(dataset, protocol, results)
    for name in names:
        with Display() as display, display.step(f"read {dataset}", quiet=True) as report:
            plan = make_plan(
                dataset=dataset,
                protocol=name,
                siblings=[other for other in names if other != name],
                anonymizers=anonymizer,
                attackers=attacker,
                threats=threat,
                preset=budget,
                seeds=budget.seeds if seeds is None else seeds,
                results=results,
                controls=controls,
                progress=lambda done, total, report=report: report(done, total, f"{done} clips"),
            )
            plans.append(plan)
    result = Result()
    for plan in plans:
        result.extend(run_plan(plan, results, chosen, workers))
    present(result, results, json_file=json_file, mlflow=mlflow)


main.add_command(anonymize)
main.add_command(view)
main.add_command(table)
main.add_command(plot)
main.add_command(ui)
main.add_command(list_plugins, "list")
main.add_command(data)
main.add_command(doctor)
main.add_command(validate)
