"""SGN against its equations (Zhang et al., CVPR 2020)."""

import pytest
import torch
from torch.nn import functional

from attackers.backbones import create
from attackers.backbones.channels_last import ChannelNorm


def make(width=0.25, bodies=1, classes=60):
    torch.manual_seed(0)
    return create("sgn", layout="ntu", num_classes=classes, num_bodies=bodies, width=width)


def test_parameter_count_is_that_of_the_equations():
    embeddings = 2 * (2 * 75 + (3 * 64 + 64) + (64 * 64 + 64)) + (25 * 64 + 64 + 64 * 64 + 64) + (20 * 64 + 64 + 64 * 256 + 256)
    adjacency = 2 * (128 * 256 + 256)
    graph = sum(2 * i * o + o + 2 * o for i, o in ((128, 128), (128, 256), (256, 256)))
    temporal = (256 * 256 * 3 + 256 + 2 * 256) + (256 * 512 + 512 + 2 * 512)
    model = make(width=1.0)
    assert sum(p.numel() for p in model.parameters()) == embeddings + adjacency + graph + temporal + 512 * 60 + 60 == 691_048


def test_a_clip_is_read_at_the_middles_of_twenty_segments():
    model = make().eval()
    clips = torch.randn(2, 3, 50, 25, 1)
    middles = [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38, 41, 43, 46, 48]
    assert torch.allclose(model(clips), model(clips[:, :, middles]))
    other = clips.clone()
    other[:, :, 2] += 1.0  # not a middle
    assert torch.equal(model(other), model(clips))
    short = torch.randn(1, 3, 2, 25, 1)
    assert torch.allclose(model(short), model(short.repeat_interleave(10, dim=2)))


def test_every_joint_listens_to_a_distribution_of_joints():
    model = make()
    x = torch.randn(40, 25, 32)
    adjacency = model.adjacency(x)
    assert adjacency.shape == (40, 25, 25)
    assert (adjacency > 0).all()
    assert torch.allclose(adjacency.sum(2), torch.ones(40, 25))
    agreement = model.theta(x) @ model.phi(x).mT
    assert torch.allclose(adjacency.log(), agreement.log_softmax(2), atol=1e-5)


def published_state(classes, generator):
    """A state dict with the keys and shapes that the authors' code writes, of random numbers."""
    shapes = {"fc.weight": (classes, 512), "fc.bias": (classes,), "cnn.cnn1.weight": (256, 256, 1, 3), "cnn.cnn1.bias": (256,)}
    norms = {"cnn.bn1": 256, "cnn.bn2": 512, "joint_embed.cnn.0.bn": 75, "dif_embed.cnn.0.bn": 75}
    maps = {"compute_g1.g1": (256, 128), "compute_g1.g2": (256, 128), "cnn.cnn2": (512, 256)}
    for name, first, sizes in (
        *(("joint_embed", 1, (3, 64, 64)), ("dif_embed", 1, (3, 64, 64))),
        *(("spa_embed", 0, (25, 64, 64)), ("tem_embed", 0, (20, 64, 256))),
    ):
        maps |= {f"{name}.cnn.{first}": (sizes[1], sizes[0]), f"{name}.cnn.{first + 2}": (sizes[2], sizes[1])}
    for i, (before, after) in enumerate(((128, 128), (128, 256), (256, 256)), 1):
        maps |= {f"gcn{i}.w": (after, before), f"gcn{i}.w1": (after, before)}
        norms[f"gcn{i}.bn"] = after
    for key, (after, before) in maps.items():
        inner = key if key == "cnn.cnn2" else f"{key}.cnn"
        shapes[f"{inner}.weight"] = (after, before, 1, 1)
        if not key.endswith(".w"):
            shapes[f"{inner}.bias"] = (after,)
    for key, channels in norms.items():
        shapes |= {f"{key}.{name}": (channels,) for name in ("weight", "bias", "running_mean", "running_var")}
    state = {key: torch.randn(shape, generator=generator, dtype=torch.float64) for key, shape in shapes.items()}
    for key in state:
        if state[key].ndim > 1:
            state[key] /= state[key][0].numel() ** 0.5
        if key.endswith("running_var"):
            state[key] = state[key].square() + 0.5
    return state | {f"{key}.num_batches_tracked": torch.tensor(7) for key in norms}


