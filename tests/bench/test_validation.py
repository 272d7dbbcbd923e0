"""`bench validate`: its studies find what is wrong with an instrument, and its report says so."""

import csv
import gc
import weakref

import numpy as np
import pytest
from click.testing import CliRunner

from bench import measure
from bench.cli import main
from bench.metrics.uncertainty import SHARE, People, estimate
from bench.report.validation import write_report
from bench.validation import coverage as intervals
from bench.validation import studies
from bench.validation.coverage import coverage
from bench.validation.instrument import attack, leakage, motionless, synthetic, taught
from bench.validation.studies import channels, pitfalls, worst_attackers
from bench.validation.study import Claim, Crew, Study

HERE = Crew(None, lambda done, total: None)


def held(study):
    return [claim.holds for claim in study.claims]


def test_intervals_that_take_clips_for_independent_are_found_out(monkeypatch):
    monkeypatch.setattr(intervals, "_CASES", [("identity", (12,), (2, 3)), ("attribute", (10, 10), (4, 3))])
    monkeypatch.setattr(intervals, "_PAIRED", [])
    monkeypatch.setattr(intervals, "_TEN", [])
    assert all(held(coverage(150, HERE)))

    def too_narrow(self, draws, bounds, trials):
        centre = draws[0]
        return estimate(centre, centre + 0.3 * (draws[1:] - centre), self.sample)

    monkeypatch.setattr(People, "estimate", too_narrow)
    assert held(coverage(150, HERE))[:3] == [False, False, False]


def test_an_equal_error_rate_resampled_on_its_hull_is_found_out(monkeypatch):
    """Every resample's hull is fitted to its own chance: below 0.5 in all of them, where there is nothing to find."""
    from bench.metrics import verification

    monkeypatch.setattr(intervals, "_CASES", [("identity", (12,), (2, 3))])
    monkeypatch.setattr(intervals, "_PAIRED", [(8, 0.0)])
    monkeypatch.setattr(intervals, "_TEN", [])
    assert all(held(coverage(60, HERE)))
    monkeypatch.setattr(verification, "_crossing_rate", verification._equal_error_rate)
    assert held(coverage(60, HERE))[-2:] == [True, False]


def test_ten_clips_of_resampled_people_are_found_out(monkeypatch):
    """Where nearly everybody is found, resamples of those who were tested know nothing of those who are not."""
    monkeypatch.setattr(intervals, "_CASES", [("identity", (12,), (2, 3))])
    monkeypatch.setattr(intervals, "_PAIRED", [])
    monkeypatch.setattr(intervals, "_TEN", [(8, 0.6), (18, 3.0)])
    assert all(held(coverage(300, HERE)))

    def resampled(shares):
        each = np.arange(len(shares))
        people = People.resample(each, np.random.default_rng(0))
        return people.estimate(people.mean(shares), SHARE, 5 * len(shares))

    monkeypatch.setattr(measure, "estimate_all_or_nothing", resampled)
    assert held(coverage(300, HERE))[-2:] == [True, False]


def test_an_interval_of_the_attacker_that_did_best_is_found_out(monkeypatch):
    monkeypatch.setattr(studies, "_PANELS", [(12, 8, True), (12, 3, False)])
    assert all(held(worst_attackers(150, HERE)))
    monkeypatch.setattr(studies, "largest_of", lambda found, place: found[place])
    assert held(worst_attackers(150, HERE))[-1] is False


def test_an_instrument_that_sees_leaks_everywhere_is_found_out(monkeypatch):
    monkeypatch.setattr(studies, "_ALARMS", {"bones-lda": 6})
    monkeypatch.setattr(studies, "leak_p_value", lambda *arguments: 0.01)
    assert held(studies.false_alarms(10, HERE)) == [False, True]


def test_an_anonymizer_that_removes_nothing_is_found_out(monkeypatch):
    monkeypatch.setattr(studies, "_PEOPLE", {"people": 8, "motions": 6, "replications": 2, "cameras": 1})
    real = studies.leakage
    monkeypatch.setattr(studies, "leakage", lambda bench, attacker, anonymizer: real(bench, attacker, anonymizer="identity"))
    assert held(channels(1, HERE)) == [False, True, True, True]


def test_an_anonymizer_that_removes_more_than_its_channel_is_found_out(monkeypatch):
    monkeypatch.setattr(studies, "_PEOPLE", {"people": 8, "motions": 6, "replications": 2, "cameras": 1})
    monkeypatch.setattr(studies, "_REMOVERS", {**studies._REMOVERS, "bones": "null"})
    assert held(channels(1, HERE)) == [True, True, True, False]


