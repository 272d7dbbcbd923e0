"""Flags and controls: each is raised by what it names, and withholds a rank where it must."""

import dataclasses
import shutil

import numpy as np
import pytest

from bench.records import records
from tests.tiny import DATA, shrink_budget


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


def test_weak_attackers_and_controls_do_not_rank(finished, monkeypatch):
    from bench import floors
    from bench.grid import trade_off
    from bench.summary import measure_all

    results, _, _ = finished
    measured = measure_all(records(results / "records"))
    ranked = {point.anonymizer: point for point in trade_off(measured, "semi-informed")}
    assert {point.attacker for point in ranked.values()} <= {"bones-lda", "shiftgcn-reid:backbone=simple"}
    strongest = ranked["gauss:std=0.1"].attacker
    monkeypatch.setattr(floors, "FLOORS", {(DATA, "xrep/1", "quick"): {strongest: 1.01}})
    measured = measure_all(records(results / "records"))
    assert all(("weak-attacker" in m.flags) == (m.first["names"]["attacker"] == strongest) for m in measured)
    again = {point.anonymizer: point for point in trade_off(measured, "semi-informed")}
    assert again["gauss:std=0.1"].leakage.value == ranked["gauss:std=0.1"].leakage.value  # it leaks, however weak the attacker
    everyone = {"bones-lda": 1.01, "shiftgcn-reid:backbone=simple": 1.01}
    monkeypatch.setattr(floors, "FLOORS", {(DATA, "xrep/1", "quick"): everyone})
    assert trade_off(measure_all(records(results / "records")), "semi-informed") == []


def test_what_the_room_gives_away_is_flagged(finished):
    from dataclasses import replace

    from bench.summary import _flags, measure_all

    results, _, _ = finished
    measured = measure_all(records(results / "records"))
    room = next(m for m in measured if m.first["attacker"]["name"] == "nuisance")
    assert room.flags == ()
    attack = leaking(chosen(measured, "identity"), 0.9, 0.6)
    assert attack.leakage.low > room.leakage.value
    assert "nuisance" not in _flags(attack, measured)
    telling = replace(room, leakage=replace(room.leakage, value=attack.leakage.low + 0.01))
    assert "nuisance" in _flags(attack, [telling if m is room else m for m in measured])


def leaking(measured, value, low):
    """The same with another leakage."""
    estimate = dataclasses.replace(measured.leakage, value=value, low=low, draws=np.full_like(measured.leakage.draws, value))
    return dataclasses.replace(measured, leakage=estimate)


def chosen(measured, anonymizer, attacker="bones-lda", threat="semi-informed"):
    found = (m for m in measured if (m.first["names"]["attacker"], m.first["threat"]) == (attacker, threat))
    return next(m for m in found if m.first["anonymizer"]["name"] == anonymizer)


def test_the_interval_of_the_worst_attacker_is_one_for_the_largest_of_several(finished):
    """Where all attackers are at chance, the best of them looks better; its interval must not say that it is."""
    from bench.grid import trade_off
    from bench.measured import METRIC
    from bench.metrics.uncertainty import People
    from bench.summary import measure_all

    measured = measure_all(records(finished[0] / "records"))
    template = chosen(measured, "gauss")
    assert template.row()["metric"] == METRIC

    def attacker(people, rng):
        hits = (rng.random(len(subjects)) < 0.25 + 0.15 * rng.standard_normal(12)[subjects]).astype(float)
        found = people.estimate(people.balanced_mean(hits, subjects))
        return dataclasses.replace(template, leakage=found)

    subjects = np.repeat(np.arange(12), 10)
    below = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        people = People.resample(subjects, rng, draws=400)
        (point,) = trade_off([attacker(people, rng) for _ in range(6)], "semi-informed")
        assert point.leakage.low <= point.leakage.value <= point.leakage.high
        below += point.leakage.low <= 0
    assert below / 150 > 0.93


