"""Shift-GCN against hand-made cases, a naive implementation of its equations, and its authors' published weights."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from attackers.backbones import create
from attackers.backbones.base import norm_references
from attackers.backbones.layers import BatchNorm
from attackers.backbones.shift_ops import frame_offset, permute_rows, shear_rows, temporal_shift, unshear_rows

CHECKPOINTS = {
    "xsub": ("ntu_ShiftGCN_joint_xsub.pt", 60),
    "xview": ("ntu_ShiftGCN_joint_xview.pt", 60),
    "n120xsub": ("ntu120_ShiftGCN_joint_xsub.pt", 120),
    "n120xset": ("ntu120_ShiftGCN_joint_xsetup.pt", 120),
}


def rows_of(joints, channels):
    """The permutation that keeps every row where it is, and its inverse."""
    rows = torch.arange(joints * channels).view(joints, channels)
    return rows, rows


def naive_shift(x, offset, stride):
    """out[v, c, t] sampled at t * stride + offset[c], linearly, zero outside; differentiable in x and offset."""
    _, c, t, _ = x.shape
    padded = functional.pad(x, (0, 0, 50, 50))
    out = []
    for step in range(-(-t // stride)):
        place = step * stride + offset
        low = place.detach().floor().long()
        fraction = (place - low)[None, :, None]
        channel = torch.arange(c)
        out.append((1 - fraction) * padded[:, channel, low + 50] + fraction * padded[:, channel, low + 51])
    return torch.stack(out, dim=2)


@pytest.mark.parametrize(("classes", "count"), [(60, 693_107), (40, 687_967), (2, 678_201)])
def test_parameter_counts_are_the_published_ones(classes, count):
    model = create("shift-gcn", layout="ntu", num_classes=classes, num_bodies=2)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("offset", "stride", "expected"),
    [
        (0.25, 1, [1.25, 2.25, 3.25, 4.25, 5.25, 4.5]),
        (-0.5 + 0.5, 2, [1, 3, 5]),
        (0 + 0.5, 2, [1.5, 3.5, 5.5]),
        (-1.0, 1, [0, 1, 2, 3, 4, 5]),
        (9.6, 1, [0] * 6),
    ],
)
def test_temporal_shift_of_six_frames_by_hand(offset, stride, expected):
    x = torch.arange(1.0, 7).view(1, 1, 6, 1)
    out, _ = temporal_shift(x, torch.tensor([offset]), *rows_of(1, 1), stride=stride)
    assert out.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 4, 7])
def test_temporal_shift_and_its_gradients_agree_with_the_definition(stride, frames):
    generator = torch.Generator().manual_seed(frames)
    x = torch.randn((3, 4, frames, 5), generator=generator, dtype=torch.float64, requires_grad=True)
    offset = torch.tensor([-2.3, -0.4, 0.7, 5.2], dtype=torch.float64, requires_grad=True)
    weight = torch.randn((3, 4, -(-frames // stride), 5), generator=generator, dtype=torch.float64)
    edge = torch.randn((4, -(-frames // stride)), generator=generator, dtype=torch.float64)
    ours, kept = temporal_shift(x, offset, *rows_of(3, 4), stride=stride)
    naive, naive_kept = naive_shift(x, offset, stride), naive_shift(torch.ones_like(x[:1, :, :, :1]), offset, stride)[0, ..., 0]
    assert torch.allclose(ours, naive, atol=1e-12)
    assert torch.allclose(kept, naive_kept, atol=1e-12)
    losses = ((ours * weight).sum() + (kept * edge).sum(), (naive * weight).sum() + (naive_kept * edge).sum())
    gradients = [torch.autograd.grad(loss, (x, offset)) for loss in losses]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_published_offset_gradient_is_the_sign():
    x = torch.randn(3, 4, 6, 5)
    x[:, 0] = 0
    offset = torch.tensor([0.3, -0.4, 0.7, 1.2], requires_grad=True)
    true = torch.autograd.grad(temporal_shift(x, offset, *rows_of(3, 4))[0].square().sum(), offset)[0]
    out, _ = temporal_shift(x, frame_offset(offset, torch.zeros(4), 0.0, published=True), *rows_of(3, 4))
    published = torch.autograd.grad(out.square().sum(), offset)[0]
    assert published.tolist() == pytest.approx([1e-4, *(0.01 * true[1:].sign()).tolist()])


def test_spatial_shift_is_channel_c_of_joint_v_plus_c():
    joints, channels = 5, 7
    x = torch.randn(joints, channels, 2, 3)
    shear, unshear = shear_rows(joints, channels), unshear_rows(joints, channels)
    shifted = permute_rows(x, shear, unshear)
    for v in range(joints):
        for c in range(channels):
            assert torch.equal(shifted[v, c], x[(v + c) % joints, c])
    assert torch.equal(permute_rows(shifted, unshear, shear), x)


@pytest.mark.parametrize("relu", [False, True])
def test_fused_batch_norm_agrees_with_torch(relu):
    torch.manual_seed(0)
    ours, theirs = BatchNorm(6, 1).double(), torch.nn.BatchNorm1d(6).double()
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.linspace(0.5, 2, 6).view(norm.weight.shape))
            norm.bias.copy_(torch.linspace(-1, 1, 6).view(norm.bias.shape))
    x, residual = torch.randn(6, 40, dtype=torch.float64) * 3 + 5, torch.randn(6, 40, dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (x, residual, x, residual)]
    out = ours(leaves[0], residual=leaves[1], relu=relu)
    expected = theirs(leaves[2].T).T + leaves[3]
    expected = expected.relu() if relu else expected
    assert torch.allclose(out, expected, atol=1e-12)
    weight = torch.randn(6, 40, dtype=torch.float64)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for one, other in ((leaves[0], leaves[2]), (leaves[1], leaves[3])):
        assert torch.allclose(one.grad, other.grad, atol=1e-10)
    assert torch.allclose(ours.weight.grad.flatten(), theirs.weight.grad, atol=1e-9)
    assert torch.allclose(ours.running_mean.flatten(), theirs.running_mean)
    assert torch.allclose(ours.running_var.flatten(), theirs.running_var)
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x), theirs(x.T).T, atol=1e-12)


def published_state(model, generator):
    """A random state dict under the authors' keys and in their orders, float64."""
    state = {}
    for key, reference in model.reference_tensors().items():
        shape = reference.shape
        if key.endswith(("gcn1.shift_in", "gcn1.shift_out")):
            joints = model.layout.num_joints
            v, c = torch.meshgrid(torch.arange(joints), torch.arange(shape[0] // joints), indexing="ij")
            source = v + c if key.endswith("in") else v - c
            state[key] = (source % joints * c.shape[1] + c).flatten()
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(3)
        else:
            value = torch.randn(shape, generator=generator, dtype=torch.float64)
            state[key] = value.abs() + 0.5 if "running_var" in key else value * 1e-9 if "xpos" in key else value * 0.5
    return state


def naive_shift_gcn(state, clips):
    """Logits in train mode from the equations, step by step, in the authors' order (N, C, T, V); moves the statistics."""

    def norm(key, x):
        parts = [state[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *parts, training=True)

    def conv(key, x):
        return functional.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"])

    def shift(key, x, stride=1):
        offset = state[f"{key}.ypos"] + (0.5 if stride == 2 else 0)
        return naive_shift(x.permute(3, 1, 2, 0), offset, stride).permute(3, 1, 2, 0)

    n, c, t, v, m = clips.shape
    x = norm("data_bn", clips.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
    x = x.view(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
    for number in range(1, 11):
        block, stride = f"l{number}", 2 if number in (5, 8) else 1
        gcn, tcn = f"{block}.gcn1", f"{block}.tcn1"
        frames = x.permute(0, 2, 3, 1).reshape(n * m * x.shape[2], -1)[:, state[f"{gcn}.shift_in"]]
        frames = frames.view(len(frames), v, -1) * (torch.tanh(state[f"{gcn}.Feature_Mask"]) + 1)
        frames = frames @ state[f"{gcn}.Linear_weight"] + state[f"{gcn}.Linear_bias"]
        frames = norm(f"{gcn}.bn", frames.flatten(1)[:, state[f"{gcn}.shift_out"]])
        y = frames.view(n * m, x.shape[2], v, -1).permute(0, 3, 1, 2)
        projected = f"{gcn}.down.0.weight" in state
        y = (y + (norm(f"{gcn}.down.1", conv(f"{gcn}.down.0", x)) if projected else x)).relu()
        y = conv(f"{tcn}.temporal_linear", shift(f"{tcn}.shift_in", norm(f"{tcn}.bn", y))).relu()
        y = norm(f"{tcn}.bn2", shift(f"{tcn}.shift_out", y, stride))
        if f"{block}.residual.conv.weight" in state:
            y = y + norm(f"{block}.residual.bn", conv(f"{block}.residual.conv", x[:, :, ::stride]))
        elif number > 1:
            y = y + x
        x = y.relu()
    return functional.linear(x.mean((2, 3)).view(n, m, -1).mean(1), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("frames", [8, 5])
def test_a_training_step_agrees_with_the_equations(frames):
    generator = torch.Generator().manual_seed(0)
    model = create("shift-gcn", layout="utd-mhad", num_classes=4, num_bodies=2, width=0.125).double()
    state = published_state(model, generator)
    model.load_reference_state(state)
    clips = torch.randn((3, 3, frames, 20, 2), generator=generator, dtype=torch.float64) + 3
    ours, theirs = clips.clone().requires_grad_(), clips.clone().requires_grad_()
    for key, value in state.items():
        if value.is_floating_point() and "running" not in key and "xpos" not in key:
            value.requires_grad_()
    logits, expected = model(ours), naive_shift_gcn(state, theirs)
    assert torch.allclose(logits, expected, rtol=1e-9)
    weight = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (logits * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9 * float(theirs.grad.abs().max()))
    for key, reference in model.reference_tensors().items():
        if reference.target is None:
            continue
        if state[key].requires_grad:
            want, got = reference.convert(state[key].grad), reference.target.grad
        else:  # running statistics; xpos, which has no gradient
            want, got = reference.convert(state[key]), reference.target
        assert torch.allclose(got, want, rtol=1e-6, atol=1e-8 * max(1.0, float(want.abs().max()))), key
    assert all(not p.grad.any() for name, p in model.named_parameters() if name.endswith("xpos"))


def test_weight_decay_rules_are_the_authors():
    model = create("shift-gcn", layout="ntu", num_classes=2, num_bodies=1, width=0.25)
    names = {id(p): name for name, p in model.named_parameters()}
    decay = {names[id(p)]: g["weight_decay"] for g in model.parameter_groups(1e-4) for p in g["params"]}
    assert {decay[n] for n in decay if n.endswith("mask")} == {0.0}
    assert {round(decay[n], 9) for n in decay if n.endswith("spatial.weight")} == {1e-3}
    assert {decay[n] for n in decay if n.endswith("bias") or "norm" in n} == {1e-4}


def test_published_gradients_can_be_switched_on():
    model = create("shift-gcn", layout="ntu", num_classes=2, num_bodies=1, width=0.25)
    model.use_published_gradients()
    model(torch.randn(2, 3, 8, 25, 1)).square().sum().backward()
    offset = model.blocks[3].temporal.shift_in.ypos.grad
    assert torch.allclose(offset.abs(), torch.full_like(offset, 0.01))


@pytest.fixture(scope="module", params=CHECKPOINTS)
def published(request, bench_data):
    """A published network in eval mode, and its name in the reference outputs."""
    file, classes = CHECKPOINTS[request.param]
    path = bench_data / "pretrained" / file
    if not path.exists():
        pytest.skip(f"{path} is not there")
    model = create("shift-gcn", layout="ntu", num_classes=classes, num_bodies=2)
    model.load_reference_state(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval(), request.param


@torch.no_grad()
def test_published_weights_give_the_authors_logits(published, golden):
    model, name = published
    expected = np.load(golden / "pretrained_logits.npz")
    clips = np.random.default_rng(0).standard_normal((2, 3, 64, 25, 2)).astype(np.float32)
    logits = model(torch.from_numpy(clips)).numpy()
    scale = np.abs(expected[f"{name}_rand"]).max()
    assert np.abs(logits - expected[f"{name}_rand"]).max() < 1e-5 * scale
    real = np.load(golden / "ntu_normalised.npz")
    logits = model(torch.from_numpy(real["clips"])).numpy()
    for clip, got in zip(real["names"], logits, strict=True):
        row = list(expected["names"]).index(clip)
        assert np.abs(got - expected[name][row]).max() < 1e-5 * np.abs(expected[name][row]).max()
        assert got.argmax() + 1 == int(str(clip)[17:20])


def test_weights_of_another_network_are_refused(published):
    model, _ = published
    state = {"fc.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"301 missing .*fc.bias has shape \(3,\), expected"):
        model.load_reference_state(state)


def test_shifts_across_joints_in_a_checkpoint_are_refused(published, bench_data):
    model, name = published
    state = dict(torch.load(bench_data / "pretrained" / CHECKPOINTS[name][0], map_location="cpu", weights_only=True))
    state["l3.tcn1.shift_in.xpos"] = torch.full((64,), 0.5)
    with pytest.raises(ValueError, match=r"l3.tcn1.shift_in.xpos reaches 0.5 joints"):
        model.load_reference_state(state)


def test_what_never_moves_does_not_drown_what_does():
    """Neighbouring joints at the origin: channels of the first block that read these alone are one number, which drifts.

    With torch's running statistics the network would learn, and answer at random whenever it is asked.
    """
    torch.manual_seed(0)
    model = create("shift-gcn", layout="kinect-v1", num_classes=4, num_bodies=1, width=0.1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)

    def batch():
        clips, labels = torch.randn(16, 3, 16, 20, 1), torch.randint(4, (16,))
        clips[:, :, :, :6] += 0.5 * labels[:, None, None, None, None]  # so much noise that there is always more to learn
        clips[:, :, :, 12:18] = 0
        return clips, labels

    asked = []
    for step in range(150):
        clips, labels = batch()
        optimiser.zero_grad()
        functional.cross_entropy(model.train()(clips), labels).backward()
        optimiser.step()
        if step >= 100:
            with torch.no_grad():
                clips, labels = batch()
                asked.append(float(functional.cross_entropy(model.eval()(clips), labels)))
    assert np.median(asked) < 0.7  # by chance 1.39


def test_a_channel_that_never_varied_is_normalised_to_nothing_in_both_modes():
    norm, theirs = BatchNorm(2, 1, stills=True), torch.nn.BatchNorm1d(2)
    with torch.no_grad():
        for of in (norm, theirs):
            of.bias.copy_(torch.tensor([0.5, -0.5]).view_as(of.bias))
    moving = torch.randn(300, 8)
    for step in range(300):  # the first channel is one number, which follows the weights before it
        x = torch.stack([torch.full((8,), 1 + 0.01 * step), moving[step]])
        norm.train()(x.clone()), theirs.train()(x.T)
    ours, torchs = norm.eval()(x.clone()), theirs.eval()(x.T).T
    assert torch.equal(ours[0], torch.full((8,), 0.5))
    assert torchs[0, 0] > 20  # the lag of its mean, divided by the root of eps
    assert torch.allclose(ours[1], torchs[1], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("before", [0, 300])
@pytest.mark.parametrize("values", [8, 4000])  # variances of so many equal values are far from zero
def test_channels_that_stop_varying_are_never_blown_up(before, values):
    """As in fine-tuning, where a release hides joints that raw clips showed; in the first steps of a training as well."""
    norm, theirs = BatchNorm(50, 1, stills=True), torch.nn.BatchNorm1d(50)
    level, found = torch.rand(50, 1) * 3, []
    for step in range(before + 250):
        x = torch.randn(50, values) if step < before else (level + 0.01 * (step - before)).expand(-1, values).contiguous()
        norm.train()(x.clone()), theirs.train()(x.T)
        if step >= before:
            found.append([float(of.eval()(y).abs().max()) for of, y in ((norm, x[:, :1].clone()), (theirs, x[:, :1].T))])
    ours, torchs = np.array(found).T
    assert ours.max() < 4
    assert torchs.max() > 20
    assert (ours[22:] == 0).all()


@torch.no_grad()
def test_a_channel_that_varies_now_and_then_is_not_still():
    norm = BatchNorm(1, 1, stills=True)
    for step in range(200):
        norm.train()(torch.randn(1, 8) if step % 20 == 0 else torch.zeros(1, 8))
        assert norm.eval()(torch.ones(1, 1)) > 0


@torch.no_grad()
def test_published_weights_do_not_tell_what_is_still():
    """They are computed as their authors do."""
    norm = BatchNorm(1, 1, stills=True)
    norm.running_still.fill_(99)
    state = {"weight": torch.ones(1), "bias": torch.zeros(1), "running_mean": torch.zeros(1), "running_var": torch.ones(1)}
    for key, reference in norm_references("bn", norm).items():
        reference.target.copy_(reference.convert(state.get(key.removeprefix("bn."), torch.tensor(7))))
    assert norm.eval()(torch.full((1, 1), 3.0)) == pytest.approx(3, rel=1e-4)
