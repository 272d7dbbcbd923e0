"""`bench leaderboard --html`: the boards as pages that need no server and ask for nothing from elsewhere.

    index.html          figure and tables of all boards, for every target and level
    reading.html        how to read them, from the protocols, levels, flags and budgets themselves
    method-*.html       everything measured of one method on one board
    leaderboard.json, leaderboard.csv
    .bench-pages        names of all of these: nothing else may be in the folder when they are replaced

Names come from strangers: the templates escape whatever they are given, and JSON within a page cannot end its element.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from bench.files import UserError, atomic_folder, digest, file_name
from bench.grid import BUDGETS, TradeOff, trade_off
from bench.leaderboard import Board, Row, board_row
from bench.measured import Measured
from bench.metrics.uncertainty import Estimate
from bench.report.board import write_board_csv, write_board_json
from bench.report.motion import Motion, motion_of
from bench.submission.manifest import Manifest, ManifestError, read_manifest
from bench.submission.states import entries, submitted_as
from bench.summary import FLAGS, REMARKS, WITHHOLDING
from bench.threat import RANKING, THREATS

_MARK = ".bench-pages"
_ALL = "worst of all"
_LONG = 80  # characters of a file name
_RISKS = {
    "worst_person": "Most exposed person",
    "p95_person": "95th percentile",
    "exposed_people": "People found more often than not",
    "singled_out_people": "People found ten times as often as by chance",
    "gini": "Unevenness (Gini)",
}


def write_site(boards: Sequence[Board], folder: Path, results: Path) -> Path:
    """Writes the pages; a folder that holds nothing but earlier ones is replaced whole.

    Args:
        results: Folder in which released synthetic clips may lie, for the pages of methods.

    Raises:
        UserError: if the folder holds other things.
    """
    if others := _others(folder):
        raise UserError(f"{folder} holds other things than these pages ({others[0]}); choose another folder or empty it")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report", "site"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["interval"] = _interval
    environment.filters["key"] = _key
    environment.globals |= {"style": _asset("site.css"), "asset": _asset, "json": _embedded}
    environment.globals |= {"budgets": BUDGETS, "flags": FLAGS, "risks": _RISKS, "most_exposing": _most_exposing}
    manifests = dict(_manifests(results))
    with atomic_folder(folder.resolve()) as temporary:

        def write(name: str, template: str, **values: Any) -> None:
            (temporary / name).write_text(environment.get_template(template).render(**values), encoding="utf-8")

        overview = {"boards": [_of_board(board, i) for i, board in enumerate(boards)], "budgets": BUDGETS, "all": _ALL}
        write("index.html", "overview.html", boards=boards, data=overview, cells=_cells)
        write(
            "reading.html",
            "reading.html",
            boards=boards,
            threats=THREATS.values(),
            ranking=RANKING,
            withholding=WITHHOLDING,
            remarks=REMARKS,
        )
        for i, board in enumerate(boards):
            for row in board.rows:
                motion = motion_of(row, results)
                shown = {"cells": board_row(board, row), "motion": motion, "data": _of_motion(motion)}
                write(page(i, row), "method.html", board=board, row=row, stated=_stated(row, manifests), **shown)
        write_board_csv(boards, temporary / "leaderboard.csv")
        write_board_json(boards, str(temporary / "leaderboard.json"))
        (temporary / _MARK).write_text("".join(f"{path.name}\n" for path in sorted(temporary.iterdir())), encoding="utf-8")
    return folder / "index.html"


def _others(folder: Path) -> list[str]:
    """Names in a folder that are not those of pages written into it before."""
    if not folder.exists():
        return []
    mark = folder / _MARK
    ours = {_MARK, *mark.read_text(encoding="utf-8").splitlines()} if mark.is_file() else set()
    return sorted({path.name for path in folder.iterdir()} - ours)


def page(board: int, row: Row) -> str:
    """File name of a method's page."""
    name = file_name(row.anonymizer).replace("=", "_")
    return f"method-{board}-{name if len(name) < _LONG else f'{name[:_LONG]}-{digest(row.anonymizer)}'}.html"


def _asset(name: str) -> Any:
    """A style or a script of ours, to stand in a page as it is."""
    from importlib.resources import files

    return jinja2.utils.markupsafe.Markup(files("bench.report").joinpath("site", name).read_text(encoding="utf-8"))