def test_each_flag_that_withholds_a_rank_is_raised_by_what_it_names(finished):
    from bench.grid import Grid
    from bench.summary import WITHHOLDING, _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    gauss, null = chosen(measured, "gauss"), chosen(measured, "null")
    assert not set(gauss.flags) & set(WITHHOLDING)
    assert not Grid.of(measured).failed_controls
    shuffled = next(m for m in measured if m.first["attacker"]["name"] == "shuffled-labels")
    for control, name in ((leaking(null, 0.9, 0.8), "null"), (leaking(shuffled, 0.9, 0.8), "shuffled")):
        table = [control if m.first == control.first else m for m in measured]
        assert "control-failed" in _flags(gauss, table), name
        table = [dataclasses.replace(m, flags=_flags(m, table)) for m in table]
        grid = Grid.of(table)
        assert len(grid.failed_controls) == 1
        # one attacker's failure on null costs the method its rank, as does that of a target
        assert "gauss:std=0.1" not in grid.ranks
    alone = [m for m in measured if m.first["anonymizer"]["name"] != "null"]
    assert "no-control" in _flags(gauss, alone)
    ignorant = leaking(chosen(measured, "gauss", threat="ignorant"), 1.0, 1.0)
    poor = leaking(gauss, 0.3, 0.3)
    assert "frozen-beats-retrained" in _flags(poor, [ignorant if m.first == ignorant.first else m for m in measured])
    raw = {**gauss.first, "stages": chosen(measured, "identity").first["stages"], "draws": 1}
    same = dataclasses.replace(gauss, records=(dataclasses.replace(gauss.records[0], data=raw),))
    assert "pass-through" in _flags(same, measured)
    shared = {**gauss.first["protocol"], "splits": {"subject": {"shares": True}}}
    moment = dataclasses.replace(gauss.records[0], data={**gauss.first, "protocol": shared})
    assert "shared-performances" in _flags(dataclasses.replace(gauss, records=(moment,)), measured)


def test_a_smaller_panel_or_fewer_seeds_cost_the_rank(finished):
    """The worst attacker may be the one that is missing."""
    from bench.grid import Grid
    from bench.summary import _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    network = "shiftgcn-reid:backbone=simple"
    raw = chosen(measured, "identity", network)
    measured = [leaking(m, 0.9, 0.8) if m is raw else m for m in measured]
    gauss = chosen(measured, "gauss")
    assert "incomplete-panel" not in gauss.flags
    missing = [m for m in measured if m is not chosen(measured, "gauss", network)]
    assert "incomplete-panel" in _flags(gauss, missing)
    weak = [leaking(raw, 0.1, 0.0) if m is chosen(measured, "identity", network) else m for m in missing]
    assert "incomplete-panel" not in _flags(gauss, weak)  # that attacker shows nothing wherever it was tried
    grid = Grid.of([dataclasses.replace(m, flags=_flags(m, missing)) for m in missing])
    assert {p.anonymizer: p.withheld for p in grid.points if p.withheld} == {"gauss:std=0.1": ("incomplete-panel",)}
    identity = chosen(measured, "identity")
    twice = dataclasses.replace(identity, records=identity.records * 2)
    assert "incomplete-panel" in _flags(gauss, [twice if m is identity else m for m in measured])


def test_flags_of_the_attacker_that_ranks_withhold_the_rank_and_those_of_others_do_not(finished):
    from bench.grid import trade_off
    from bench.summary import measure_all

    measured = measure_all(records(finished[0] / "records"))
    names = ("bones-lda", "shiftgcn-reid:backbone=simple")
    first, second = (dataclasses.replace(chosen(measured, "gauss", name), flags=()) for name in names)
    first, second = leaking(first, 0.9, 0.8), leaking(second, 0.5, 0.4)
    for flag in ("single-draw", "weak-attacker", "few-people"):
        (point,) = trade_off([dataclasses.replace(first, flags=(flag,)), second], "semi-informed")
        assert point.withheld == (flag,)
        (point,) = trade_off([first, dataclasses.replace(second, flags=(flag,))], "semi-informed")
        assert point.withheld == ()
    for flag in ("nuisance", "below-prior"):  # it leaks no more than that, whatever leaks it
        (point,) = trade_off([dataclasses.replace(first, flags=(flag,)), second], "semi-informed")
        assert point.withheld == ()
    frozen = dataclasses.replace(chosen(measured, "gauss", names[1], threat="ignorant"), flags=())
    misled = dataclasses.replace(second, flags=("frozen-beats-retrained",))
    (point,) = trade_off([first, misled, leaking(frozen, 0.8, 0.7)], "semi-informed")
    assert point.withheld == ()  # the first reads more than that anyway
    (point,) = trade_off([first, misled, leaking(frozen, 1.0, 0.9)], "semi-informed")
    assert point.withheld == ("frozen-beats-retrained",)
    (point,) = trade_off([first, dataclasses.replace(second, flags=("undertrained",))], "semi-informed")
    assert point.withheld == ("undertrained",)  # it might have found more than the first


