"""`bench validate`: the instrument measured on people whose truth is known."""

import os
from pathlib import Path

import click

from bench.cli.common import results_option


@click.command()
@click.option("--quick", is_flag=True, help="Fewer simulated sets and seeds: minutes.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the report; RESULTS/validation if not given."
)
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one a core.")
@results_option
def validate(quick: bool, out: Path | None, workers: int | None, results: Path) -> None:
    """Test the instrument itself: false alarms, coverage of intervals, and leakage that is known beforehand.

    Ends with status 1 if a claim does not hold.
    """
    from bench.progress import Display
    from bench.report.validation import write_report
    from bench.validation.studies import all_studies

    found = []
    with Display() as display:
        for study in all_studies(quick=quick, workers=workers or os.cpu_count() or 1, step=display.step):
            found.append(study)
            for claim in study.claims:
                click.echo(f"{'holds' if claim.holds else 'FAILS':<6} {claim.text}")
    page = write_report(found, out or results / "validation", "bench validate" + (" --quick" if quick else ""))
    failed = sum(not claim.holds for study in found for claim in study.claims)
    total = sum(len(study.claims) for study in found)
    click.echo(f"{total - failed} of {total} claims hold; report: {page}", err=True)
    if failed:
        raise click.exceptions.Exit(1)
