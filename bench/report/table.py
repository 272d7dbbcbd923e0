"""The trade-off table, for terminals and for files."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from bench.files import atomic_file, write_json
from bench.grid import BUDGETS, Grid, TradeOff
from bench.measured import COLUMNS, Measured
from bench.summary import FLAGS

SCHEMA = 1


@dataclass(frozen=True)
class _Column:
    """A column of the printed table: its header, what it shows of a row, and whether a narrow terminal does without it."""

    header: str
    cell: Callable[[Mapping[str, Any]], str]
    is_text: bool = False
    only_if_wide: bool = False


_UNLIMITED = 10_000  # characters
_COLUMNS = (
    _Column("anonymizer", lambda row: row["anonymizer"], is_text=True),
    _Column("attacker", lambda row: row["attacker"], is_text=True),
    _Column("threat", lambda row: row["threat"], is_text=True),
    _Column("leakage [95 %]", lambda row: _interval(row, "leakage")),
    _Column("chance", lambda row: _number(row, "chance")),
    _Column("prior", lambda row: _number(row, "prior"), only_if_wide=True),
    _Column("normalised [95 %]", lambda row: _interval(row, "leakage_normalised"), only_if_wide=True),
    _Column("action raw", lambda row: _number(row, "action_raw"), only_if_wide=True),
    _Column("retrained", lambda row: _number(row, "action_retrained")),
    _Column("retention [95 %]", lambda row: _interval(row, "utility_retention"), only_if_wide=True),
    _Column("flags", lambda row: ", ".join(row["flags"]), is_text=True),
)


def print_tables(measured: Sequence[Measured], console: Console) -> None:
    """Prints one table for each data set, protocol and preset; rows of different ones never share a table."""
    for group, members in groupby(measured, key=lambda m: m.group):
        rows = list(members)
        grid = Grid.of(rows)
        title = f"{group}, data {group.data}"
        for line in grid.failed_controls:
            console.print(f"CONTROL FAILED: {line}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        _print_whole(_table(title, rows), _table(title, rows, narrow=True), console)
        for line in _notes(grid):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print()


def _print_whole(table: Table, narrow: Table, console: Console) -> None:
    """Prints the table, or the narrow one where it does not fit; where neither fits, the terminal folds lines: nothing is cut."""
    available, unlimited = console.width, console.options.update(width=_UNLIMITED)
    if Measurement.get(console, unlimited, table).maximum > available:
        table = narrow
    console.width = max(available, Measurement.get(console, unlimited, table).maximum)
    console.print(table)
    console.width = available


def _table(title: str, measured: Sequence[Measured], *, narrow: bool = False) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True)
    columns = [column for column in _COLUMNS if not (narrow and column.only_if_wide)]
    for column in columns:
        table.add_column(column.header, justify="left" if column.is_text else "right", no_wrap=True)
    previous = ""
    for m in measured:
        row = m.row()
        if previous and row["anonymizer"] != previous:
            table.add_section()
        cells = [column.cell(row) for column in columns]
        table.add_row(*(["", *cells[1:]] if row["anonymizer"] == previous else cells))
        previous = row["anonymizer"]
    return table


def _number(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:z.2f}" if name in row else "-"


def _interval(row: Mapping[str, Any], name: str) -> str:
    return f"{_number(row, name)} [{_number(row, f'{name}_low')}, {_number(row, f'{name}_high')}]" if name in row else "-"


def _notes(grid: Grid) -> list[str]:
    measured = grid.measured
    targets = {m.first["target"]: m.first for m in measured}
    notes = [
        f"{target}: {_asked(first)}, {first['test_clips']} test clips of {first['test_people']} people"
        for target, first in targets.items()
    ]
    raised = [flag for flag in FLAGS if any(flag in m.flags for m in measured)]
    return [
        "Leakage: balanced top-1, of linkage the AUC; normalised: chance is 0, all right is 1. Only semi-informed rows rank.",
        "Action: top-1 on released clips of a raw-trained and of a retrained classifier; retention: retrained against raw clips.",
        "; ".join(notes) + f". Seeds: {_seeds(measured)}; the spread between trainings is not in the intervals.",
        *([f"Controls that cannot be judged: {'; '.join(grid.unjudged_controls)}."] if grid.unjudged_controls else []),
        *_trade_off(grid),
        *(f"{flag}: {FLAGS[flag]}." for flag in raised),
    ]


def _trade_off(grid: Grid) -> list[str]:
    """Who is more private than whom as far as that is sure, and what the methods are worth; nothing where nothing compares."""
    lines = []
    if len(grid.ranked) >= 2:
        ranked = sorted((ranks, name) for name, ranks in grid.ranks.items())
        ranks = ", ".join(f"{name} {best}" if best == worst else f"{name} {best}-{worst}" for (best, worst), name in ranked)
        lines.append(f"Privacy ranks by the worst attacker (differences sure to 95 %, all pairs corrected together): {ranks}.")
    if withheld := [f"{p.anonymizer} ({', '.join(p.withheld)})" for p in grid.points if p.withheld]:
        lines.append(f"No rank, for its flags: {'; '.join(withheld)}.")
    if len(grid.useful) >= 2:
        members = ", ".join(f"{name} {share:z.2f}" for name, (now, share) in grid.pareto.items() if now)
        volume = grid.hypervolume
        lines.append(f"Pareto set, with the share of resamples of people in which each is in it: {members}.")
        span = f"{volume.value:z.2f} [{volume.low:z.2f}, {volume.high:z.2f}]"
        lines.append(f"Hypervolume {span}. Most retention within a leakage of {_budgets(grid)}.")
    return lines


def _budgets(grid: Grid) -> str:
    best = [(budget, grid.best_within(budget)) for budget in BUDGETS]
    return ", ".join(f"{b:z.2f}: {_within(p, b)}" for b, p in best)


def _within(point: TradeOff | None, budget: float) -> str:
    if point is None:
        return "none"
    return f"{point.anonymizer} {point.utility.value:z.2f}{'' if point.leakage.high <= budget else ' (not surely)'}"


def _asked(record: Mapping[str, Any]) -> str:
    return f"{record['test_pairs']} pairs" if "test_pairs" in record else f"{len(record['classes'])} classes"


def _seeds(measured: Sequence[Measured]) -> str:
    counts = sorted({len(m.records) for m in measured})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def write_csv(measured: Sequence[Measured], path: Path) -> None:
    """All rows in the common format; several flags or records in one cell are separated by spaces."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for m in measured:
            writer.writerow({k: " ".join(v) if isinstance(v, list) else v for k, v in m.row().items()})


def json_document(measured: Sequence[Measured], failed: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """`{"schema": 1, "rows": [...], "grids": [...], "failed": [...]}`; a grid says what rows of one table say together."""
    grids = [Grid.of(list(members)).summary() for _, members in groupby(measured, key=lambda m: m.group)]
    return {"schema": SCHEMA, "rows": [m.row() for m in measured], "grids": grids, "failed": list(failed)}


def write_json_document(measured: Sequence[Measured], failed: Sequence[Mapping[str, str]], path: str) -> str:
    """Writes the document to a file, or returns it as text if the path is "-"."""
    document = json_document(measured, failed)
    if path == "-":
        return json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
    write_json(Path(path), document)
    return ""
