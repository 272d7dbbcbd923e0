import dataclasses
import io
import math

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from bench.metrics.uncertainty import Estimate, Sample
from bench.report.pareto import pareto_figure
from bench.report.table import _print_whole, _ranks
from bench.summary import TradeOff


def table(*cells):
    made = Table()
    for cell in cells:
        made.add_column(cell, no_wrap=True)
    made.add_row(*cells)
    return made


@pytest.mark.parametrize(("width", "flags_shown"), [(200, True), (65, True), (60, False), (30, False), (10, False)])
def test_a_table_is_never_cut_whatever_the_terminal(width, flags_shown):
    text = io.StringIO()
    names = ("a much longer name", "0.12 [0.00, 0.38]", "flag-one, flag-two")
    _print_whole(table(*names), table(names[0]), Console(file=text, width=width))
    assert "…" not in text.getvalue()
    assert text.getvalue().replace("\n", "").count("a much longer name") == 2
    assert ("flag-one, flag-two" in text.getvalue()) == flags_shown


def point(anonymizer, family, strength, utility, leakage):
    estimates = (Estimate(value, value, value, np.array([value])) for value in (utility, leakage))
    return TradeOff(anonymizer, *estimates, "attacker", family, strength)


def test_strengths_of_one_method_are_joined_in_their_order(monkeypatch):
    points = [
        point("gauss:std=0.2", "g", 0.2, 0.2, 0.1),
        point("gauss:std=0.01", "g", 0.01, 0.9, 0.8),
        point("gauss:std=0.05", "g", 0.05, 0.6, 0.4),
        point("identity", "identity", math.nan, 1.0, 0.9),
    ]
    monkeypatch.setattr("bench.report.pareto.trade_off", lambda measured, threat: points if threat == "semi-informed" else [])
    axes = pareto_figure([], "title").axes[0]
    curves = [line.get_xydata().tolist() for line in axes.lines]
    assert [[0.9, 0.8], [0.6, 0.4], [0.2, 0.1]] in curves


def test_ranks_say_only_what_is_sure(monkeypatch):
    """b leaks less than both others for sure; between a and c nothing is."""
    rng = np.random.default_rng(0)

    def leaks(name, value):
        draws = value + 0.03 * rng.normal(size=500)
        return TradeOff(name, *[Estimate(value, value - 0.06, value + 0.06, draws, Sample(40))] * 2, "x", name, math.nan)

    points = [leaks("a", 0.8), leaks("b", 0.1), leaks("c", 0.81)]
    points[2] = dataclasses.replace(
        points[2], leakage=dataclasses.replace(points[2].leakage, draws=points[2].leakage.draws[:480])
    )
    monkeypatch.setattr("bench.report.table.trade_off", lambda measured, threat: points)
    (line,) = _ranks([])
    assert line.endswith(": b 1, a 2-3, c 2-3.")
    monkeypatch.setattr("bench.report.table.trade_off", lambda measured, threat: points[:1])
    assert _ranks([]) == []
