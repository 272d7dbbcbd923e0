"""Blends, chains, and strengths chosen for a leakage."""

import dataclasses

import pytest
import torch

from anonymizers.wrappers import Calibrated
from bench.registry import ANONYMIZERS
from bench.specs import SpecError, parse_spec, parse_specs
from tests.anonymizers.samples import batch_of, noise_clips
from tests.anonymizers.test_contract import make_clips, make_examples


def spec(text):
    return parse_spec(text, ANONYMIZERS)


def test_a_blend_is_a_weighted_mean_of_release_and_source():
    batch = batch_of(noise_clips())
    inner = spec("static-pose").value.transform(batch, {})
    blended = spec("blend:static-pose:0.2").value.transform(batch, {})
    assert torch.allclose(blended, 0.2 * inner + 0.8 * batch.clips, atol=1e-6)
    assert torch.equal(spec("blend:static-pose:0").value.transform(batch, {}), batch.clips)


def test_a_blend_learns_what_it_blends_whatever_its_share():
    examples = make_examples(make_clips())
    blend = spec("blend:mean-skeleton:0.2").value
    assert blend.learns_as == spec("mean-skeleton") == spec("blend:mean-skeleton:0.7").value.learns_as
    assert torch.equal(blend.fit(examples).state["lengths"], blend.learns_as.value.fit(examples).state["lengths"])


def test_a_chain_applies_its_steps_in_order():
    batch = batch_of(noise_clips())
    first = spec("coarsen-macro:step=0.5").value.transform(batch, {})
    both = spec("coarsen-macro:step=0.5+smooth:window=3").value.transform(batch, {})
    assert torch.allclose(both, spec("smooth:window=3").value.transform(batch_of(first), {}), atol=1e-6)
    assert not torch.allclose(both, spec("smooth:window=3+coarsen-macro:step=0.5").value.transform(batch, {}), atol=1e-3)


def test_equal_steps_of_a_chain_draw_different_noise():
    batch = batch_of(noise_clips(20))
    moved = spec("gauss:std=0.1+gauss:std=0.1").value.transform(batch, {}) - batch.clips
    assert float(moved.std()) == pytest.approx(0.1 * 2**0.5, rel=0.02)  # independent: variances add up


def test_later_steps_learn_from_what_earlier_ones_release():
    examples = make_examples(make_clips())
    state = spec("drop-part:part=head+null").value.fit(examples).state
    head = examples.clips.layout.parts["head"]
    assert not state["1.pose"][:, list(head)].any()
    assert state["1.pose"].any()


def test_wrappers_are_what_they_wrap():
    assert spec("blend:gauss").value.stochastic
    assert not spec("blend:smooth").value.stochastic
    assert spec("smooth+mean-skeleton").value.learns
    assert spec("blend:label-oracle").value.uses == ("action", "subject")
    assert spec("gauss+coarsen-macro").value.causal
    assert not spec("gauss+smooth").value.causal


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("blend:gauss:std=0.1:0.3", "blend:gauss:std=0.1:beta=0.3"),
        ("blend:gauss", "blend:gauss:std=0.05:beta=0.2"),
        ("blend:gauss:beta=0.5", "blend:gauss:std=0.05:beta=0.5"),
        ("blend:(gauss+smooth:method=savgol):0.2", "blend:(gauss:std=0.05+smooth:window=7,method=savgol):beta=0.2"),
        ("gauss + (smooth+null)", "gauss:std=0.05+smooth:window=7+null"),
        ("((gauss))", "gauss:std=0.05"),
        ("calibrated:blend:null:0.5:target=0.1,steps=3", "calibrated:blend:null:beta=0.2:target=0.1,steps=3"),
        ("blend:calibrated:gauss:0.4", "blend:calibrated:gauss:std=0.05:target=0.2:beta=0.4"),
    ],
)
def test_nested_specs_are_parsed_and_written(text, canonical):
    assert str(spec(text)) == canonical
    assert spec(canonical).digest == spec(text).digest


