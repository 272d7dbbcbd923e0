"""Measuring programs say what they claim to: a grid one by one, and what executors cost beside the work."""

import re

import pytest

from benchmarks import grid
from tests.tiny import shrink_budget

FEW = ("--anonymizer", "identity,null", "--attacker", "bones-lda", "--threat", "ignorant")


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


@pytest.mark.slow
def test_pairs_are_evaluated_one_by_one_from_scratch(monkeypatch, capsys):
    run, folders = grid.run_plans, []

    def seen(plans, results, where):
        if not (results / "stages").exists():
            folders.append(results)
        return run(plans, results, where)

    monkeypatch.setattr(grid, "run_plans", seen)
    grid.main(["--one-by-one", *FEW])
    told = capsys.readouterr().out
    pairs, together, apart, ratio = map(float, re.findall(r"[\d.]+", told))
    assert pairs == 2
    assert len(set(folders)) == 2 + pairs  # the first one is not measured
    assert ratio == pytest.approx(apart / together, rel=0.2)
    assert "all records are equal" in told


def test_overhead_needs_no_results_and_names_start_up_and_tasks_apart(monkeypatch, capsys):
    monkeypatch.setattr(grid, "_TASKS", 20)
    grid.main(["--overhead", "--executors", "serial", "--repeats", "1", *FEW])
    told = capsys.readouterr().out
    start_up, task = map(float, re.search(r"serial +start-up ([\d.]+) s, ([\d.]+) ms a task", told).groups())
    assert start_up < 5
    assert 0 < task < 1000
    whole, work, beside = map(float, re.search(r"grid of ([\d.]+) s on 1, ([\d.]+) s of work, (-?[\d.]+)% beside", told).groups())
    assert 0 < work <= whole + 0.1
    assert beside == pytest.approx(100 * (1 - (work + start_up) / whole), abs=10)  # rounded to a tenth of a second


def test_nothing_to_measure_is_told(capsys):
    with pytest.raises(SystemExit):
        grid.main([])
    assert "name RESULTS, --overhead or --one-by-one" in capsys.readouterr().err