def test_people_who_hold_one_posture_keep_their_bones_and_nothing_else():
    with synthetic(people=2, motions=1, cameras=1, replications=1) as bench:
        raw = bench.clips(bench.raw)
        still = motionless(raw)
        child, parent = np.array(raw.layout.bones).T
        before, after = (clips.rows[:, :, child] - clips.rows[:, :, parent] for clips in (raw, still))
        np.testing.assert_allclose(before.norm(dim=1), after.norm(dim=1), rtol=1e-5)
        directions = after / after.norm(dim=1, keepdim=True)
        np.testing.assert_allclose(directions, directions[:1].expand_as(directions), atol=1e-5)


def test_made_up_people_are_forgotten():
    """Their clips are mapped files, which keep their place on the disk as long as anybody holds them."""
    with synthetic(people=4, motions=2, cameras=1) as bench:
        attack(bench, "bones-lda")
    held = weakref.ref(bench)
    del bench
    gc.collect()
    assert held() is None


def test_an_attacker_that_knows_nothing_of_the_noise_is_no_worse_than_itself(monkeypatch):
    monkeypatch.setattr(studies, "_pitfall", pitfall_without_knowledge)
    assert held(pitfalls(1, HERE)) == [True, False, True]


def pitfall_without_knowledge(item):
    told = {
        "the moment": [("other cameras (xview)", 0.9), ("other performances (xrep)", 0.08)],
        "who knows": [("ignorant", 0.1), ("semi-informed", 0.1)],
        "the prior": [("top-1 of always naming one person", 0.4), ("balanced top-1 of the same", 1 / 12)],
    }
    return [{"measured": name, "leakage": value} for name, value in told[item[0]]]


def test_leakage_is_that_of_a_run_and_grows_with_what_is_learnt():
    with synthetic(people=6, motions=4, cameras=1, replications=2) as bench:
        found = leakage(bench, "bones-lda")
        assert found.low <= found.value <= found.high
        assert taught(bench, "bones-lda", 1.0, 0).value == pytest.approx(found.value)
        assert taught(bench, "bones-lda", 0.5, 0).value < found.value


def report(folder, holds):
    rows = {
        "a": [{"attacker": "x", "people": 3, "alarm": "p", "sets": 9, "alarms": 1, "rate": 0.1, "low": 0.05, "high": 0.2}],
        "b": [{"kind": "identity", "people": "8", "truth": "beta(2, 3)", "sets": 9, "coverage": 0.95, "naive": 0.7}],
        "c": [{"dial": d, "level": v, "seed": 0, "leakage": v, "low": 0, "high": 1} for d in ("body", "x") for v in (0.0, 1.0)],
        "d": [{"channel": "c", "attacker": "x", "removes": "m", "seed": 0, "leakage": 0.5, "low": 0, "high": 1}],
        "e": [{"attacker": "x", "share": v, "seed": 0, "leakage": v, "low": 0, "high": 1} for v in (0.1, 1.0)],
        "f": [{"pitfall": "p", "measured": "m", "seed": 0, "leakage": 0.5, "low": 0, "high": 1, "chance": 0.1}],
    }
    rows["g"] = [
        {"people": 8, "attackers": 4, "attackers_are": "unequal", "sets": 9, "coverage": 0.95, "above": 0.01, "own_above": 0.1}
    ]
    made = [Study(f"{name}. Title", "Question?", found, [Claim("a claim", holds)]) for name, found in rows.items()]
    return made, write_report(made, folder, "bench validate")


@pytest.mark.parametrize("holds", [True, False])
def test_the_report_says_what_holds(tmp_path, holds):
    made, page = report(tmp_path, holds)
    text = page.read_text()
    assert text.count(f"| a claim | {'yes' if holds else '**no**'} |") == 7
    assert (tmp_path / "validation.png").stat().st_size > 10_000
    for study in made:
        with (tmp_path / f"{study.name[0]}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(study.rows)


@pytest.mark.parametrize("holds", [True, False])
def test_the_command_fails_if_a_claim_does(tmp_path, monkeypatch, holds):
    made, _ = report(tmp_path / "other", holds)
    monkeypatch.setattr(studies, "all_studies", lambda **how: iter(made))
    outcome = CliRunner().invoke(main, ["validate", "--quick", "--out", str(tmp_path / "out"), "--results", str(tmp_path)])
    assert outcome.exit_code == (0 if holds else 1)
    assert f"{7 if holds else 0} of 7 claims hold" in outcome.output
    assert ("FAILS" in outcome.output) == (not holds)
    assert (tmp_path / "out" / "README.md").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_instrument_holds(tmp_path):
    outcome = CliRunner().invoke(main, ["validate", "--quick", "--out", str(tmp_path), "--results", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert "FAILS" not in outcome.output
