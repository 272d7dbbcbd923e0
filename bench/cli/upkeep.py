"""`bench store`, `bench explain` and `bench audit`: whether what lies there can be trusted, and how it came about."""

from pathlib import Path
from typing import Any

import click

from bench.cli.common import results_option
from bench.cli.options import make_where, where_options
from bench.cli.views import filters
from bench.files import UserError


def _inventory(results: Path) -> Any:
    from bench.inventory import Inventory

    _refuse_empty(results)
    return Inventory(results)


def _refuse_empty(results: Path) -> None:
    if not (results / "records").is_dir() and not (results / "stages").is_dir():
        raise UserError(f"{results} holds no results; --results names another folder")


@click.group()
def store() -> None:
    """Check the results folder, or free what no record needs."""


@store.command()
@results_option
def verify(results: Path) -> None:
    """Read every stage, record and prepared data set again and compare it with its digest."""
    from bench.occupied import looking

    _refuse_empty(results)
    with looking(results):  # what is cleared up meanwhile would seem damaged
        inventory, count = _inventory(results), 0
        for path, wrong in inventory.damage():
            click.echo(f"DAMAGED {path}: {wrong}")
            count += 1
    unsealed = f", {inventory.unsealed} records unsealed (of an earlier version)" if inventory.unsealed else ""
    click.echo(
        f"{len(inventory.stages)} stages and {len(inventory.records)} records read; {count or 'nothing'} damaged{unsealed}"
    )
    if count:
        raise click.exceptions.Exit(1)


@store.command()
@click.option("--dry-run", is_flag=True, help="Only say how much would be freed.")
@click.option("--all", "interrupted", is_flag=True, help="Also remove trainings that were interrupted and could go on.")
@results_option
def gc(dry_run: bool, interrupted: bool, results: Path) -> None:
    """Remove stages that no record rests on, models that were not chosen among them, and what killed processes left behind.

    A run that was stopped computes again what it had finished for pairs without a record.
    """
    from bench.occupied import alone

    _refuse_busy(results)
    _refuse_empty(results)
    with alone(results):
        freed = _inventory(results).free(really=not dry_run, interrupted=interrupted)
    would = "would be " if dry_run else ""
    click.echo(f"{freed.stages} stages, {freed.left} left-overs, {freed.size / 1e6:.1f} MB {would}freed")
    if freed.kept:
        click.echo(f"{freed.kept} interrupted trainings are kept: a run goes on from their checkpoints (--all removes them)")


@store.command()
@click.option("--anonymizer", metavar="A[,B...]", help="As they are written for `bench run`.")
@click.option("--attacker", metavar="X[,Y...]", help="Likewise; with --anonymizer, the records of pairs of both.")
@filters
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@results_option
def drop(
    anonymizer: str | None,
    attacker: str | None,
    dataset: str | None,
    protocol: str | None,
    preset: str | None,
    dry_run: bool,
    results: Path,
) -> None:
    """Remove the records of an anonymizer or of an attacker, as of a plugin that was only tried.

    Of all data sets, if none is named. Tables and boards then know nothing of it, and methods that never met an attacker that is
    dropped have their ranks back; without `identity` or `null` nobody has one. What was trained stays until `bench store gc`,
    what MLflow was told stays there.
    """
    from bench.occupied import alone
    from bench.records import of_interest
    from bench.registry import ANONYMIZERS, ATTACKERS

    asked = {"anonymizer": (anonymizer, ANONYMIZERS), "attacker": (attacker, ATTACKERS)}
    if not (anonymizer or attacker):
        raise click.UsageError("name an --anonymizer, an --attacker or both")
    _refuse_empty(results)
    _refuse_busy(results)
    with alone(results):
        inventory = _inventory(results)
        measured = {side: {record.data["names"][side] for record in inventory.records} for side in asked}
        names = {side: _names(text, registry, measured[side]) for side, (text, registry) in asked.items() if text}
        doomed = [
            record
            for record in inventory.records
            if of_interest(record, dataset, protocol, preset)
            and all(record.data["names"][side] in any_of for side, any_of in names.items())
        ]
        if not doomed:
            raise UserError(f"{results} has no such records; `bench table` shows what was measured")
        if not dry_run:
            inventory.drop(doomed)
    click.echo(f"{len(doomed)} records {'would be ' if dry_run else ''}removed")


def _names(text: str, registry: Any, measured: set[str]) -> set[str]:
    """What tables call what is asked for; of a plugin that is no longer installed, what was written.

    Raises:
        SpecError: if something is neither known nor measured.
    """
    from bench.specs import parse_specs

    return {text} if text in measured else {str(spec) for spec in parse_specs(text, registry)}


def _refuse_busy(results: Path) -> None:
    """Also runs of other machines, which no lock of this one knows of, are not disturbed."""
    from bench.status import read_status

    runs, workers = read_status(results / "status")
    if runs or workers:
        raise UserError(f"{len(runs) or len(workers)} runs are at work on {results} (bench status); wait for them")


@click.command()
@click.argument("record")
@results_option
def explain(record: str, results: Path) -> None:
    """Print how a number came about, stage by stage. RECORD is its key, the beginning of it, or its file."""
    from bench.cli.present import wide_console
    from bench.explain import explain as tree_of
    from bench.explain import find_record

    inventory = _inventory(results)
    wide_console().print(tree_of(inventory, find_record(inventory, record)), highlight=False, markup=False)


@click.command()
@click.argument("keys", nargs=-1, metavar="[RECORD]...")
@click.option("--sample", type=click.IntRange(1), help="So many records at random, rather than all.")
@click.option("--sample-seed", type=int, default=0, show_default=True, help="Which ones.")
@click.option("--tolerance", type=click.FloatRange(0), help="Largest difference of what is said of a clip; 1e-4 by default.")
@where_options
@results_option
def audit(
    keys: tuple[str, ...], sample: int | None, sample_seed: int, tolerance: float | None, results: Path, **options: Any
) -> None:
    """Measure records again, from the prepared clips on, and compare; the leaderboard shows what came out."""
    from bench.audit import audit as run_audit
    from bench.audit import choose
    from bench.explain import find_record
    from bench.verdicts import TOLERANCE

    where, inventory = make_where(options), _inventory(results)
    found = [find_record(inventory, key) for key in keys] if keys else choose(inventory.records, sample, sample_seed)
    if not found:
        raise UserError(f"there are no records in {results}")

    def tell(verdict: Any) -> None:
        data = verdict.record.data
        pair = f"{data['names']['anonymizer']} x {data['names']['attacker']}, {data['threat']}, seed {data['seed']}"
        click.echo(f"{data['key']} {pair}: {verdict.told}")

    if not run_audit(found, results, where, TOLERANCE if tolerance is None else tolerance, tell):
        raise click.exceptions.Exit(1)
