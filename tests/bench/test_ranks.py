"""The board: places, budgets and history, of made-up points."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from bench.grid import TradeOff
from bench.leaderboard import RANKED, UNRANKED, Row, budget_ranks, history
from bench.metrics.uncertainty import People, Sample, estimate, largest_of

PEOPLE = Sample((20,))


def around(value, spread=0.01, seed=0):
    """A value with resamples about it."""
    draws = value + spread * np.random.default_rng(seed).standard_normal(500)
    return estimate(value, draws, PEOPLE)


def point(name, use, leakage, withheld=(), spread=0.01):
    leak = around(leakage, spread, seed=2)
    return TradeOff(name, around(use, seed=1), leak, "attacker", name, float("nan"), (leak,), withheld)


def grid(*points):
    return SimpleNamespace(useful=points)


def test_use_counts_within_budgets_only():
    """0.9 of use at leakage 0.15 counts at 0.20 and 0.40; 0.5 at 0.02 counts at all four; 1.0 at 0.9 nowhere."""
    found = budget_ranks(grid(point("half", 0.9, 0.15), point("safe", 0.5, 0.02, spread=0.003), point("open", 1.0, 0.9)))
    assert found == {"safe": (1, 1), "half": (2, 2), "open": (3, 3)}  # means over the budgets: 0.5, 0.45, 0


def test_many_methods_do_not_hide_what_is_sure():
    """No share of a few hundred resamples is small enough to be corrected for 435 pairs."""
    bad = [point(f"bad {i}", 1.0, 0.9) for i in range(28)]
    found = budget_ranks(grid(*bad, point("good", 0.9, 0.25, spread=0.03), point("unsure", 0.9, 0.35, spread=0.03)))
    assert found["good"][0] == 1
    assert found["bad 0"] == (2, 30)  # behind the good one, perhaps behind nobody else
    assert found["unsure"] == (1, 30)


def measured_anew(rng, groups, persons=12):
    """Methods measured on people who differ: of each group (count, leakage, attackers) so many, all of whom leave equal use."""
    subjects = np.repeat(np.arange(persons), 10)
    people, found = People.resample(subjects, rng, draws=300), []

    def of(share):
        each = np.clip(share + 0.1 * rng.standard_normal(persons), 0, 1)
        return people.estimate(people.mean((rng.random(len(subjects)) < each[subjects]).astype(float)))

    for count, leakage, attackers in groups:
        for _ in range(count):
            panel = tuple(sorted((of(leakage) for _ in range(attackers)), key=lambda one: -one.value))
            found.append(TradeOff(f"{len(found)}", of(0.9), largest_of(panel, 0), "x", "x", float("nan"), panel))
    return found


@pytest.mark.parametrize(
    "groups",
    [
        [(12, 0.1, 2)],  # at a budget
        [(12, 0.39, 2)],
        [(12, 0.41, 1), (3, 0.9, 1)],  # just beyond the last budget, and far beyond it: nothing counts of either
        [(8, 0.38, 5), (3, 0.25, 1)],  # within the same budget, but for what five attackers make of chance
    ],
)
def test_equal_methods_seldom_have_an_order(groups):
    """5 of 100 tables may claim any order at all."""
    wrong = 0
    for seed in range(40):
        points = measured_anew(np.random.default_rng(seed), groups)
        wrong += any(rank != (1, len(points)) for rank in budget_ranks(grid(*points)).values())
    assert wrong <= 4


def test_too_few_people_say_nothing():
    """Of three people there is no interval: not one from 0 to 0."""
    few = [dataclasses.replace(around(value), sample=Sample((3,))) for value in (0.02, 0.9)]
    unknown = dataclasses.replace(point("few", 0.9, 0.02), panel=tuple(few))
    assert np.isnan(unknown.leakage_at(0.99)).all()
    assert budget_ranks(grid(unknown, point("bad", 1.0, 0.9))) == {"few": (1, 2), "bad": (1, 2)}


def test_methods_that_are_within_no_budget_share_a_place():
    assert budget_ranks(grid(point("a", 1.0, 0.9), point("b", 0.8, 0.7))) == {"a": (1, 2), "b": (1, 2)}


def test_no_method_has_no_places():
    assert budget_ranks(grid()) == {}


def attack(name, leakage, date, *, threat="semi-informed", control=False):
    """One measured row, as far as history looks at it."""
    first = {"names": {"attacker": name}, "threat": threat, "attacker": {"provider": f"{name} 1"}}
    record = SimpleNamespace(manifest=lambda: {"finished": date} if date else {})
    return SimpleNamespace(first=first, records=(record,), is_control=control, normalised=SimpleNamespace(value=leakage))


def test_history_tells_who_broke_a_method_and_when():
    rows = [
        attack("new", 0.9, "2026-03-01T00:00:00+00:00"),
        attack("first", 0.3, "2026-01-01T00:00:00+00:00"),
        attack("also-first", 0.4, "2026-01-01T09:00:00+00:00"),
        attack("weaker", 0.2, "2026-04-01T00:00:00+00:00"),
        attack("naive", 0.99, "2026-05-01T00:00:00+00:00", threat="ignorant"),
        attack("room", 0.99, "2026-05-01T00:00:00+00:00", control=True),
    ]
    (change,) = history(rows)
    assert (change.date, change.attacker, change.provider) == ("2026-03-01", "new", "new 1")
    assert (change.before, change.after) == (0.4, 0.9)


def test_records_without_a_date_count_as_the_first():
    assert history([attack("old", 0.5, ""), attack("new", 0.4, "2026-01-01T00:00:00+00:00")]) == ()
    assert len(history([attack("old", 0.5, ""), attack("new", 0.6, "2026-01-01T00:00:00+00:00")])) == 1


@pytest.mark.parametrize(
    ("value", "high", "answer"), [(0.05, 0.09, "surely"), (0.05, 0.3, "as measured"), (0.2, 0.3, "no"), (float("nan"), 0.1, "no")]
)
def test_a_budget_is_kept_as_measured_or_surely(value, high, answer):
    leakage = dataclasses.replace(around(0.05), value=value, high=high)
    spot = dataclasses.replace(point("a", 1.0, 0.05), leakage=leakage)
    row = Row("a", "", "", RANKED, spot, None, None, None, None, (), "", (), ())
    assert row.within(0.10) == answer
    assert dataclasses.replace(row, point=None, standing=UNRANKED).within(0.40) == "no"
