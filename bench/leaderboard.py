"""The board: what methods are worth, from records only. Terminal, files and pages are views of it.

A method's place is the use that it leaves at the leakages that a data holder may accept, as the VoicePrivacy Challenge 2022
ranks by utility at thresholds of privacy (Tomashenko et al., arXiv 2203.12468): its utility retention counts at a budget if its
worst semi-informed attacker stays within it, else nothing does. What that says is often that no method leaves any; then the
privacy rank beside it tells them apart.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bench.files import UserError
from bench.grid import BUDGETS, Grid, TradeOff
from bench.measured import Group, Measured
from bench.metrics.comparison import rank_ranges
from bench.metrics.uncertainty import EQUAL, LEVEL, Estimate
from bench.records import Record
from bench.registry import ANONYMIZERS, ATTACKERS
from bench.specs import name_in_tables
from bench.summary import CONTROLS, FLAGS, submitted
from bench.threat import RANKING
from bench.verdicts import Reproduction

RANKED, FLAGGED, UNRANKED = "ranked", "listed with flags", "no place"


@dataclass(frozen=True)
class Change:
    """A new attacker read more from a method than all before it.

    Args:
        date: When its first record was finished, "" if that is not known.
        attacker, provider: Who reads more, and whose it is.
        before, after: Normalised leakage of the worst semi-informed attacker.
    """

    date: str
    attacker: str
    provider: str
    before: float
    after: float


@dataclass(frozen=True)
class Row:
    """A method on the board.

    Args:
        anonymizer: Its spec.
        provider: Whose it is.
        isolation: How its code was kept apart: a level, "no code", or "" for what is installed.
        standing: `RANKED`, `FLAGGED`, or `UNRANKED` without a semi-informed attacker that works.
        point: Its worth at the level that ranks; None without.
        naive: The same against attackers that know nothing of it; None without.
        budget_rank, privacy_rank: Best and worst rank that it may have; None if it has none.
        pareto: Share of resamples in which it is in the Pareto set; None if it is not in that of the values.
        rows: Everything measured of it.
        measured: Date on which its last record was finished, "" if that is not known.
        audited: What audits last said of its records; empty if none was measured again.
        history: How its worst leakage rose, attacker by attacker.
    """

    anonymizer: str
    provider: str
    isolation: str
    standing: str
    point: TradeOff | None
    naive: TradeOff | None
    budget_rank: tuple[int, int] | None
    privacy_rank: tuple[int, int] | None
    pareto: float | None
    rows: tuple[Measured, ...]
    measured: str
    audited: tuple[Reproduction, ...]
    history: tuple[Change, ...]

    @property
    def attackers(self) -> tuple[str, ...]:
        """Attackers that met it at the level that ranks, controls left out."""
        met = (m.first["names"]["attacker"] for m in self.rows if m.first["threat"] == RANKING and not m.is_control)
        return tuple(dict.fromkeys(met))

    @property
    def seeds(self) -> int:
        return max((len(m.records) for m in self.rows if not m.is_control), default=0)

    @property
    def checked(self) -> str:
        """When it was last measured again, and whether the same came out; if it never was, when it was measured."""
        if not self.audited:
            return f"measured on {self.measured}" if self.measured else "-"
        wrong = [one for one in self.audited if not one.same]
        last = max(one.date for one in wrong or self.audited)[:10]
        count = f"{len(wrong or self.audited)} of {sum(len(record.keys) for m in self.rows for record in m.records)} records"
        return f"NOT reproduced on {last} ({count})" if wrong else f"reproduced on {last} ({count})"

    def within(self, budget: float) -> str:
        """ "surely", "as measured" or "no": whether its leakage is within a budget with its whole interval, or as measured."""
        if self.point is None or not self.point.leakage.value <= budget + EQUAL:
            return "no"
        return "surely" if self.point.leakage.high <= budget + EQUAL else "as measured"

    @property
    def kept_within(self) -> str:
        """The budgets that its leakage is within, and of which that is not sure; "-" if there is none."""
        told = ((budget, self.within(budget)) for budget in BUDGETS)
        return ", ".join(f"{b:.2f}{'' if how == 'surely' else '?'}" for b, how in told if how != "no") or "-"

    def summary(self) -> dict[str, Any]:
        """As JSON values; what is not known is absent."""
        found: dict[str, Any] = {"anonymizer": self.anonymizer, "provider": self.provider, "standing": self.standing}
        found |= {"attackers": list(self.attackers), "seeds": self.seeds}
        for name, text in (("isolation", self.isolation), ("measured", self.measured)):
            found |= {name: text} if text else {}
        found |= {"audited": [vars(one) for one in self.audited]} if self.audited else {}
        for name, rank in (("budget_rank", self.budget_rank), ("privacy_rank", self.privacy_rank)):
            found |= {name: list(rank)} if rank else {}
        if self.point:
            found |= _spread("leakage", self.point.leakage) | _spread("utility", self.point.utility)
            found |= {"attacker": self.point.attacker, "flags": list(self.point.withheld)}
            found["within"] = {f"{budget:.2f}": self.within(budget) for budget in BUDGETS}
        if self.point and self.point.of_ten:
            found |= _spread("leakage_of_10_clips", self.point.of_ten)
        if self.naive:
            found |= _spread("ignorant_leakage", self.naive.leakage) | {"ignorant_attacker": self.naive.attacker}
        found |= {"pareto": self.pareto} if self.pareto is not None else {}
        found["history"] = [vars(change) for change in self.history]
        return found


def _spread(name: str, value: Estimate) -> dict[str, float]:
    found = {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return {key: float(number) for key, number in found.items() if math.isfinite(number)}


@dataclass(frozen=True)
class Board:
    """All methods measured on one data set under one protocol, preset and code.

    Args:
        group: What they share.
        grid: Their statistics.
        rows: The methods: those with a place first, by it.
    """

    group: Group
    grid: Grid
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, measured: Sequence[Measured], audited: Mapping[str, Reproduction] = MappingProxyType({})) -> "Board":
        """The board of rows that share a group.

        Args:
            audited: What audits last said of records, by their keys.
        """
        grid = Grid.of(measured)
        places = budget_ranks(grid)
        points, naive = ({p.anonymizer: p for p in of} for of in (grid.points, grid.naive))
        rows = []
        for name in dict.fromkeys(m.first["names"]["anonymizer"] for m in measured):
            mine = tuple(m for m in measured if m.first["names"]["anonymizer"] == name)
            described, point = mine[0].first["anonymizer"], points.get(name)
            inside, share = grid.pareto.get(name, (False, 0.0))
            rows.append(
                Row(
                    anonymizer=name,
                    provider=described["provider"],
                    isolation=mine[0].first["fitting"].get("isolation", ""),
                    standing=UNRANKED if point is None else FLAGGED if point.withheld else RANKED,
                    point=point,
                    naive=naive.get(name),
                    budget_rank=places.get(name),
                    privacy_rank=grid.ranks.get(name),
                    pareto=share if inside else None,
                    rows=mine,
                    measured=max(_dates(mine), default="")[:10],
                    audited=tuple(_verdicts(mine, audited)),
                    history=history(mine),
                )
            )
        return cls(measured[0].group, grid, tuple(sorted(rows, key=_place)))

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        return {**self.grid.summary(), "methods": [row.summary() for row in self.rows]}


def _verdicts(rows: Sequence[Measured], audited: Mapping[str, Reproduction]) -> Iterator[Reproduction]:
    """What audits said of a method's records; that a submitted attacker says something else each time is not the method's."""
    for m in rows:
        for key in (key for record in m.records for key in record.keys if key in audited):
            if audited[key].same or not submitted(m.first["attacker"]):
                yield audited[key]


def _place(row: Row) -> tuple:
    worst = (math.inf, math.inf)
    leakage = row.point.leakage.value if row.point else math.inf
    return (RANKED, FLAGGED, UNRANKED).index(row.standing), row.budget_rank or worst, row.privacy_rank or worst, leakage


def budget_ranks(grid: Grid) -> Mapping[str, tuple[int, int]]:
    """Best and worst rank of each ranked method by the mean over the budgets of the use that it leaves within each.

    That mean jumps where a leakage crosses a budget, so that resamples say little of how sure it is. What is sure comes from
    intervals that hold all leakages and all uses together (Bonferroni, Dunn, JASA 56, 1961): a method is behind another if its
    mean is below that of the other wherever within them the truth lies. The chance of any false claim is then at most 0.05,
    if people are like those that were tested; where these are eight, and a few of them are named much more often than the
    others, it may be 0.1 in simulations.
    """
    points = grid.useful
    if not points:
        return {}
    together = 1 - (1 - LEVEL) / (2 * len(points))
    use = np.array([(e.low, e.high) for e in (point.utility.at(together) for point in points)])
    leakage = np.array([point.leakage_at(together) for point in points])
    known = np.isfinite(use).all(axis=1) & np.isfinite(leakage).all(axis=1)
    low, high = _within_budgets(use[:, 0], leakage[:, 1]), _within_budgets(use[:, 1], leakage[:, 0])
    ranks = rank_ranges(np.where(known, low, np.nan), np.where(known, high, np.nan))
    return {point.anonymizer: rank for point, rank in zip(points, ranks, strict=True)}


def _within_budgets(utility: np.ndarray, leakage: np.ndarray) -> np.ndarray:
    """(n,) mean over the budgets of the use that is left within each."""
    return np.mean([np.where(leakage <= budget + EQUAL, np.maximum(utility, 0.0), 0.0) for budget in BUDGETS], axis=0)


def boards(measured: Sequence[Measured], audited: Mapping[str, Reproduction] = MappingProxyType({})) -> list[Board]:
    """One board for each group; `audited` as for `Board.of`."""
    groups = dict.fromkeys(m.group for m in measured)
    return [Board.of([m for m in measured if m.group == group], audited) for group in groups]


def history(rows: Sequence[Measured]) -> tuple[Change, ...]:
    """The attackers of one method that read more than all before them, in the order in which they were first measured.

    The first of them is no change. Attackers whose dates are not known count as the first.
    """
    met = [m for m in rows if m.first["threat"] == RANKING and not m.is_control]
    ordered = sorted(met, key=lambda m: (min(_dates([m]), default=""), m.first["names"]["attacker"]))
    found, worst = [], None
    for date in dict.fromkeys(min(_dates([m]), default="")[:10] for m in ordered):  # of one day, the worst
        today = [m for m in ordered if min(_dates([m]), default="")[:10] == date]
        one = max(today, key=lambda m: m.normalised.value)
        value = one.normalised.value
        if worst is not None and value > worst:
            found.append(Change(date, one.first["names"]["attacker"], one.first["attacker"]["provider"], worst, value))
        worst = value if worst is None else max(worst, value)
    return tuple(found)


def _dates(rows: Iterable[Measured]) -> list[str]:
    """When the records of some rows were finished, as far as that is known."""
    found = []
    for record in (record for m in rows for record in m.records):
        with suppress(UserError):  # a manifest that is not there
            found.append(record.manifest().get("finished", ""))
    return [date for date in found if date]


def explain(found: Sequence[Board], left_out: Sequence[tuple[Record, str]], name: str) -> list[str]:
    """Why a method, or a record, is on the board or not: a sentence a line.

    Args:
        found: All boards.
        left_out: Records that do not count, and why.
        name: A method's spec, as it is written or with its default parameters, or the key of a record.

    Raises:
        UserError: if it is neither.
    """
    asked = {name, name_in_tables(name, ANONYMIZERS)}
    lines = [line for board in found for row in board.rows if row.anonymizer in asked for line in _of_row(board, row)]
    for board in found:
        for m in (m for row in board.rows for m in row.rows if name in {key for r in m.records for key in r.keys}):
            names = m.first["names"]
            counts = "it is in the table, with flags:" if m.flags else "it counts."
            lines.append(f"{board.group}: {names['anonymizer']} x {names['attacker']}, {m.first['threat']}: {counts}")
            lines += [f"  {flag}: {FLAGS[flag]}." for flag in m.flags]
    of_name = [(r, why) for r, why in left_out if asked & {r.data["key"], r.data["names"]["anonymizer"]}]
    lines += [f"{r.data['key']}: it is left out: {why}." for r, why in of_name]
    if not lines:
        attackers = {m.first["names"]["attacker"] for board in found for row in board.rows for m in row.rows}
        if attackers & {name, name_in_tables(name, ATTACKERS)}:
            raise UserError(
                f"{name} is an attacker: `bench table` has its rows, and --explain METHOD says which one ranks a method"
            )
        known = list(dict.fromkeys(row.anonymizer for board in found for row in board.rows))
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}, and keys of records"
        raise UserError(f"nothing of the name {name!r} was measured; {hint}")
    return lines


def _of_row(board: Board, row: Row) -> list[str]:
    where = f"{board.group}: "
    if row.point is None:
        met = ", ".join(sorted({m.first["threat"] for m in row.rows}))
        why = f"only {met} attackers met it" if not row.attackers else "no attacker that met it reaches its floor on raw clips"
        return [f"{where}no place: {why}; a place takes {RANKING} ones that work."]
    point = row.point
    value = f"{point.leakage.value:z.2f} [{point.leakage.low:z.2f}, {point.leakage.high:z.2f}]"
    lines = [f"{where}{row.standing}. Its worst {RANKING} attacker, {point.attacker}, reads {value} (chance 0, all right 1)."]
    lines += [f"  no rank for {flag}: {FLAGS[flag]}." for flag in point.withheld]
    use = f"{point.utility.value:z.2f}" if math.isfinite(point.utility.value) else "unknown"
    lines.append(
        f"  within the budgets {row.kept_within} (?: as measured, but not surely); its use is {use}."
        if row.kept_within != "-"
        else "  within no budget: its use counts nowhere."
    )
    if row.budget_rank:
        lines.append(f"  rank {_rank(row.budget_rank)} by use within budgets, {_rank(row.privacy_rank)} by privacy.")
    whole = {name for other in board.rows if other.anonymizer == CONTROLS[0] for name in other.attackers}
    if missing := sorted(whole - set(row.attackers)):
        lines.append(f"  attackers that it has not met, and identity has: {', '.join(missing)}.")
        if row.provider == "builtin":
            asked = f"--dataset {board.group.dataset} --anonymizer {row.anonymizer} --attacker {','.join(missing)}"
            lines.append(f"  `bench run {asked}` measures them, with the same preset, protocol and seeds.")
    lines.append(f"  {row.checked}.")
    return [*lines, *(f"  {text}." for text in board.grid.failed_controls)]


def _rank(rank: tuple[int, int] | None) -> str:
    return "-" if rank is None else f"{rank[0]}" if rank[0] == rank[1] else f"{rank[0]}-{rank[1]}"


def board_row(board: Board, row: Row) -> dict[str, str]:
    """A method as a line of text cells, for terminal and CSV."""

    def interval(value: Estimate | None) -> str:
        if value is None or not math.isfinite(value.value):
            return "-"
        ends = f" [{value.low:z.2f}, {value.high:z.2f}]" if math.isfinite(value.low) else " [-, -]"
        return f"{value.value:z.2f}{ends}"

    point, naive = row.point, row.naive
    return {
        "rank": _rank(row.budget_rank),
        "method": row.anonymizer,
        "use [95 %]": interval(point and point.utility),
        "worst leakage [95 %]": interval(point and point.leakage),
        "worst attacker": point.attacker if point else "-",
        "of 10 clips [95 %]": interval(point and point.of_ten),
        "within": row.kept_within,
        "privacy rank": _rank(row.privacy_rank),
        "ignorant": interval(naive and naive.leakage),
        "flags": ", ".join(point.withheld) if point else UNRANKED,
        "attackers": str(len(row.attackers)),
        "seeds": str(row.seeds),
        "provider": row.provider,
        "when": row.checked,
    }