def _embedded(value: Any) -> Any:
    """JSON for a script element: nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
    return jinja2.utils.markupsafe.Markup(text)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:z.2f}"


def _key(value: float) -> str:
    """What a column sorts by; nothing where it is not known."""
    return f"{value:.6f}" if math.isfinite(value) else ""


def _interval(value: Estimate | None) -> str:
    if value is None or not math.isfinite(value.value):
        return "-"
    return f"{value.value:z.2f} [{_number(value.low)}, {_number(value.high)}]"


def _ends(value: Estimate) -> list[float | None]:
    """Value, low and high; None where unknown."""
    return [_rounded(x) for x in (value.value, value.low, value.high)]


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _cells(board: Board) -> list[dict[str, str]]:
    return [board_row(board, row) for row in board.rows]


def _of_board(board: Board, number: int) -> dict[str, Any]:
    """What the overview's script needs of a board: its points for every target and level."""
    rows = {row.anonymizer: row for row in board.rows}
    measured = board.grid.measured
    attacks = [m for m in measured if not m.is_control]
    targets = list(dict.fromkeys(m.first["target"] for m in attacks))
    threats = [name for name in THREATS if any(m.first["threat"] == name for m in attacks)]
    views = {}
    for target in (_ALL, *targets):
        chosen = [m for m in measured if target in (_ALL, m.first["target"])]
        for threat in threats:
            points = trade_off(chosen, threat)
            views[f"{target}|{threat}"] = [
                _of_point(point, rows[point.anonymizer], number, threat == RANKING) for point in points
            ]
    return {
        "name": str(board.group),
        "targets": [_ALL, *targets] if len(targets) > 1 else [_ALL],
        "threats": threats,
        "ranking": RANKING,
        "rooms": {name: round(value, 4) for name, value in board.grid.rooms.items() if math.isfinite(value)},
        "priors": _priors(attacks),
        "failed": list(board.grid.failed_controls),
        "views": views,
    }


def _priors(attacks: Sequence[Measured]) -> dict[str, float]:
    """Chance-normalised top-1 of always naming the most frequent class, for each target."""
    found = {m.first["target"]: (m.first["prior"] - m.first["chance"]) / (1 - m.first["chance"]) for m in attacks}
    return {target: round(max(0.0, value), 4) for target, value in found.items()}


def _of_point(point: TradeOff, row: Row, number: int, ranks: bool) -> dict[str, Any]:
    found = {
        "method": point.anonymizer,
        "page": page(number, row),
        "provider": row.provider,
        "use": _ends(point.utility),
        "leak": _ends(point.leakage),
        "ten": _ends(point.of_ten) if point.of_ten else [None] * 3,
        "attacker": point.attacker,
        "family": point.family,
        "strength": point.strength if math.isfinite(point.strength) else None,
        "flags": list(point.withheld),
        "when": row.checked,
    }
    return found | ({"rank": row.budget_rank, "privacy": row.privacy_rank} if ranks else {})


def _of_motion(motion: Motion) -> dict[str, Any] | None:
    if motion.raw is None:
        return None
    raw, released = ([[axis.tolist() for axis in frame] for frame in clip] for clip in (motion.raw, motion.released))
    return {"raw": raw, "released": released, "edges": motion.edges, "rate": motion.frame_rate}


def _most_exposing(rows: Sequence[Measured]) -> list[Measured]:
    """Of each level of knowledge the attacker that names most people."""
    levels = [[m for m in rows if m.first["threat"] == threat] for threat in THREATS]
    return [max(level, key=lambda m: m.normalised.value) for level in levels if level]


def _manifests(results: Path) -> Iterator[tuple[str, Manifest]]:
    """What the submissions below the results state, by what their records call them."""
    for entry in entries(results):
        with contextlib.suppress(ManifestError):  # of an older schema
            yield entry.data["identity"], read_manifest(entry.files)


def _stated(row: Row, manifests: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """What the authors of a method, and of the attackers that met it, state, as far as they were submitted."""
    plugins = {"anonymizer": row.rows[:1], "attacker": row.rows}
    found = {submitted_as(m.first[side]): side for side, measured in plugins.items() for m in measured}
    dataset = row.rows[0].first["dataset"].partition(":")[0]
    return [
        {
            **{name: getattr(manifests[key], name) for name in ("name", "authors", "licence", "paper", "training_data")},
            "makes_attack": side == "attacker",
            "saw": dataset if dataset in {name.partition(":")[0] for name in manifests[key].training_data} else "",
        }
        for key, side in found.items()
        if key in manifests
    ]
