"""What every registered backbone must do."""

import pytest
import torch

from attackers.backbones import create
from bench.registry import BACKBONES
from bench.skeleton import Layout

every_backbone = pytest.mark.parametrize("name", BACKBONES.names())
TINY = Layout(
    name="tiny",
    joints=("hip", "spine", "head", "left shoulder", "right shoulder"),
    parents=(0, 0, 1, 1, 1),
    centre=1,
    spine=(0, 1),
    shoulders=(3, 4),
    parts={"body": (0, 1, 2, 3, 4)},
)


def make(name, layout="ntu", classes=7, bodies=2, width=0.25, **options):
    torch.manual_seed(0)
    return create(name, layout=layout, num_classes=classes, num_bodies=bodies, width=width, **options)


@every_backbone
@pytest.mark.parametrize(("layout", "joints"), [("ntu", 25), ("kinect-v1", 20), ("utd-mhad", 20)])
def test_logits_and_embeddings_for_every_layout(name, layout, joints):
    model = make(name, layout).eval()
    clips = torch.randn(3, 3, 12, joints, 2)
    logits, embedding = model(clips), model.embed(clips)
    assert logits.shape == (3, 7)
    assert embedding.shape[0] == 3
    assert torch.allclose(model.classifier(embedding), logits, atol=1e-6)


@every_backbone
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 30])
def test_few_frames_few_joints_one_body(name, frames):
    model = make(name, TINY, bodies=1)
    clips = torch.randn(2, 3, frames, 5, 1, requires_grad=True)
    logits = model(clips)
    logits.square().sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(clips.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@every_backbone
def test_absent_bodies_give_finite_logits(name):
    model = make(name)
    for mode in (model.train(), model.eval()):
        assert torch.isfinite(mode(torch.zeros(2, 3, 8, 25, 2))).all()


@every_backbone
def test_input_channels_and_width_are_used(name):
    assert make(name, in_channels=6)(torch.randn(1, 6, 8, 25, 2)).shape == (1, 7)
    sizes = [sum(p.numel() for p in make(name, width=width).parameters()) for width in (0.25, 0.5, 1.0)]
    assert sizes[0] < 0.6 * sizes[1] < 0.6 * 0.6 * sizes[2]  # what belongs to joints rather than to channels stays


@every_backbone
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 8, 20, 2), "expected 25 joints, got 20"),
        ((2, 3, 8, 25, 1), "expected 2 bodies, got 1"),
        ((2, 2, 8, 25, 2), "expected 3 channels, got 2"),
        ((2, 3, 25, 2), "expected clips of 5 axes .* got 4"),
        ((2, 3, 0, 25, 2), "at least 1 clip and 1 frame, got 2 clips and 0 frames"),
    ],
)
def test_a_wrong_shape_names_both_numbers(name, shape, message):
    with pytest.raises(ValueError, match=message):
        make(name)(torch.zeros(shape))


@every_backbone
def test_absent_bodies_are_computed_once_and_count_all_the_same(name):
    model = make(name)
    clips = torch.randn(5, 3, 8, 25, 2)
    model(clips)  # moves the running statistics
    clips[1:3, ..., 1] = 0
    clips[2, ..., 0] = 0
    model.eval()
    with torch.no_grad():
        short = model(clips)
    assert torch.allclose(short, model(clips.requires_grad_()), atol=1e-5)  # nothing is left out where gradients are asked for


@every_backbone
def test_eval_mode_does_not_depend_on_the_batch(name):
    model = make(name)
    clips = torch.randn(6, 3, 8, 25, 2)
    model(clips)  # moves the running statistics
    model.eval()
    together = model(clips)
    assert torch.allclose(torch.cat([model(clip[None]) for clip in clips]), together, atol=1e-5)
    assert torch.equal(model(clips), together)


@every_backbone
def test_parameter_groups_hold_each_parameter_once(name):
    model = make(name)
    groups = model.parameter_groups(1e-4)
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in model.parameters())
    assert all(g["weight_decay"] >= 0 for g in groups)


@every_backbone
def test_foreign_weights_are_refused_and_change_nothing(name):
    model = make(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"missing .*; 1 unexpected \(strange\)|there are no published weights"):
        model.load_reference_state({"strange": torch.zeros(1)})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_unknown_names_and_counts_are_refused():
    with pytest.raises(LookupError, match="did you mean shift-gcn"):
        make("shiftgcn")
    with pytest.raises(LookupError, match="no skeleton layout named 'ntuu'; did you mean ntu"):
        make("shift-gcn", "ntuu")
    with pytest.raises(ValueError, match="num_classes is a count and must be an integer >= 1, got 0"):
        make("shift-gcn", classes=0)
    with pytest.raises(ValueError, match="width is a factor on the channels and must be > 0, got -1"):
        make("shift-gcn", width=-1)
