"""The trade-off table, for terminals and for files."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from bench.files import atomic_file, write_json
from bench.measured import COLUMNS, Measured
from bench.metrics.comparison import rank_groups
from bench.summary import FLAGS, trade_off
from bench.threat import RANKING

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
        title = f"{group}, data {group.data}"
        _print_whole(_table(title, rows), _table(title, rows, narrow=True), console)
        for line in _notes(rows):
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
    return f"{row[name]:.2f}" if name in row else "-"


def _interval(row: Mapping[str, Any], name: str) -> str:
    return f"{_number(row, name)} [{_number(row, f'{name}_low')}, {_number(row, f'{name}_high')}]" if name in row else "-"


def _notes(measured: Sequence[Measured]) -> list[str]:
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
        *_ranks(measured),
        *(f"{flag}: {FLAGS[flag]}." for flag in raised),
    ]


def _ranks(measured: Sequence[Measured]) -> list[str]:
    """Who is more private than whom, as far as that is sure; nothing where there is nothing to compare."""
    points = trade_off(measured, RANKING)
    if len(points) < 2:
        return []
    # Linkage leaves out resamples without pairs; worst attackers of two kinds were resampled apart, in no common order.
    shortest = min(len(point.leakage.draws) for point in points)
    private = [replace(point.leakage.turned, draws=1 - point.leakage.draws[:shortest]) for point in points]
    ranked = sorted(zip(rank_groups(private), (point.anonymizer for point in points), strict=True))
    ranks = ", ".join(f"{name} {best}" if best == worst else f"{name} {best}-{worst}" for (best, worst), name in ranked)
    return [f"Privacy ranks by the worst attacker (differences sure to 95 %, all pairs corrected together): {ranks}."]


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
    """`{"schema": 1, "rows": [...], "failed": [...]}`."""
    return {"schema": SCHEMA, "rows": [m.row() for m in measured], "failed": list(failed)}


def write_json_document(measured: Sequence[Measured], failed: Sequence[Mapping[str, str]], path: str) -> str:
    """Writes the document to a file, or returns it as text if the path is "-"."""
    document = json_document(measured, failed)
    if path == "-":
        return json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
    write_json(Path(path), document)
    return ""