def test_lists_hold_nested_specs():
    found = parse_specs(
        "blend:gauss:std=0.1:0.3,calibrated:gauss:target=0.1,steps=3,(gauss+smooth:window=3,method=savgol)", ANONYMIZERS
    )
    assert [s.plugin.name for s in found] == ["blend", "calibrated", "chain"]
    assert found[1].value.steps == 3
    assert not {"blend", "calibrated", "chain"} & {s.plugin.name for s in parse_specs("all", ANONYMIZERS)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blend", "wraps another one"),
        ("blend:0.2", "wraps another one"),
        ("blend:gaus:0.2", "did you mean gauss"),
        ("blend:gauss:7", "beta must be between 0 and 1"),
        ("blend:(gauss:0.2", "parentheses do not match"),
        ("chain", r"first\+second"),
        ("gauss+", "is not of the form|no anonymizer named"),
        ("calibrated:identity", "no strength"),
        ("calibrated:gauss:attacker=nobody", "no attacker named"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(SpecError, match=message):
        spec(text)


class _Trial:
    """Leakage that falls as 1 / (1 + 20 * std)."""

    of = "fake"

    def __init__(self, method, examples):
        pass

    def leakage(self, anonymizer):
        return 1 / (1 + 20 * anonymizer.std)

    def fitted(self, anonymizer):
        from bench.anonymizer import Fitted

        return Fitted()


def calibrated(monkeypatch, text):
    monkeypatch.setattr("anonymizers.wrappers._Trial", _Trial)
    value = spec(text).value
    return value, value.fit(make_examples(make_clips()))


def test_the_strength_is_found_by_bisection(monkeypatch):
    value, fitted = calibrated(monkeypatch, "calibrated:gauss:target=0.5,tolerance=0.01")
    assert fitted.info["met"]
    assert fitted.info["strength"] == pytest.approx(0.05, rel=0.05)
    batch = batch_of(noise_clips(10))
    moved = value.transform(batch, fitted.state) - batch.clips
    assert float(moved.std()) == pytest.approx(fitted.info["strength"], rel=0.05)


def test_more_steps_come_closer(monkeypatch):
    misses = [
        abs(calibrated(monkeypatch, f"calibrated:gauss:target=0.37,tolerance=0.001,steps={steps}")[1].info["leakage"] - 0.37)
        for steps in (1, 4, 12)
    ]
    assert misses[0] > misses[1] > misses[2]


def test_an_interrupted_search_goes_on_with_the_strength_it_was_at(monkeypatch, tmp_path):
    monkeypatch.setattr("anonymizers.wrappers._Trial", _Trial)
    monkeypatch.setattr("bench.checkpoint.EVERY", -1.0)
    value, tried = spec("calibrated:gauss:target=0.37,tolerance=0.001,steps=6").value, []

    def leakage(self, anonymizer):
        tried.append(anonymizer.std)
        if len(tried) == 5:
            raise KeyboardInterrupt
        return 1 / (1 + 20 * anonymizer.std)

    examples = dataclasses.replace(make_examples(make_clips()), folder=tmp_path)
    expected = value.fit(make_examples(make_clips())).info
    monkeypatch.setattr(_Trial, "leakage", leakage)
    with pytest.raises(KeyboardInterrupt):
        value.fit(examples)
    assert value.fit(examples).info == expected
    assert tried[:4] + tried[5:] == [one["strength"] for one in expected["tried"]]  # the fifth was not finished


def test_a_target_out_of_reach_is_said_to_be(monkeypatch):
    _, fitted = calibrated(monkeypatch, "calibrated:gauss:target=0,tolerance=0.001")
    assert not fitted.info["met"]
    assert fitted.info["strength"] == pytest.approx(5.0)  # a hundred times the default


def test_strengths_with_ends_are_sought_between_them():
    value = spec("calibrated:blend:null").value
    assert isinstance(value, Calibrated)
    assert [value._strength(share) for share in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]
    assert spec("calibrated:smooth").value._strength(0.5) == 7
    assert spec("calibrated:smooth").value._strength(0.0) == 1  # its own least
    assert spec("calibrated:resample").value._strength(0.0) == 2


def test_a_strength_that_will_be_sought_is_not_part_of_the_name():
    assert spec("calibrated:gauss:std=0.3:target=0.1").digest == spec("calibrated:gauss:target=0.1").digest


@pytest.mark.parametrize(("text", "most"), [("calibrated:quantise-bones:steps=1", 3), ("calibrated:explain-mask:steps=1", 25)])
def test_where_the_data_sets_the_ends_of_a_strength_they_hold(text, most):
    examples = make_examples(make_clips())
    tried = [one["strength"] for one in spec(text).value.fit(examples).info["tried"]]
    assert tried[:2] == [1, most]


@pytest.mark.parametrize("text", ["calibrated:gauss:steps=1", "calibrated:smooth:steps=1", "calibrated:blend:null:steps=1"])
def test_people_without_clips_to_learn_from_do_not_stop_a_calibration(text):
    examples = make_examples(make_clips())
    subject = examples.parts["subject"]
    more = dataclasses.replace(subject, classes=(0, 1, 2, 3, 4))  # two people whose clips are all tested
    fitted = spec(text).value.fit(dataclasses.replace(examples, parts={**examples.parts, "subject": more}))
    assert {"strength", "leakage", "met", "tried"} <= fitted.info.keys()
