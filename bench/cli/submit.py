"""`bench submit`: other people's methods, from the template to the board."""

import sys
from pathlib import Path
from typing import Any

import click

from bench.cli.common import json_option, results_option
from bench.cli.options import make_where, where_options

_FOLDER = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
_ISOLATION = click.option(
    "--isolation",
    type=click.Choice(["process", "namespace", "container"]),
    help="How its code is kept apart; namespace if not given.",
)
_TRUST = click.option("--trust", is_flag=True, help="You trust its code: it may run at a level below namespace.")


_PROJECTS = ["anonymizer", "attacker", "weights", "attacker-weights", "data"]


@click.group()
def submit() -> None:
    """Submit a method: write, check and evaluate it."""


@submit.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(_PROJECTS), default="anonymizer", show_default=True)
@results_option
def new(folder: Path, kind: str, results: Path) -> None:
    """Write a small working project to start from; its folder's name becomes that of the method."""
    from bench.submission.template import new_submission

    click.echo(f"{new_submission(folder, kind, results)}: now `bench submit check {folder}`")


@submit.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--attacker", required=True, metavar="X", help="A neural attacker of this package.")
@click.option("--dataset", required=True, metavar="NAME", help="Data set whose raw clips it learns from.")
@click.option("--protocol", metavar="NAME", help="Split; the data set's default one if not given.")
@click.option("--preset", default="quick", show_default=True, metavar="NAME", help="Budget: quick, standard or paper.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of its training.")
@results_option
def export(
    folder: Path, attacker: str, dataset: str, protocol: str | None, preset: str, device: str, seed: int, results: Path
) -> None:
    """Train an attacker, or find it trained, and write its networks for a submission's [weights]."""
    from bench.occupied import at_work
    from bench.progress import Display
    from bench.publish import open_bench
    from bench.registry import ATTACKERS
    from bench.specs import parse_spec
    from bench.submission.networks import export as write_networks

    spec = parse_spec(attacker, ATTACKERS)
    with Display() as display, at_work(results):
        bench = open_bench(dataset, protocol, preset, device, results, display)
        click.echo(write_networks(bench, spec, seed, folder))


@submit.command()
@_FOLDER
def seal(folder: Path) -> None:
    """List all files with their sha256 in the manifest, after a change."""
    from bench.submission.manifest import seal as write_files

    click.echo(f"{write_files(folder)} files listed in {folder / 'submission.toml'}")


@submit.command()
@_FOLDER
@_ISOLATION
@_TRUST
@results_option
def check(folder: Path, isolation: str | None, trust: bool, results: Path) -> None:
    """Say everything that is wrong with a submission, and how to mend it. Exit status 1 if something is."""
    from bench.cli.present import wide_console
    from bench.occupied import at_work
    from bench.progress import Display
    from bench.report.submissions import print_report
    from bench.submission.check import check as check_submission
    from bench.submission.isolation import IsolationError, choose_level
    from bench.submission.manifest import ManifestError, read_manifest
    from bench.submission.session import close_all

    level = None
    try:
        level = choose_level(isolation, trust=trust) if read_manifest(folder).runs_code else None
    except IsolationError as error:
        click.echo(f"its code is not run: {error}", err=True)  # what is wrong with its files is told all the same
    except ManifestError:
        pass  # the check tells what is wrong with it
    try:
        with Display() as display, at_work(results):
            report = check_submission(folder, level, results.resolve(), display.step)
    finally:
        close_all()
    print_report(report, level, wide_console())
    if not report.good:
        raise click.exceptions.Exit(1)


@submit.command()
@_FOLDER
@_ISOLATION
@_TRUST
@click.option("--dataset", metavar="NAME", help="Data set; the manifest's if not given.")
@click.option("--protocol", metavar="NAME", help="Split; the manifest's if not given.")
@click.option("--preset", default="quick", show_default=True, metavar="NAME", help="Budget: quick, standard or paper.")
@click.option("--attacker", default="all", show_default=True, metavar="X[,Y...]", help="Panel that an anonymizer meets.")
@click.option("--anonymizer", metavar="A[,B...]", help="What an attacker is tried on; all that were measured if not given.")
@click.option("--threat", default="all", show_default=True, metavar="LEVEL[,...]", help="What the attackers know.")
@click.option("--seeds", type=click.IntRange(1), help="Number of seeds; the manifest's, as many as others have, if not given.")
@click.option("--supersedes", is_flag=True, help="It may replace a listed one of other authors, or of a higher version.")
@where_options
@json_option
@click.option("--mlflow/--no-mlflow", default=True, show_default=True, help="Log the run to MLflow.")
@results_option
def evaluate(
    folder: Path, isolation: str | None, trust: bool, json_file: str | None, mlflow: bool, results: Path, **options: Any
) -> None:
    """Receive, check and evaluate a submission against all attackers, and put it on the board."""
    from bench.cli.present import present, wide_console
    from bench.occupied import at_work
    from bench.progress import Display
    from bench.report.submissions import print_evaluation, print_report
    from bench.submission.evaluate import Budget, needs_level
    from bench.submission.evaluate import evaluate as evaluate_submission
    from bench.submission.isolation import choose_level

    level = choose_level(isolation, trust=trust) if needs_level(folder) else None
    where = make_where(options)
    renamed = {"attackers": options["attacker"], "anonymizers": options["anonymizer"], "threats": options["threat"]}
    budget = Budget(
        trust=trust, **renamed, **{name: options[name] for name in ("dataset", "protocol", "preset", "seeds", "supersedes")}
    )
    command = " ".join(["bench", *sys.argv[1:]])
    with Display() as display, at_work(results):
        done = evaluate_submission(folder, level, budget, results, where, display.step, command)
    failed: click.exceptions.Exit | None = None
    if done.result is None:
        print_report(done.report, level, wide_console())
    elif done.result.records:
        try:
            present(done.result, results, json_file=json_file, mlflow=mlflow, experiment=done.digest)
        except click.exceptions.Exit as problem:  # pairs failed, perhaps by other people's code: the verdict is told all the same
            failed = problem
    print_evaluation(done, wide_console(stderr=json_file == "-"))
    if failed:
        raise failed
    if done.entry.state == "rejected":
        raise click.exceptions.Exit(1)


@submit.command()
@click.argument("name", required=False)
@click.option("--withdraw", is_flag=True, help="Take the listed version of NAME off the board.")
@click.option("--because", default="by its authors", show_default=True, metavar="WHY", help="Why it is withdrawn.")
@results_option
def status(name: str | None, withdraw: bool, because: str, results: Path) -> None:
    """Show what became of each submission, or the whole history of one."""
    from bench.cli.present import wide_console
    from bench.report.submissions import print_states
    from bench.submission.evaluate import withdraw as take_off
    from bench.submission.states import entries, find

    if withdraw:
        if not name:
            raise click.UsageError("name the submission to withdraw")
        take_off(results, name, because)
    print_states(find(results, name) if name else list(entries(results)), wide_console(), whole=name is not None)
