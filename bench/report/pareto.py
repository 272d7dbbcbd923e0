"""The Pareto figure: what is left of the use against the worst that leaks, with intervals on both axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.isotonic import isotonic_regression

from bench.files import atomic_file
from bench.grid import BUDGETS, Grid, TradeOff

_LOW, _HIGH = -0.04, 1.06  # of the axis of leakage
_LINE = 0.047  # height of a name of 8 points, in units of leakage
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # safe for colour-blind readers
_SHAPES = "osD^vP*"  # the next one once all colours are taken


def pareto_figure(grid: Grid, title: str) -> Figure:
    """Draws every anonymizer of one table.

    A filled point is the worst semi-informed attacker, which ranks the method; an open one is the worst ignorant attacker, which
    does not. A line joins the strengths of one method. Shaded bands are leakage budgets; the stairs are the least leakage at
    which any method gives that utility.
    """
    figure = Figure(figsize=(9.8, 5.8), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    _draw_budgets(axes)
    _draw_controls(axes, grid)
    points, naive = _drawable(grid.points), _drawable(grid.naive)
    families = list(dict.fromkeys(p.family for p in (*points, *naive)))
    styles = {family: _style(i) for i, family in enumerate(families)}
    for family in families:
        _draw_curve(axes, [p for p in points if p.family == family], styles[family]["color"])
    for point in naive:
        axes.plot(point.utility.value, point.leakage.value, **styles[point.family], markersize=6, mfc="white", zorder=4)
    for point in points:
        _draw_point(axes, point, styles[point.family])
    if grid.useful:
        _draw_pareto_set(axes, grid)
        title += f"\nhypervolume {grid.hypervolume.value:.2f} [{grid.hypervolume.low:.2f}, {grid.hypervolume.high:.2f}]"
    if not points:
        axes.text(0.5, 0.5, "no point: no semi-informed attacker, or no utility to retain", transform=axes.transAxes, ha="center")
    axes.plot([], [], "o", markersize=8, color="#777777", label="worst semi-informed attacker, 95 % interval over people")
    axes.plot([], [], "o", markersize=6.5, mfc="white", mec="#777777", label="worst ignorant attacker (does not rank)")
    axes.set(
        xlabel="utility retention (action accuracy of a retrained classifier; raw clips = 1, guessing = 0)",
        ylabel="leakage of the worst attacker\n(normalised: chance = 0, every clip named = 1)",
        ylim=(_LOW, _HIGH),
    )
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.08), max(high, 1.08))
    _draw_names(axes, points, {family: style["color"] for family, style in styles.items()})
    if grid.failed_controls:
        title = f"CONTROLS FAILED: {len(grid.failed_controls)}, see the table\n{title}"
    axes.set_title(title, fontsize=10, loc="left", color="#B00000" if grid.failed_controls else "black")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.get_layout_engine().set(w_pad=0.1)
    return figure


def _drawable(points: Sequence[TradeOff]) -> list[TradeOff]:
    return [point for point in points if np.isfinite(point.utility.value)]


def _draw_budgets(axes: Axes) -> None:
    for low, high in zip((0.0, *BUDGETS), BUDGETS, strict=False):
        axes.axhspan(low, high, color="#009E73", alpha=0.16 - 0.25 * low, linewidth=0, zorder=0)
        place = {"xycoords": ("axes fraction", "data"), "xytext": (3, -9), "textcoords": "offset points"}
        axes.annotate(f"L ≤ {high:.2f}", (0, high), fontsize=7, color="#3a6b5a", **place)
    axes.axhline(0, color="black", linewidth=0.8)
    place = {"xycoords": ("axes fraction", "data"), "xytext": (-4, -10), "textcoords": "offset points"}
    axes.annotate("chance", (1, 0), ha="right", fontsize=8, **place)


def _style(number: int) -> dict[str, str]:
    """Colour and shape of a family of methods."""
    shape, colour = divmod(number, len(_COLOURS))
    return {"color": _COLOURS[colour], "marker": _SHAPES[shape % len(_SHAPES)], "linestyle": "none"}


def _draw_point(axes: Axes, point: TradeOff, style: Mapping[str, str]) -> None:
    across, up = ([[max(e.value - e.low, 0)], [max(e.high - e.value, 0)]] for e in (point.utility, point.leakage))
    place = point.utility.value, point.leakage.value
    axes.errorbar(*place, xerr=across, yerr=up, **style, markersize=7.5, capsize=2.5, elinewidth=1.2, zorder=5)


def _draw_curve(axes: Axes, points: Sequence[TradeOff], colour: str) -> None:
    """Joins the strengths of one method, the weakest first."""
    points = sorted(points, key=lambda p: p.strength)
    axes.plot(
        [p.utility.value for p in points], [p.leakage.value for p in points], color=colour, linewidth=1.6, alpha=0.6, zorder=3
    )


def _draw_names(axes: Axes, points: Sequence[TradeOff], colours: Mapping[str, str]) -> None:
    """Writes the names of all points in a column beside the axes, each as near to the height of its point as the others allow."""
    if not points:
        return
    points = sorted(points, key=lambda p: (p.leakage.value, -p.utility.value))
    line = min(_LINE, (_HIGH - _LOW) / len(points))
    steps = line * np.arange(len(points))
    top = _HIGH - line * (len(points) - 0.5)
    heights = steps + isotonic_regression([p.leakage.value for p in points] - steps, y_min=_LOW + line / 2, y_max=top)
    for point, height in zip(points, heights, strict=True):
        colour = colours[point.family]
        axes.annotate(
            f"{point.anonymizer} ({point.attacker}){': ' + ', '.join(point.withheld) if point.withheld else ''}",
            (point.utility.value, point.leakage.value),
            xytext=(1.03, height),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=max(8 * line / _LINE, 4),
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.7, "relpos": (0, 0.5), "shrinkA": 0},
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=3,
        )


def _draw_pareto_set(axes: Axes, grid: Grid) -> None:
    """The stairs of the Pareto set of the ranked methods."""
    best = [(p.utility.value, p.leakage.value) for p in grid.useful if grid.pareto[p.anonymizer][0]]
    stairs = {"drawstyle": "steps-pre", "color": "#555555", "linewidth": 1, "linestyle": "--", "zorder": 2}
    axes.plot(*zip(*sorted(best), strict=True), label="Pareto set", **stairs)


def _draw_controls(axes: Axes, grid: Grid) -> None:
    """What is known without looking at the body: by room, camera and length, and by naming the most frequent class, or any."""
    axes.axhline(0, color="#888888", linewidth=1, linestyle="-.", label="always naming the most frequent class, or any", zorder=1)
    for (target, value), style in zip(grid.rooms.items(), (":", (0, (1, 4)), (0, (3, 1, 1, 1))), strict=False):
        axes.axhline(value, color="#888888", linewidth=1, linestyle=style, label=f"{target}: room, camera and length", zorder=1)


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a PNG atomically."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path
