"""The report of `bench validate`: a page of what was claimed and found, its numbers as CSV, and figures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.files import atomic_file, package_version
from bench.records import git_commit
from bench.report.pareto import save_figure
from bench.validation.study import Study

_OURS, _OTHER, _THIRD = "#0072B2", "#D55E00", "#009E73"


def write_report(studies: Sequence[Study], folder: Path, how: str) -> Path:
    """Writes `README.md`, `validation.png` and a CSV a study; returns the page.

    Args:
        studies: What was found.
        folder: Where to.
        how: The command that made it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for study in studies:
        with atomic_file(folder / f"{study.name[0]}.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(study.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in study.rows)
    save_figure(_figure(studies), folder / "validation.png")
    page = folder / "README.md"
    with atomic_file(page) as temporary:
        temporary.write_text(_page(studies, how), encoding="utf-8")
    return page


def _page(studies: Sequence[Study], how: str) -> str:
    lines = [
        "# The instrument, validated",
        "",
        f"Made by `{how}`, {_code()}.",
        "Simulated people and test parts whose truth is known, and what the instrument says of them.",
        "",
        "![Figures of all studies](validation.png)",
    ]
    for study in studies:
        lines += ["", f"## {study.name}", "", study.question, "", "| claim | holds |", "| --- | --- |"]
        lines += [f"| {claim.text} | {'yes' if claim.holds else '**no**'} |" for claim in study.claims]
        lines += ["", f"Numbers: [{study.name[0]}.csv]({study.name[0]}.csv)."]
    return "\n".join(lines) + "\n"


def _code() -> str:
    """Which code did: its version, and its commit where that is known."""
    commit = git_commit()
    changed = ", with changes" if commit.endswith("+") else ""
    return f"version {package_version('skeleton-privacy-bench')}" + (f", commit {commit[:12]}{changed}" if commit else "")


def _figure(studies: Sequence[Study]) -> Figure:
    figure = Figure(figsize=(17, 8), layout="constrained", dpi=110)
    draw = {"a": _alarms, "b": _coverage, "c": _dials, "d": _channels, "e": _strength, "f": _pitfalls, "g": _worst}
    places = figure.subplot_mosaic("abcd\nebfg")  # (b) has many cases
    for letter in places.keys() - {study.name[0] for study in studies}:
        places[letter].set_axis_off()
    for study in studies:
        axes = places[study.name[0]]
        draw[study.name[0]](axes, study)
        axes.set_title(f"{study.name}{'' if study.holds else ': DOES NOT HOLD'}", loc="left", fontsize=10)
        axes.grid(alpha=0.25)
    return figure


def _alarms(axes: Axes, study: Study) -> None:
    for place, row in enumerate(study.rows):
        errors = [[row["rate"] - row["low"]], [row["high"] - row["rate"]]]
        axes.errorbar(row["rate"], place, xerr=errors, fmt="o", color=_OURS, capsize=3)
    names = [f"{row['attacker']}\n{row['alarm']}" for row in study.rows]
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.axvline(0.05, color=_OTHER, linestyle="--", label="0.05")
    axes.set(xlabel="share of sets without identity\nin which a leak is claimed", xlim=(-0.005, None))
    axes.legend(fontsize=7)


def _coverage(axes: Axes, study: Study) -> None:
    rows = study.rows
    names = [f"{row['kind']} {row['people']} {row['truth']}" for row in rows]
    axes.plot([row["coverage"] for row in rows], range(len(rows)), "o", color=_OURS, label="over people")
    axes.plot([row["naive"] for row in rows], range(len(rows)), "x", color=_OTHER, label="as if clips were\nindependent")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.axvspan(0.93, 0.97, color=_THIRD, alpha=0.2)
    axes.set(xlabel="share of intervals that hold the truth", xlim=(0.3, 1.01))
    axes.legend(fontsize=7, loc="center left")


def _curves(axes: Axes, study: Study, by: str, along: str) -> None:
    for colour, name in zip((_OURS, _OTHER, _THIRD), dict.fromkeys(row[by] for row in study.rows), strict=False):
        rows = [row for row in study.rows if row[by] == name]
        at = sorted({row[along] for row in rows})
        axes.plot([row[along] for row in rows], [row["leakage"] for row in rows], "o", color=colour, alpha=0.35, markersize=4)
        axes.plot(at, [np.mean([r["leakage"] for r in rows if r[along] == x]) for x in at], color=colour, label=name)
    axes.set(ylim=(-0.02, 1.02), ylabel="leakage")
    axes.legend(fontsize=7)


def _dials(axes: Axes, study: Study) -> None:
    _curves(axes, study, "dial", "level")
    axes.axhline(1 / 12, color="#888888", linestyle=":")
    axes.set(xlabel="dial (1 is realistic)")


def _strength(axes: Axes, study: Study) -> None:
    _curves(axes, study, "attacker", "share")
    axes.set(xlabel="share of the training clips", xscale="log")


def _bars(axes: Axes, names: Sequence[str], values: Sequence[Sequence[float]], chance: float) -> None:
    for place, found in enumerate(values):
        axes.plot([np.mean(found)] * 2, [place - 0.3, place + 0.3], color=_OURS, linewidth=3)
        axes.plot(found, [place] * len(found), "o", color=_OURS, alpha=0.4, markersize=4)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.axvline(chance, color="#888888", linestyle=":", label="chance")
    axes.set(xlim=(-0.02, 1.02), xlabel="leakage")
    axes.legend(fontsize=7)


def _worst(axes: Axes, study: Study) -> None:
    names = [f"{row['people']} people, {row['attackers']} {row['attackers_are']}" for row in study.rows]
    axes.plot([row["above"] for row in study.rows], range(len(names)), "o", color=_OURS, label="for the largest of several")
    axes.plot([row["own_above"] for row in study.rows], range(len(names)), "x", color=_OTHER, label="the chosen attacker's own")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.axvline(0.025, color=_OTHER, linestyle="--")
    axes.set(xlabel="share of intervals above the truth\n(0.025 at most)", xlim=(-0.005, None), ylim=(-0.7, len(names) + 1))
    axes.legend(fontsize=7)


def _channels(axes: Axes, study: Study) -> None:
    keys = list(dict.fromkeys((row["attacker"], row["removes"]) for row in study.rows))
    values = [[r["leakage"] for r in study.rows if (r["attacker"], r["removes"]) == key] for key in keys]
    _bars(axes, [f"{attacker}\n{removes} removed" for attacker, removes in keys], values, 1 / 12)


def _pitfalls(axes: Axes, study: Study) -> None:
    keys = list(dict.fromkeys((row["pitfall"], row["measured"]) for row in study.rows))
    values = [[r["leakage"] for r in study.rows if (r["pitfall"], r["measured"]) == key] for key in keys]
    _bars(axes, [f"{pitfall}:\n{measured}" for pitfall, measured in keys], values, 1 / 12)
