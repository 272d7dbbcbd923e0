"""`bench table --compare A B`: whether one anonymizer is better than another, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.files import UserError
from bench.measured import Group, Measured
from bench.metrics.comparison import Difference, difference, holm
from bench.threat import RANKING

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two anonymizers in one group of comparable results.

    Args:
        group: What the results share.
        names: The anonymizers, first and second.
        leakage: By attacker and threat level: chance-normalised leakage of the first less that of the second.
        corrected: P values of these after Holm's correction for their number, in the same order.
        utility: Utility retention of the first less that of the second.
    """

    group: Group
    names: tuple[str, str]
    leakage: dict[tuple[str, str], Difference]
    corrected: tuple[float, ...]
    utility: Difference

    def verdict(self) -> str:
        """One sentence for people, from the semi-informed attackers and the utility."""
        first, second = self.names
        sure = [
            found.estimate.value
            for ((_, threat), found), p in zip(self.leakage.items(), self.corrected, strict=True)
            if threat == RANKING and p < LEVEL
        ]
        less, more = sum(value < 0 for value in sure), sum(value > 0 for value in sure)
        privacy = "no attacker tells them apart for sure"
        if less or more:
            privacy = f"surely leaks less to {less} and more to {more} attackers ({RANKING})"
        use = "no sure difference in use"
        if self.utility.p_value < LEVEL:
            use = f"surely {'more' if self.utility.estimate.value > 0 else 'less'} useful"
        return f"{first} against {second}: {privacy}; {use}."


def compare(measured: Sequence[Measured], first: str, second: str) -> list[Comparison]:
    """Compares two anonymizers wherever the same attackers were measured on both.

    Raises:
        UserError: if that is nowhere.
    """
    comparisons = []
    for group in dict.fromkeys(m.group for m in measured):
        rows = [m for m in measured if m.group == group and not m.is_control]
        by_name = {
            name: {(m.first["names"]["attacker"], m.first["threat"]): m for m in rows if m.first["names"]["anonymizer"] == name}
            for name in (first, second)
        }
        both = [key for key in by_name[first] if key in by_name[second]]
        if not both:
            continue
        found = {key: difference(by_name[first][key].normalised, by_name[second][key].normalised) for key in both}
        retained = difference(by_name[first][both[0]].retention, by_name[second][both[0]].retention)
        corrected = tuple(float(p) for p in holm([one.p_value for one in found.values()]))
        comparisons.append(Comparison(group, (first, second), found, corrected, retained))
    if not comparisons:
        known = ", ".join(dict.fromkeys(m.first["names"]["anonymizer"] for m in measured))
        raise UserError(f"{first} and {second} were nowhere measured with the same attacker; measured: {known}")
    return comparisons


def print_comparisons(comparisons: Sequence[Comparison], console: Console) -> None:
    """Prints each as a table with its verdict."""
    for one in comparisons:
        table = Table(title=str(one.group), title_justify="left", box=None)
        for column in ("", "attacker", "threat", f"{one.names[0]} less {one.names[1]} [95 %]", "p", "p corrected"):
            table.add_column(column)
        for ((attacker, threat), found), p in zip(one.leakage.items(), one.corrected, strict=True):
            table.add_row("leakage", attacker, threat, _interval(found), _small(found.p_value), _small(p))
        table.add_row("utility", "", "", _interval(one.utility), _small(one.utility.p_value), "")
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
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"