def test_of_ten_clips_the_attacker_counts_that_then_reads_most_and_nobody_who_is_set_aside(finished):
    """Another than with one clip, perhaps; a stranger's that finds people in clips that hold nothing never counts."""
    from bench.grid import trade_off
    from bench.metrics.uncertainty import Estimate, Sample
    from bench.summary import measure_all

    def reading(m, one, ten):
        found = Estimate(ten, ten - 0.1, ten, np.full(400, ten), Sample((12,)))
        return dataclasses.replace(leaking(m, one, one), of_ten=found, flags=())

    def strangers(m):
        attacker = {**m.first["attacker"], "parameters": {"submission": "s", "kind": "attacker"}}
        data = {**m.first, "attacker": attacker, "names": {**m.first["names"], "attacker": "cheat"}}
        return dataclasses.replace(m, records=(dataclasses.replace(m.records[0], data=data),))

    measured = measure_all(records(finished[0] / "records"))
    gauss, null = chosen(measured, "gauss"), chosen(measured, "null")
    first, second = reading(gauss, 0.9, 0.6), reading(chosen(measured, "gauss", "shiftgcn-reid:backbone=simple"), 0.5, 0.8)
    (point,) = trade_off([first, second], "semi-informed")
    assert (point.attacker, point.of_ten.value) == ("bones-lda", 0.8)
    table = [first, second, strangers(reading(gauss, 0.99, 1.0)), strangers(leaking(null, 0.9, 0.8))]
    assert {p.anonymizer: p.of_ten and p.of_ten.value for p in trade_off(table, "semi-informed")} == {"gauss:std=0.1": 0.8}
    table[-1] = strangers(leaking(null, 0.25, 0.1))
    assert next(p for p in trade_off(table, "semi-informed") if "gauss" in p.anonymizer).of_ten.value == 1.0


def test_what_an_audit_contradicts_is_not_relied_on(finished, tmp_path):
    """A record costs its method the rank, one of a control everybody; one of a stranger's attacker that attacker alone."""
    from bench.grid import Grid
    from bench.summary import measure_all
    from bench.verdicts import TOLERANCE, write_reproductions

    def flagged(method, attacker, strange=False):
        results = shutil.copytree(finished[0], tmp_path / f"{method}-{attacker}-{strange}")
        found = list(records(results / "records"))
        if strange:
            for record in (record for record in found if record.data["names"]["attacker"] == attacker):
                stated = {**record.data["attacker"]["parameters"], "submission": "abc", "kind": "attacker"}
                record.data["attacker"] |= {"parameters": stated}
        wrong = next(r for r in found if r.data["names"] == {"anonymizer": method, "attacker": attacker})
        write_reproductions([(wrong, False)], TOLERANCE, results)
        measured = measure_all(found, results)
        points = Grid.of(measured).points
        return {p.anonymizer for p in points if "not-reproduced" in p.withheld}, {p.attacker for p in points}

    network = "shiftgcn-reid:backbone=simple"
    assert flagged("gauss:std=0.1", network)[0] == {"gauss:std=0.1"}
    assert flagged("identity", "bones-lda")[0] == {"identity", "null", "gauss:std=0.1"}
    for method in ("gauss:std=0.1", "identity"):
        withheld, worst = flagged(method, network, strange=True)
        assert not withheld
        assert worst == {"bones-lda"}, "what comes out otherwise each time is nobody's worst attacker"


