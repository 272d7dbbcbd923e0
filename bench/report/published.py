"""`bench leaderboard --publish`: all that is published, made anew from records at once.

    NAME.csv, .txt, .png            a data set's table in the common row format, as `bench table` prints it, and its figure
    leaderboard.csv, .txt, .json    the boards of all of them

Other files in the folder are left as they are.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from bench.files import atomic_file, file_name
from bench.leaderboard import Board
from bench.report.board import print_boards, write_board_csv, write_board_json
from bench.report.pareto import pareto_figure, save_figure
from bench.report.table import print_tables, write_csv

_WIDE = 10_000  # characters: lines are not folded


def write_published(boards: Sequence[Board], folder: Path) -> list[Path]:
    """Writes tables, figures and boards.

    Returns:
        The files.
    """
    written = []
    for board in boards:
        path = folder / _name(board, boards)
        measured = board.grid.measured
        figure = save_figure(pareto_figure(board.grid, str(board.group)), path.with_name(f"{path.name}.png"))
        text = _print(path, lambda console, measured=measured: print_tables(measured, console))
        table = path.with_name(f"{path.name}.csv")
        write_csv(measured, table)
        written += [table, text, figure]
    path = folder / "leaderboard"
    write_board_csv(boards, path.with_suffix(".csv"))
    write_board_json(boards, str(path.with_suffix(".json")))
    text = _print(path, lambda console: print_boards(boards, console))
    return [*written, path.with_suffix(".csv"), text, path.with_suffix(".json")]


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
    path = path.with_name(f"{path.name}.txt")
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        show(Console(file=file, width=_WIDE))
    return path
