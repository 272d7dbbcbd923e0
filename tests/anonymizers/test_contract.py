"""What every registered anonymizer must do, built-in or not (methods.md section 4.1)."""

import dataclasses

import numpy as np
import pytest
import torch

from bench.anonymizer import Anonymizer, ClipBatch, anonymize, clip_seed
from bench.data.clips import ClipSet
from bench.registry import ANONYMIZERS
from bench.skeleton import get_layout
from bench.specs import Spec, parse_spec

every_anonymizer = pytest.mark.parametrize("name", ANONYMIZERS.names())


def make_clips(layout_name="ntu", bodies=2):
    """Clips of different lengths; every second one lacks its second body, one lacks its first in some frames."""
    generator = torch.Generator().manual_seed(1)
    layout = get_layout(layout_name)
    lengths = torch.tensor([7, 12, 1, 30, 12, 9])
    count = torch.tensor([1, bodies, 1, bodies, 1, 1])
    rows = torch.randn((int((lengths * count).sum()), 3, layout.num_joints), generator=generator)
    rows[2] = 0  # an absent body in the midst of the first clip
    first = torch.cumsum(lengths * count, 0) - lengths * count
    names = np.array([f"clip{i}" for i in range(6)], dtype=object)
    return ClipSet(rows, first, lengths, count, names, layout, bodies, 30.0)


def fitted(name, clips):
    anonymizer = parse_spec(name, ANONYMIZERS).value
    labels = {"action": torch.arange(len(clips)) % 2, "subject": torch.arange(len(clips)) % 3}
    return anonymizer, anonymizer.fit(clips, labels, torch.Generator().manual_seed(0))


def run(name, clips, seed=0, draw="holder/0", batch_size=64):
    return anonymize(*fitted(name, clips), clips, seed=seed, draw=draw, batch_size=batch_size)


@every_anonymizer
@pytest.mark.parametrize(("layout", "bodies"), [("ntu", 2), ("utd-mhad", 1), ("kinect-v1", 1)])
def test_keeps_shape_absent_bodies_and_input(name, layout, bodies):
    clips = make_clips(layout, bodies)
    before = clips.rows.clone()
    out = run(name, clips)
    assert out.shape == before.shape
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert not out[2].any()
    assert torch.equal(clips.rows, before)


@every_anonymizer
def test_does_not_depend_on_batch_size_order_or_neighbours(name):
    clips = make_clips()
    out = run(name, clips)
    assert torch.allclose(run(name, clips, batch_size=1), out, atol=1e-5)
    anonymizer, state = fitted(name, clips)
    order = np.array([4, 1, 0])
    alone = anonymize(anonymizer, state, clips.subset(order), seed=0, draw="holder/0")
    for i in order:
        rows = slice(int(clips.first[i]), int(clips.first[i] + clips.lengths[i] * clips.bodies[i]))
        assert torch.allclose(alone[rows], out[rows], atol=1e-5)


@every_anonymizer
def test_randomness_is_what_it_declares(name):
    clips = make_clips()
    out = run(name, clips)
    assert torch.equal(run(name, clips), out)
    stochastic = parse_spec(name, ANONYMIZERS).value.stochastic
    for other in (run(name, clips, seed=1), run(name, clips, draw="attacker/0")):
        assert torch.equal(other, out) != stochastic


@every_anonymizer
def test_every_parameter_has_an_effect_and_changes_the_digest(name):
    clips = make_clips()
    spec = parse_spec(name, ANONYMIZERS)
    out = run(name, clips)
    for field in dataclasses.fields(spec.value):
        choices = field.metadata["choices"]
        others = [c for c in choices if c != field.default] or [
            not field.default if isinstance(field.default, bool) else field.default * 2
        ]
        changed = dataclasses.replace(spec.value, **{field.name: others[0]})
        assert Spec(spec.plugin, changed).digest != spec.digest
        state = changed.fit(
            clips, {"action": torch.zeros(6).long(), "subject": torch.zeros(6).long()}, torch.Generator().manual_seed(0)
        )
        assert not torch.equal(anonymize(changed, state, clips, seed=0, draw="holder/0"), out), field.name


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


def test_clip_seeds_differ_by_seed_draw_and_name():
    seeds = {clip_seed(s, d, n) for s in (0, 1) for d in ("holder/0", "holder/1", "attacker/0") for n in ("a", "b")}
    assert len(seeds) == 12


def test_null_releases_one_pose_and_identity_the_clips():
    clips = make_clips()
    assert torch.equal(run("identity", clips), clips.rows)
    poses = run("null", clips)
    present = clips.rows.flatten(1).any(dim=1)
    expected = clips.rows[present].mean(dim=0)
    assert torch.allclose(poses[present], expected.expand_as(poses[present]), atol=1e-6)


def test_gauss_has_the_standard_deviation_that_it_says():
    clips = make_clips()
    moved = (run("gauss:std=0.2", clips) - clips.rows)[clips.rows.flatten(1).any(dim=1)]
    assert float(moved.std()) == pytest.approx(0.2, rel=0.03)
    assert float(moved.mean()) == pytest.approx(0, abs=0.01)
    assert not (run("gauss:std=0", clips) - clips.rows).any()
