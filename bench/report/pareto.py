"""The Pareto figure: what is left of the use against the worst that leaks, with intervals on both axes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bench.files import atomic_file
from bench.metrics.tradeoff import hypervolume, pareto_set
from bench.summary import Measured, TradeOff, trade_off

BUDGETS = (0.05, 0.10, 0.20, 0.40)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # safe for colour-blind readers


def pareto_figure(measured: Sequence[Measured], title: str) -> Figure:
    """Draws every anonymizer of one table.

    A filled point is the worst semi-informed attacker, which ranks the method; an open one is the worst ignorant attacker, which
    does not. Shaded bands are leakage budgets; the line joins the Pareto set.
    """
    figure = Figure(figsize=(8.5, 5.5), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    for low, high in zip((0.0, *BUDGETS), BUDGETS, strict=False):
        axes.axhspan(low, high, color="#009E73", alpha=0.16 - 0.25 * low, linewidth=0, zorder=0)
    points, naive = (
        [p for p in trade_off(measured, threat) if np.isfinite(p.utility.value)] for threat in ("semi-informed", "ignorant")
    )
    names = list(dict.fromkeys(p.anonymizer for p in (*points, *naive)))
    if not names:
        axes.text(
            0.5,
            0.5,
            "no utility to retain: the action classifier does not beat chance on raw clips",
            transform=axes.transAxes,
            ha="center",
        )
    colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    offsets = (
        dict(zip(names, np.linspace(-0.006, 0.006, len(names)), strict=True)) if len(names) > 1 else dict.fromkeys(names, 0.0)
    )
    for point in naive:
        axes.scatter(
            point.utility.value + offsets[point.anonymizer],
            point.leakage.value,
            s=42,
            facecolors="white",
            edgecolors=colour[point.anonymizer],
            zorder=4,
        )
    for point in points:
        _draw(axes, point, colour[point.anonymizer], offsets[point.anonymizer])
    if points:
        utility = np.array([p.utility.value for p in points])
        leakage = np.array([p.leakage.value for p in points])
        best = np.flatnonzero(pareto_set(utility, leakage))
        best = best[np.argsort(utility[best])]
        axes.plot(utility[best], leakage[best], color="#555555", linewidth=1, linestyle="--", zorder=2, label="Pareto set")
        title += f"\nhypervolume {hypervolume(utility, leakage):.2f}"
    axes.scatter([], [], s=60, color="#777777", label="worst semi-informed attacker, 95 % interval over people")
    axes.scatter([], [], s=42, facecolors="white", edgecolors="#777777", label="worst ignorant attacker (does not rank)")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.annotate(
        "chance", (1, 0), xycoords=("axes fraction", "data"), xytext=(-4, 3), textcoords="offset points", ha="right", fontsize=8
    )
    for budget in BUDGETS:
        axes.annotate(
            f"{budget:.2f}",
            (0, budget),
            xycoords=("axes fraction", "data"),
            xytext=(3, -9),
            textcoords="offset points",
            fontsize=7,
            color="#3a6b5a",
        )
    axes.set(
        xlabel="utility retention (action accuracy of a retrained classifier; raw clips = 1, guessing = 0)",
        ylabel="leakage of the worst attacker (normalised: chance = 0, every clip = 1)",
        ylim=(-0.04, 1.04),
    )
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.08), max(high, 1.08))
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", fontsize=8, framealpha=0.9)
    return figure


def _draw(axes, point: TradeOff, colour: str, shift: float) -> None:
    u, leak = point.utility, point.leakage
    axes.errorbar(
        u.value + shift,
        leak.value,
        xerr=[[max(u.value - u.low, 0)], [max(u.high - u.value, 0)]],
        yerr=[[max(leak.value - leak.low, 0)], [max(leak.high - leak.value, 0)]],
        fmt="o",
        markersize=8,
        color=colour,
        capsize=3,
        linewidth=1.3,
        zorder=5,
    )
    right = u.value > 0.75
    axes.annotate(
        f"{point.anonymizer}\n{point.attacker}",
        (u.value + shift, leak.value),
        xytext=(-10 if right else 10, 8),
        textcoords="offset points",
        ha="right" if right else "left",
        fontsize=8,
        color=colour,
        zorder=6,
    )


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a PNG atomically."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path
