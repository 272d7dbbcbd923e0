"""The board on a terminal and in files."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.files import UserError, atomic_file, write_json
from bench.leaderboard import Board, board_row, boards, explain
from bench.records import Record, newest, of_interest, records
from bench.submission.states import Entry, entries, hidden_because
from bench.summary import measure_all
from bench.verdicts import reproductions

SCHEMA = 2
_OLDER = "there is newer code, or another method of the same name"
LEGEND = (
    "Rank: by the mean over the budgets (0.05, 0.10, 0.20, 0.40) of the use left within each; a method is behind another only if "
    "that is sure (95 %, for all methods together). Leakage: of the worst semi-informed attacker, chance 0, all right 1. "
    "Of 10 clips: the same, of the attacker that names most people if it has ten clips of one. "
    "Within: budgets that it stays within; with ?, as measured but not surely. Use: retention of a classifier that learns from "
    "released clips. Intervals say how much people differ, not how trainings do; where eight people were tested, one claim of a "
    "rank in ten may be wrong, not one in twenty."
)


@dataclass(frozen=True)
class Loaded:
    """The boards of a results folder, and what is not on them.

    Args:
        boards: One for each data set, protocol, preset and code.
        left_out: Records that do not count, and why.
        entries: Submissions that were received.
    """

    boards: tuple[Board, ...]
    left_out: tuple[tuple[Record, str], ...]
    entries: tuple[Entry, ...]

    def explain(self, name: str) -> list[str]:
        """As `bench.leaderboard.explain`.

        Raises:
            UserError: if nothing of the name was measured.
        """
        asked = [entry for entry in self.entries if name in (entry.data["name"], entry.provider)]
        told = [f"{e.provider}: {e.state}{f' ({e.reason})' if e.reason else ''}, {e.data['history'][-1]['date']}." for e in asked]
        try:
            return told + explain(self.boards, self.left_out, name)
        except UserError:
            if not told:
                raise
            return told  # it has no record that counts


def load_boards(results: Path, dataset: str | None, protocol: str | None, preset: str | None) -> Loaded:
    """Reads all records that fit; those of submissions that are off the board do not count.

    Raises:
        UserError: if there is none.
    """
    found = [record for record in records(results / "records") if of_interest(record, dataset, protocol, preset)]
    hidden, received = hidden_because(results), tuple(entries(results))
    kept, left_out = [], []
    for record in found:
        if why := hidden(record.data):
            left_out.append((record, why))
        else:
            kept.append(record)
    if not kept and not received:
        raise UserError(f"no records in {results} fit; `bench run` makes some, and --results names another folder")
    newer, _ = newest(kept)
    paths = {record.path for record in newer}
    left_out += [(record, _OLDER) for record in kept if record.path not in paths]
    measured = measure_all(newer, results)
    return Loaded(tuple(boards(measured, reproductions(results))), tuple(left_out), received)


def print_boards(found: Sequence[Board], console: Console) -> None:
    """Prints one table for each board; failed controls first."""
    for board in found:
        for line in board.grid.failed_controls:
            _say(console, f"CONTROL FAILED: {line}")
        table = Table(title=escape(str(board.group)), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        lines = [board_row(board, row) for row in board.rows]
        for name in lines[0]:
            table.add_column(name, no_wrap=name != "flags")
        for line in lines:
            table.add_row(*(escape(cell) for cell in line.values()))
        console.print(table)
        if (volume := board.grid.hypervolume) is not None:
            _say(console, f"Hypervolume {volume.value:.2f} [{volume.low:.2f}, {volume.high:.2f}].")
    _say(console, LEGEND)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def board_document(found: Sequence[Board]) -> dict[str, Any]:
    """All boards as JSON values."""
    return {"schema": SCHEMA, "boards": [board.summary() for board in found]}


def write_board_json(found: Sequence[Board], file: str) -> str:
    """Writes the boards; for "-" returns the text instead."""
    if file == "-":
        return json.dumps(board_document(found), sort_keys=True, allow_nan=False)
    write_json(Path(file), board_document(found))
    return ""


def write_board_csv(found: Sequence[Board], path: Path) -> None:
    """Writes a line for each method of each board, as on the terminal."""
    lines = [{**board.group._asdict(), **board_row(board, row)} for board in found for row in board.rows]
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]) if lines else ["method"])
        writer.writeheader()
        writer.writerows(lines)
