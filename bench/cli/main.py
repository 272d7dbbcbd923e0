"""`bench`: all commands."""

import warnings
from pathlib import Path

import click

from bench.cli.common import FriendlyGroup
from bench.cli.data import data
from bench.cli.info import card, doctor, list_plugins
from bench.cli.leaderboard import leaderboard
from bench.cli.release import anonymize, view
from bench.cli.run import job, plan, run, status
from bench.cli.submit import submit
from bench.cli.upkeep import audit, explain, store
from bench.cli.validation import validate
from bench.cli.views import mlflow, plot, table, ui


@click.group(cls=FriendlyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="skeleton-privacy-bench", prog_name="bench")
def main() -> None:
    """Measures how much of a person can be read out of anonymized skeleton clips, and how much action accuracy is left."""
    warnings.formatwarning = _one_line


def _one_line(message: Warning | str, category: type[Warning], file: str, line: int, source: str | None = None) -> str:
    """What we warn of ourselves concerns files of the user, not a line of code."""
    if Path(file).is_relative_to(Path(__file__).parents[1]):
        return f"warning: {message}\n"
    return f"{file}:{line}: {category.__name__}: {message}\n"


main.add_command(run)
main.add_command(plan)
main.add_command(job)
main.add_command(status)
main.add_command(store)
main.add_command(explain)
main.add_command(audit)
main.add_command(anonymize)
main.add_command(view)
main.add_command(table)
main.add_command(plot)
main.add_command(ui)
main.add_command(mlflow)
main.add_command(list_plugins, "list")
main.add_command(card)
main.add_command(data)
main.add_command(doctor)
main.add_command(validate)
main.add_command(submit)
main.add_command(leaderboard)
