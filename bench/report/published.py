"""`bench leaderboard --publish`: all that is published of a data set, made anew from its records at once.

    NAME.csv, .txt, .png          its table in the common row format, as `bench table` prints it, and its figure
    NAME-board.csv, .txt, .json   its board, as `bench leaderboard` prints it
    boards.md                     all boards of the folder side by side and in short, those among them that were published before

Other files in the folder are left as they are: data sets may be published one at a time, from different results folders.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.files import atomic_file, file_name
from bench.leaderboard import Board
from bench.report.board import LEGEND, print_boards, write_board_csv, write_board_json
from bench.report.pareto import pareto_figure, save_figure
from bench.report.table import print_tables, write_csv

_WIDE = 10_000  # characters: lines are not folded
_ABOUT = ("dataset", "protocol", "preset", "version")
_WORST, _TEN, _USE = "worst leakage [95 %]", "of 10 clips [95 %]", "use [95 %]"
_SHORT = (
    *("method", "ignorant", _WORST, "worst attacker", _TEN, _USE, "within"),
    *("rank", "privacy rank", "flags"),
)

_SIDE_BY_SIDE = (
    "Worst leakage / the same of ten clips of one person / use. Methods whose largest leakage, of the boards that they are on, "
    "is smallest stand first; intervals, and what such an order is worth, are below."
)


def write_published(boards: Sequence[Board], folder: Path) -> list[Path]:
    """Writes tables, figures and boards.

    Returns:
        The files.
    """
    written = []
    for board in boards:
        table, of_board = (folder / f"{_name(board, boards)}{ending}" for ending in ("", "-board"))
        measured = board.grid.measured
        figure = save_figure(pareto_figure(board.grid, str(board.group)), _with(table, ".png"))
        write_csv(measured, _with(table, ".csv"))
        write_board_csv([board], _with(of_board, ".csv"))
        write_board_json([board], str(_with(of_board, ".json")))
        written += [figure, *(_with(path, ".csv") for path in (table, of_board)), _with(of_board, ".json")]
        written.append(_print(table, lambda console, measured=measured: print_tables(measured, console)))
        written.append(_print(of_board, lambda console, board=board: print_boards([board], console)))
    return [*written, _overview(folder)] if written else []


def _overview(folder: Path) -> Path:
    """Writes what the `-board.csv` of the folder say as a page: all of them side by side, then a section a board."""
    lines = ["# Boards", "", "Made by `bench leaderboard --publish`, from the `-board.csv` beside it. " + LEGEND]
    found = []
    for path in sorted(folder.glob("*-board.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if not table.empty and {*_ABOUT, *_SHORT} - {_TEN} <= {*table}:  # or it is no board
            found.append(table.reindex(columns=[*_ABOUT, *_SHORT], fill_value="-"))  # one of before may lack what was added
    if len(found) > 1:
        lines += ["", "## Side by side", "", _SIDE_BY_SIDE, "", *_side_by_side(found)]
    for table in found:
        about = table.iloc[0]
        lines += [
            "",
            f"## {about['dataset']} (protocol {about['protocol']}, preset {about['preset']}, version {about['version']})",
            "",
        ]
        lines += [_line(_SHORT), _line("---" for _ in _SHORT)]
        lines += [_line(row) for row in table.loc[:, list(_SHORT)].itertuples(index=False)]
    with atomic_file(folder / "boards.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "boards.md"


def _side_by_side(tables: Sequence[pd.DataFrame]) -> list[str]:
    """A row a method and a column a board: worst leakage, that of ten clips, use; methods that leak least at worst first."""
    names = [table["dataset"].iloc[0] for table in tables]
    names = [
        name if names.count(name) == 1 else f"{name}, {table['protocol'].iloc[0]}, {table['preset'].iloc[0]}"
        for name, table in zip(names, tables, strict=True)
    ]
    cells: dict[str, dict[str, str]] = {}
    leaks: dict[str, list[float]] = {}
    for name, table in zip(names, tables, strict=True):
        for row in table.to_dict("records"):
            worst, ten, use = (row[column].partition(" ")[0] for column in (_WORST, _TEN, _USE))
            cells.setdefault(row["method"], {})[name] = f"{worst} / {ten} / {use}"
            with suppress(ValueError):  # "-", where nothing is known
                leaks.setdefault(row["method"], []).append(float(worst))
    ordered = sorted(cells, key=lambda method: (max(leaks.get(method, [math.inf])), method))
    lines = [_line(["method", *names]), _line("---" for _ in ["method", *names])]
    return lines + [_line([method, *(cells[method].get(name, "") for name in names)]) for method in ordered]


def _line(cells: Iterable[str]) -> str:
    """A row of a Markdown table, whose cells are text and nothing else."""
    return "| " + " | ".join(re.sub(r"([\\|`*_<]|\](?=\())", r"\\\1", " ".join(cell.split())) for cell in cells) + " |"


def _with(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}{ending}")  # the name itself may hold a full stop


def _name(board: Board, boards: Sequence[Board]) -> str:
    """That of the data set; of several boards of one, also what sets them apart."""
    names = [_apart(one) for one in boards]
    mine = _apart(board)
    for count in range(1, len(mine)):
        if Counter(name[:count] for name in names)[mine[:count]] == 1:
            return file_name("-".join(mine[:count]))
    return file_name("-".join(mine))


def _apart(board: Board) -> tuple[str, ...]:
    group = board.group
    return group.dataset, group.protocol, group.preset, group.version


def _print(path: Path, show: Callable[[Console], None]) -> Path:
    """Keeps as text what a console would show."""
    path = _with(path, ".txt")
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        show(Console(file=file, width=_WIDE))
    return path
