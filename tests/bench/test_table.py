import dataclasses
import io
import itertools
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from rich.console import Console
from rich.table import Table

from bench.grid import Grid, TradeOff
from bench.metrics.uncertainty import Estimate, Sample
from bench.report.pareto import pareto_figure
from bench.report.table import _print_whole, _trade_off


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
    use, leak = (Estimate(value, value, value, np.array([value])) for value in (utility, leakage))
    return TradeOff(anonymizer, use, leak, "attacker", family, strength, (leak,))


def test_strengths_of_one_method_are_joined_in_their_order():
    points = [
        point("gauss:std=0.2", "g", 0.2, 0.2, 0.1),
        point("gauss:std=0.01", "g", 0.01, 0.9, 0.8),
        point("gauss:std=0.05", "g", 0.05, 0.6, 0.4),
        point("identity", "identity", math.nan, 1.0, 0.9),
    ]
    axes = pareto_figure(Grid((), tuple(points)), "title").axes[0]
    curves = [line.get_xydata().tolist() for line in axes.lines]
    assert [[0.9, 0.8], [0.6, 0.4], [0.2, 0.1]] in curves


def test_ranks_say_only_what_is_sure():
    """b leaks less than both others for sure; between a and c nothing is."""
    rng = np.random.default_rng(0)

    def leaks(name, value):
        draws = value + 0.03 * rng.normal(size=500)
        found = Estimate(value, value - 0.06, value + 0.06, draws, Sample((40,)))
        return TradeOff(name, found, found, "x", name, math.nan, (found,))

    points = [leaks("a", 0.8), leaks("b", 0.1), leaks("c", 0.81)]
    points[2] = dataclasses.replace(
        points[2], leakage=dataclasses.replace(points[2].leakage, draws=points[2].leakage.draws[:480])
    )
    grid = Grid((), tuple(points))
    assert grid.ranks == {"b": (1, 1), "a": (2, 3), "c": (2, 3)}
    assert _trade_off(grid)[0].endswith(": b 1, a 2-3, c 2-3.")
    assert _trade_off(Grid((), tuple(points[:1]))) == []
    unsure = dataclasses.replace(points[1], withheld=("no-control",))
    lines = _trade_off(Grid((), (points[0], unsure, points[2])))
    assert "No rank, for its flags: b (no-control)." in lines
    assert lines[0].endswith(": a 1-2, c 1-2.")


def drawn(name, utility, leakage, spread=0.0):
    rng = np.random.default_rng(len(name))
    use, leak = [Estimate(v, v, v, v + spread * rng.normal(size=400), Sample((40,))) for v in (utility, leakage)]
    return TradeOff(name, use, leak, "x", name, math.nan, (leak,))


def test_a_grid_of_known_points():
    """A and B are better in one thing each, C is worse than B in both; D is as good as B but for chance."""
    grid = Grid((), (drawn("A", 0.9, 0.8), drawn("B", 0.5, 0.1), drawn("C", 0.4, 0.3)))
    assert grid.pareto == {"A": (True, 1.0), "B": (True, 1.0), "C": (False, 0.0)}
    assert grid.hypervolume.value == pytest.approx(0.4 * 0.2 + 0.5 * 0.9)
    assert grid.hypervolume.low == pytest.approx(grid.hypervolume.high)
    assert [p and p.anonymizer for p in (grid.best_within(b) for b in (0.05, 0.1, 0.4, 0.9))] == [None, "B", "B", "A"]
    unsure = Grid((), (drawn("B", 0.5, 0.1, 0.01), drawn("DD", 0.5, 0.1, 0.01)))
    shares = [share for _, share in unsure.pareto.values()]
    assert all(0.6 < share < 0.9 for share in shares)  # each is worse in both things in a quarter of the resamples
    assert sum(shares) == pytest.approx(1.5, abs=0.1)
    assert unsure.hypervolume.low < unsure.hypervolume.value < unsure.hypervolume.high
    assert not Grid((), ()).pareto
    assert Grid((), ()).hypervolume is None


def test_the_figure_draws_what_is_known_without_the_body_and_says_that_controls_failed():
    class Known(Grid):
        rooms, failed_controls = {"subject": 0.25, "gender": 0.1}, ()

    class Broken(Known):
        failed_controls = ("one", "two")

    points = (drawn("A", 0.9, 0.8), dataclasses.replace(drawn("B", 0.5, 0.1), withheld=("pass-through",)))
    axes = pareto_figure(Known((), points), "title").axes[0]
    level = {
        line.get_label(): line.get_ydata()[0] for line in axes.lines if "class" in line.get_label() or "room" in line.get_label()
    }
    expected = {"subject: room, camera and length": 0.25, "gender: room, camera and length": 0.1}
    assert level == {"always naming the most frequent class, or any": 0, **expected}
    assert "CONTROLS FAILED" not in axes.get_title(loc="left")
    assert {text.get_text() for text in axes.texts} >= {"A (x)", "B (x): pass-through"}
    assert pareto_figure(Broken((), points), "title").axes[0].get_title(loc="left").startswith("CONTROLS FAILED: 2")


@pytest.mark.parametrize("count", [0, 2, 9, 30])
def test_names_in_the_figure_never_cover_each_other_or_leave_the_page(count):
    points = [drawn(f"m{i:02}:with=parameters", 1.0, 0.93 + 0.002 * (i % 5)) for i in range(count)]
    figure = pareto_figure(Grid((), tuple(points)), "title")
    FigureCanvasAgg(figure).draw()
    axes, page = figure.axes[0], figure.bbox
    boxes = [Text.get_window_extent(text) for text in axes.texts if text.get_text().startswith("m")]
    boxes.sort(key=lambda box: box.y0)
    assert len(boxes) == count
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))  # pixels
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    assert all(box.x0 > axes.bbox.x1 for box in boxes)