def written_out(state, clip):
    """Logits of one body (3, 20, 25) by the equations, in the authors' axes (C, V, T), in eval mode."""

    def map1(key, x):  # (C, ...) -> (C', ...)
        out = torch.einsum("oc,c...->o...", state[f"{key}.weight"][:, :, 0, 0], x)
        bias = state.get(f"{key}.bias")
        return out if bias is None else out + bias.view(-1, *[1] * (x.ndim - 1))

    def norm(key, x):  # (C, ...)
        mean, var, weight, bias = (
            state[f"{key}.{name}"].view(-1, *[1] * (x.ndim - 1)) for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def embed(key, x, first=0):
        return map1(f"{key}.cnn.{first + 2}.cnn", map1(f"{key}.cnn.{first}.cnn", x).relu()).relu()

    position = clip.transpose(1, 2)  # (C, V, T)
    velocity = torch.zeros_like(position)
    for t in range(1, 20):
        velocity[:, :, t] = position[:, :, t] - position[:, :, t - 1]
    x = sum(
        embed(key, norm(f"{key}.cnn.0.bn", motion.reshape(75, 20)).view(3, 25, 20), first=1)
        for key, motion in (("joint_embed", position), ("dif_embed", velocity))
    )
    joint = embed("spa_embed", torch.eye(25, dtype=clip.dtype))  # (64, V)
    x = torch.cat([x, joint[:, :, None].expand(-1, -1, 20)])
    theta, phi = map1("compute_g1.g1.cnn", x), map1("compute_g1.g2.cnn", x)
    graph = torch.einsum("cit,cjt->tij", theta, phi).softmax(2)
    for i in (1, 2, 3):
        heard = torch.einsum("tij,cjt->cit", graph, x)
        x = norm(f"gcn{i}.bn", map1(f"gcn{i}.w.cnn", heard) + map1(f"gcn{i}.w1.cnn", x)).relu()
    x = (x + embed("tem_embed", torch.eye(20, dtype=clip.dtype))[:, None]).amax(1)  # (256, T)
    padded = functional.pad(x, (1, 1))
    kernel = state["cnn.cnn1.weight"][:, :, 0]
    x = sum(kernel[:, :, k] @ padded[:, k : k + 20] for k in range(3)) + state["cnn.cnn1.bias"][:, None]
    x = norm("cnn.bn1", x).relu()
    x = norm("cnn.bn2", map1("cnn.cnn2", x)).relu().amax(1)
    return state["fc.weight"] @ x + state["fc.bias"]


@torch.no_grad()
def test_logits_are_those_of_the_equations_with_a_published_state():
    generator = torch.Generator().manual_seed(3)
    state = published_state(11, generator)
    model = make(width=1.0, bodies=2, classes=11).double().eval()
    model.load_reference_state(state)
    clips = torch.randn(2, 3, 20, 25, 2, generator=generator, dtype=torch.float64)
    clips[1, ..., 1] = 0
    expected = torch.stack([torch.stack([written_out(state, clip[..., m]) for m in (0, 1)]).mean(0) for clip in clips])
    assert torch.allclose(model(clips), expected, rtol=1e-9, atol=1e-9)


def test_in_training_the_batch_gives_the_statistics():
    model = make(bodies=1, classes=5).double()
    model.dropout.p = 0.0
    for convolution in model.graph:
        torch.nn.init.normal_(convolution.neighbours.weight, 0, 0.1)
    clips = torch.randn(3, 3, 20, 25, 1, dtype=torch.float64)
    seen = {}
    norms = {name: module for name, module in model.named_modules() if isinstance(module, ChannelNorm)}
    for name, module in norms.items():
        module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].detach()}))
    with torch.no_grad():
        logits = model(clips)
        assert len(seen) == 7
        for name, module in norms.items():
            flat = seen[name].reshape(-1, seen[name].shape[-1])
            assert torch.allclose(module.running_mean, 0.1 * flat.mean(0))
            # With the batch's own statistics put in as running ones, eval mode gives the same logits.
            module.running_mean.copy_(flat.mean(0))
            module.running_var.copy_(flat.var(0, correction=0))
        assert torch.allclose(model.eval()(clips), logits, atol=1e-9)


def test_whole_channels_are_dropped():
    model = make(width=1.0)
    seen = []
    model.dropout.register_forward_hook(lambda _, args, out: seen.append((args[0].detach(), out.detach())))
    model(torch.randn(8, 3, 20, 25, 1))
    before, after = seen[0]
    assert before.shape == (8, 256, 20)
    alive = before.abs().amax(2) > 0
    kept = after.abs().amax(2)[alive] > 0
    assert kept.double().mean() == pytest.approx(0.8, abs=0.05)
    assert torch.allclose(after, before / 0.8 * (after.abs().amax(2, keepdim=True) > 0))


def test_the_initial_network_is_the_authors():
    """Normal weights of variance 2 / outputs, neighbours that say nothing yet, and torch's own initial classifier."""
    model = make(width=1.0)
    for linear in (model.theta, model.graph[2].itself, model.frame[2]):
        assert float(linear.weight.detach().std()) == pytest.approx((2 / linear.out_features) ** 0.5, rel=0.03)
    assert float(model.over_time.weight.detach().std()) == pytest.approx((2 / (256 * 3)) ** 0.5, rel=0.03)
    assert all(not convolution.neighbours.weight.any() for convolution in model.graph)
    assert float(model.classifier.weight.detach().abs().max()) <= 512**-0.5


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_bfloat16_is_near_float32(mode):
    model = getattr(make(width=1.0), mode)()
    model.dropout.p = 0.0
    clips = torch.randn(4, 3, 20, 25, 1)
    expected = model(clips)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(clips)
    logits.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()