def test_what_is_told_the_action_has_no_rank(finished):
    """Else whoever releases one and the same clip for all of an action would lead."""
    from bench.grid import Grid
    from bench.summary import measure_all

    assert all(record.data["uses"] == [] for record in records(finished[0] / "records"))
    told = []
    for record in records(finished[0] / "records"):
        method = record.data["names"]["anonymizer"]
        told.append(dataclasses.replace(record, data={**record.data, "uses": ["action"] if method == "gauss:std=0.1" else []}))
    withheld = {p.anonymizer: p.withheld for p in Grid.of(measure_all(told)).points}
    assert "told-action" in withheld["gauss:std=0.1"]
    assert withheld["identity"] == ()


def test_the_noise_of_a_weak_attacker_ranks_nobody(finished):
    """It says something only where it surely finds something."""
    from bench.grid import trade_off
    from bench.summary import measure_all

    measured = measure_all(records(finished[0] / "records"))
    names = ("bones-lda", "shiftgcn-reid:backbone=simple")
    strong, weak = (dataclasses.replace(chosen(measured, "gauss", name), flags=()) for name in names)
    strong, weak = leaking(strong, 0.3, 0.1), dataclasses.replace(leaking(weak, 0.5, 0.1), flags=("weak-attacker",))
    (point,) = trade_off([strong, weak], "semi-informed")
    assert (point.attacker, point.withheld) == ("bones-lda", ())
    (point,) = trade_off([strong, dataclasses.replace(leaking(weak, 0.5, 0.4), flags=weak.flags)], "semi-informed")
    assert point.attacker == names[1]
    assert trade_off([weak], "semi-informed") == []


def test_of_too_few_people_nothing_is_ranked(finished):
    from bench.grid import Grid
    from bench.metrics.uncertainty import Sample
    from bench.summary import _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    gauss = chosen(measured, "gauss")
    assert "few-people" not in gauss.flags
    few = dataclasses.replace(gauss, leakage=dataclasses.replace(gauss.leakage, sample=Sample((3,))))
    assert "few-people" in _flags(few, measured)
    raw = chosen(measured, "identity")
    unknown = dataclasses.replace(raw.leakage, low=np.nan, high=np.nan, sample=Sample((3,)))
    table = [dataclasses.replace(m, leakage=unknown) if m is raw else m for m in measured]
    assert "weak-attacker" not in _flags(gauss, table)
    assert not Grid.of(table).failed_controls


def test_a_number_below_the_prior_is_marked(finished):
    from bench.summary import _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    identity = chosen(measured, "identity")
    uneven = dataclasses.replace(identity.records[0], data={**identity.first, "prior": 0.99})
    named = {**identity.named, "top1": dataclasses.replace(identity.named["top1"], high=0.9)}
    assert "below-prior" in _flags(dataclasses.replace(identity, records=(uneven,), named=named), measured)
    assert "below-prior" not in identity.flags


@pytest.mark.parametrize(("epochs", "raised"), [(2, True), (3, False), (30, False)])
def test_an_attacker_that_saw_little_is_marked(finished, epochs, raised):
    """Also if it is one of several networks that attack together."""
    from bench.summary import _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    identity = chosen(measured, "identity", "shiftgcn-reid:backbone=simple")
    assert "undertrained" not in identity.flags
    training = {"joint": {"curves": {"train_loss": [1.0] * 30}}, "bone": {"curves": {"train_loss": [1.0] * epochs}}}
    record = dataclasses.replace(identity.records[0], data={**identity.first, "training": training})
    assert ("undertrained" in _flags(dataclasses.replace(identity, records=(record,)), measured)) == raised


def test_the_table_says_first_that_controls_failed(finished):
    import io

    from rich.console import Console

    from bench.report.table import print_tables
    from bench.summary import measure_all

    measured = measure_all(records(finished[0] / "records"))
    null = chosen(measured, "null")
    for rows, first in (
        (measured, "synthetic"),
        ([leaking(m, 0.9, 0.8) if m is null else m for m in measured], "CONTROL FAILED: "),
    ):
        text = io.StringIO()
        print_tables(rows, Console(file=text, width=200))
        assert text.getvalue().startswith(first)
