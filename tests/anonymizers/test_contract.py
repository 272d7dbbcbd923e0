"""What every registered anonymizer must do, built-in or not."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from bench.anonymizer import Anonymizer, ClipBatch, Examples, anonymize, clip_seed, refuse_chance
from bench.data.clips import ClipSet
from bench.presets import get_preset
from bench.protocols import Part
from bench.registry import ANONYMIZERS
from bench.skeleton import get_layout
from bench.specs import Spec, parse_spec

WRAPPED = {"blend": "blend:null:0.3", "calibrated": "calibrated:gauss:steps=2", "chain": "smooth+gauss"}
NAMES = [WRAPPED.get(name, name) for name in ANONYMIZERS.names()]
every_anonymizer = pytest.mark.parametrize("name", NAMES)
TINY = dataclasses.replace(
    get_preset("quick"),
    **{
        name: dataclasses.replace(get_preset("quick").attack, width=0.05, frames=8, epochs=1, most_steps=3, batch=2)
        for name in ("attack", "utility")
    },
)
# What a parameter needs beside it to have an effect, and values that cannot simply be doubled.
BESIDE = {
    ("explain-mask", "std"): "how=noise",
    ("adversarial", "action_weights"): None,  # needs published weights: tests/anonymizers/test_adversarial.py
    ("calibrated:gauss:steps=2", "tolerance"): None,  # ends the search early: tests/anonymizers/test_wrappers.py
    ("calibrated:gauss:steps=2", "steps"): None,
    ("calibrated:gauss:steps=2", "target"): None,
    ("label-oracle", "donors"): None,  # there are fewer clips than donors: tests/anonymizers/test_controls.py
}
OTHER = {
    ("adversarial", "alpha"): 50.0,
    ("adversarial", "beta"): 1.0,
    ("adversarial", "gamma"): 5.0,
    ("adversarial", "private"): "gender",
    ("adversarial", "action_backbone"): "st-gcn",
    ("adversarial", "privacy_backbone"): "st-gcn",
    ("adversarial", "network"): "resnet",
    ("explain-mask", "backbone"): "st-gcn",
    ("explain-mask", "private"): "gender",
    ("explain-mask", "spare"): 30.0,
    ("quantise-bones", "k"): 1,
    ("calibrated:gauss:steps=2", "attacker"): "bones-lda",
}


def make_clips(layout_name="ntu", bodies=2):
    """Clips of different lengths; every second one lacks its second body, one lacks its first in some frames."""
    generator = torch.Generator().manual_seed(1)
    layout = get_layout(layout_name)
    lengths = torch.tensor([7, 12, 1, 30, 12, 9, 8, 20, 31, 16, 5, 10])
    count = torch.tensor([1, bodies, 1, bodies, 1, 1, bodies, 1, 1, 1, 1, 1])
    rows = 0.3 * torch.randn((int((lengths * count).sum()), 3, layout.num_joints), generator=generator)
    rows[2] = 0  # an absent body in the midst of the first clip
    first = torch.cumsum(lengths * count, 0) - lengths * count
    names = np.array([f"clip{i}" for i in range(len(lengths))], dtype=object)
    return ClipSet(rows, first, lengths, count, names, layout, bodies, 30.0)


def make_examples(clips):
    """Two actions and three people who do both of them twice; one of the people is of another gender."""
    count = np.arange(len(clips))
    people, actions = count % 3, count // 3 % 2
    held = count >= 9
    parts = {
        target: Part(
            target=target,
            classes=tuple(range(labels.max() + 1)),
            labels=labels,
            train=count[~held],
            validation=count[held],
            test=count[:0],
            subjects=people,
            performances=count,
        )
        for target, labels in (("action", actions), ("subject", people), ("gender", (people == 1).astype(int)))
    }
    return Examples(clips, parts, TINY, seed=0)


@functools.cache
def fitted(name, layout="ntu", bodies=2):
    clips = make_clips(layout, bodies)
    examples = make_examples(clips)
    spec = parse_spec(name, ANONYMIZERS)
    return clips, examples, spec, spec.value.fit(examples).state


def run(name, *where, seed=0, draw="holder/0", batch_size=64):
    clips, examples, spec, state = fitted(name, *where)
    labels = examples.release_labels()
    return anonymize(spec.value, state, clips, seed=seed, draw=draw, labels=labels, batch_size=batch_size)


@every_anonymizer
@pytest.mark.parametrize(("layout", "bodies"), [("ntu", 2), ("utd-mhad", 1), ("kinect-v1", 1)])
def test_keeps_shape_absent_bodies_and_input(name, layout, bodies):
    out = run(name, layout, bodies)
    before = make_clips(layout, bodies).rows
    assert out.shape == before.shape
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert not out[2].any()
    assert torch.equal(fitted(name, layout, bodies)[0].rows, before)


@every_anonymizer
def test_does_not_depend_on_batch_size_order_or_neighbours(name):
    clips, examples, spec, state = fitted(name)
    out = run(name)
    assert torch.allclose(run(name, batch_size=1), out, atol=1e-5)
    order = np.array([4, 1, 0])
    labels = {key: codes[order] for key, codes in examples.release_labels().items()}
    alone = anonymize(spec.value, state, clips.subset(order), seed=0, draw="holder/0", labels=labels)
    for i in order:
        rows = slice(int(clips.first[i]), int(clips.first[i] + clips.lengths[i] * clips.bodies[i]))
        assert torch.allclose(alone[rows], out[rows], atol=1e-5)


@every_anonymizer
def test_is_deterministic_and_its_randomness_is_what_it_declares(name):
    out = run(name)
    assert torch.equal(run(name), out)
    for other in (run(name, seed=1), run(name, draw="attacker/0")):
        assert torch.equal(other, out) != fitted(name)[2].value.stochastic


@every_anonymizer
def test_a_fit_is_deterministic_and_learns_only_if_it_says_so(name):
    _, examples, spec, state = fitted(name)
    again = spec.value.fit(examples).state
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    assert spec.value.learns or not state


@every_anonymizer
def test_a_causal_one_does_not_look_ahead(name):
    clips, examples, spec, state = fitted(name)
    if not spec.value.causal:
        pytest.skip("not declared causal")
    rows = clips.rows.clone()
    last = int(clips.first[3] + clips.lengths[3] * clips.bodies[3])
    rows[last - 20 : last] += 1
    labels = examples.release_labels()
    changed = anonymize(spec.value, state, clips.with_rows(rows), seed=0, draw="holder/0", labels=labels)
    assert torch.equal(changed[: last - 20], run(name)[: last - 20])


def parameters():
    for name in NAMES:
        value = parse_spec(name, ANONYMIZERS).value
        for field in dataclasses.fields(value):
            if "strength" in field.metadata and BESIDE.get((name, field.name), "") is not None:
                yield name, field.name


@pytest.mark.parametrize(("name", "parameter"), list(parameters()))
def test_every_parameter_has_an_effect_and_changes_the_digest(name, parameter):
    base = name
    if beside := BESIDE.get((name, parameter)):
        base += f":{beside}"
    clips, examples, spec, _ = fitted(base)
    field = next(field for field in dataclasses.fields(spec.value) if field.name == parameter)
    now = getattr(spec.value, parameter)
    value = OTHER.get((name, parameter))
    if value is None:
        others = [choice for choice in field.metadata["choices"] if choice != now]
        value = others[0] if others else not now if isinstance(now, bool) else now * 2
    changed = dataclasses.replace(spec.value, **{parameter: value})
    assert Spec(spec.plugin, changed).digest != spec.digest
    labels = examples.release_labels()
    state = changed.fit(examples).state
    assert not torch.equal(anonymize(changed, state, clips, seed=0, draw="holder/0", labels=labels), run(base))


@dataclasses.dataclass(frozen=True)
class Careless(Anonymizer):
    """Breaks the contract in one way."""

    how: str = "shape"

    def transform(self, batch: ClipBatch, state) -> torch.Tensor:
        return {"shape": batch.clips[:, :, 1:], "nan": batch.clips * torch.nan, "absent": batch.clips + 1}[self.how]


@pytest.mark.parametrize(
    ("how", "message"), [("shape", "of shape"), ("nan", "not finite"), ("absent", "moved bodies that are absent")]
)
def test_a_broken_contract_is_caught(how, message):
    with pytest.raises(ValueError, match=f"Careless .*{message}"):
        anonymize(Careless(how), {}, make_clips(), seed=0, draw="holder/0")


@dataclasses.dataclass(frozen=True)
class Chancy(Anonymizer):
    """Draws as anybody would who does not know better, or as the contract has it."""

    stochastic = True
    keeps_the_contract: bool = False

    def transform(self, batch: ClipBatch, state) -> torch.Tensor:
        if self.keeps_the_contract:
            noise = torch.stack([torch.randn(batch.clips.shape[1:], generator=generator) for generator in batch.generators()])
        else:
            noise = torch.randn_like(batch.clips)
        return batch.clips + noise * batch.present


def test_what_comes_out_otherwise_the_second_time_is_refused():
    how = {"seed": 0, "draw": "holder/0"}
    refuse_chance(Chancy(keeps_the_contract=True), {}, make_clips(), **how)
    with pytest.raises(ValueError, match=r"Chancy releases the same clips otherwise .* batch.generators()"):
        refuse_chance(Chancy(), {}, make_clips(), **how)


def test_clip_seeds_differ_by_seed_draw_and_name():
    seeds = {clip_seed(s, d, n) for s in (0, 1) for d in ("holder/0", "holder/1", "attacker/0") for n in ("a", "b")}
    assert len(seeds) == 12


def test_null_releases_one_pose_and_identity_the_clips():
    rows = make_clips().rows
    assert torch.equal(run("identity"), rows)
    poses = run("null")
    present = rows.flatten(1).any(dim=1)
    expected = rows[present].mean(dim=0)
    assert torch.allclose(poses[present], expected.expand_as(poses[present]), atol=1e-6)
