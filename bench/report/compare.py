"""`bench table --compare A B`: whether one anonymizer is better than another, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.files import UserError
from bench.grid import Grid
from bench.measured import Group, Measured
from bench.metrics.comparison import Difference, difference
from bench.metrics.uncertainty import Estimate
from bench.registry import ANONYMIZERS
from bench.specs import name_in_tables
from bench.threat import RANKING

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two anonymizers in one group of comparable results.

    Args:
        group: What the results share.
        names: The anonymizers, first and second.
        worst: What ranks them: leakage to the worst semi-informed attacker of the first less that of the second; None if one of
            them has none.
        withheld: Flags for which either has no rank, by its name.
        leakage: By attacker and threat level: chance-normalised leakage of the first less that of the second.
        utility: Utility retention of the first less that of the second.
    """

    group: Group
    names: tuple[str, str]
    worst: Difference | None
    withheld: Mapping[str, Sequence[str]]
    leakage: Mapping[tuple[str, str], Difference]
    utility: Difference

    def verdict(self) -> str:
        """One sentence for people, from the worst semi-informed attackers and the utility."""
        first, second = self.names
        if self.withheld:
            flags = "; ".join(f"{name}: {', '.join(flags)}" for name, flags in self.withheld.items())
            privacy = f"no verdict on leakage, for the flags of {flags}"
        elif self.worst is None:
            privacy = f"no verdict on leakage: not both were measured with {RANKING} attackers"
        elif self.worst.p_value < LEVEL:
            privacy = f"surely leaks {'less' if self.worst.estimate.value < 0 else 'more'} to its worst attacker"
        else:
            privacy = "no sure difference in leakage to the worst attacker"
        use = "no sure difference in use"
        if not np.isfinite(self.utility.estimate.value):
            use = "their use is not known"
        elif self.utility.p_value < LEVEL:
            use = f"surely {'more' if self.utility.estimate.value > 0 else 'less'} useful"
        return f"{first} against {second}: {privacy}; {use}."


def compare(measured: Sequence[Measured], first: str, second: str) -> list[Comparison]:
    """Compares two anonymizers wherever the same attackers were measured on both.

    Raises:
        UserError: if that is nowhere, or one of them was not measured.
    """
    known = dict.fromkeys(m.first["names"]["anonymizer"] for m in measured)
    first, second = (name if name in known else name_in_tables(name, ANONYMIZERS) for name in (first, second))
    for name in (name for name in (first, second) if name not in known):
        raise UserError(f"nothing of the name {name!r} was measured; there are {', '.join(known)}")
    comparisons = []
    for group in dict.fromkeys(m.group for m in measured):
        table = [m for m in measured if m.group == group]
        by_name = {
            name: {(m.first["names"]["attacker"], m.first["threat"]): m for m in table if m.first["names"]["anonymizer"] == name}
            for name in (first, second)
        }
        both = [key for key, m in by_name[first].items() if key in by_name[second] and not m.is_control]
        if not both:
            continue
        points = {point.anonymizer: point for point in Grid.of(table).points if point.anonymizer in (first, second)}
        worst = _paired(points[first].leakage, points[second].leakage) if {first, second} <= set(points) else None
        withheld = {name: point.withheld for name, point in points.items() if point.withheld}
        found = {key: difference(by_name[first][key].normalised, by_name[second][key].normalised) for key in both}
        retained = difference(by_name[first][both[0]].retention, by_name[second][both[0]].retention)
        comparisons.append(Comparison(group, (first, second), worst, withheld, found, retained))
    if not comparisons:
        raise UserError(f"{first} and {second} were nowhere measured with the same attacker")
    return comparisons


def _paired(one: Estimate, other: Estimate) -> Difference:
    """Worst attackers of two kinds were resampled apart; linkage leaves out resamples without pairs."""
    count = min(len(one.draws), len(other.draws))
    return difference(*(replace(e, draws=e.draws[:count]) for e in (one, other)))


def print_comparisons(comparisons: Sequence[Comparison], console: Console) -> None:
    """Prints each as a table with its verdict."""
    for one in comparisons:
        table = Table(title=str(one.group), title_justify="left", box=None)
        for column in ("", "attacker", "threat", f"{one.names[0]} less {one.names[1]} [95 %]", "p"):
            table.add_column(column)
        if one.worst:
            table.add_row("leakage", "the worst of each", RANKING, _interval(one.worst), _small(one.worst.p_value))
        for (attacker, threat), found in one.leakage.items():
            table.add_row("leakage", attacker, threat, _interval(found), _small(found.p_value))
        table.add_row("utility", "", "", _interval(one.utility), _small(one.utility.p_value))
        console.print(table)
        console.print(one.verdict(), soft_wrap=True, highlight=False)
    console.print(
        "Leakage: chance-normalised; utility: retention of the retrained classifier. People are resampled together for both "
        "methods; the spread between trainings is not in the intervals.",
        soft_wrap=True,
        highlight=False,
    )


def _small(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _interval(found: Difference) -> str:
    value = found.estimate
    ends = f"{value.low:+.2f}, {value.high:+.2f}" if np.isfinite(value.low) else "-, -"
    return f"{value.value:+.2f} [{ends}]"
