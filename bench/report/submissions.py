"""What a check, an evaluation and the states of submissions look like on a terminal. Strangers' texts move no cursor."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.submission.check import Report
from bench.submission.evaluate import Evaluation
from bench.submission.manifest import printable
from bench.submission.states import Entry


def print_report(report: Report, level: str | None, console: Console) -> None:
    """Prints what a check found, what is wrong first."""
    table = Table(box=None, show_header=False)
    for finding in report.findings:
        table.add_row("WRONG" if finding.grave else "note", _plain(finding.name), _plain(finding.what))
        table.add_row("", "", f"mend: {_plain(finding.remedy)}")
    for name in report.passed:
        table.add_row("ok", _plain(name), "")
    console.print(table)
    if report.smoke:
        found = ", ".join(f"{name} {value:.2f}" for name, value in report.smoke.items())
        _say(console, f"Smoke evaluation (6 synthetic people, a budget of seconds; normalised leakage): {found}")
    grave = sum(finding.grave for finding in report.findings)
    how = f" (isolation: {level})" if level else ""
    _say(console, f"{grave} to mend{how}" if grave else f"all checks passed{how}")


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Prints claims beside what was measured, and what became of the submission."""
    for claim, value in evaluation.claims:
        what = f"{claim.metric} {claim.attacker or 'of the worst attacker'} on {claim.dataset}: claimed {claim.value:.2f}"
        if value is None:
            told = "not measured here"
        else:
            told = f"measured {value:.2f}, {'reproduced' if abs(value - claim.value) <= claim.tolerance else 'NOT REPRODUCED'}"
        _say(console, f"{what}, {told}")
    entry = evaluation.entry
    _say(console, f"{entry.provider}: {entry.state}{f' ({entry.reason})' if entry.reason else ''}")


def print_states(found: Sequence[Entry], console: Console, *, whole: bool) -> None:
    """Prints the states of submissions, or their whole histories."""
    table = Table(box=None)
    for column in ("submission", "kind", "isolation", "date", "state", "why"):
        table.add_column(column)
    for entry in found:
        for step in entry.data["history"] if whole else entry.data["history"][-1:]:
            stated = (
                entry.provider,
                entry.data["kind"],
                entry.data.get("isolation", ""),
                step["date"],
                step["state"],
                step["why"],
            )
            table.add_row(*map(_plain, stated))
    console.print(table)


def _say(console: Console, text: str) -> None:
    console.print(_plain(text), soft_wrap=True, highlight=False)


def _plain(text: str) -> str:
    return escape(printable(text))
