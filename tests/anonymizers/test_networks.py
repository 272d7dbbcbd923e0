"""Networks that anonymize: the authors' numbers, sizes, and independence of the batch."""

import numpy as np
import pytest
import torch

from anonymizers.networks import NETWORKS, create
from anonymizers.networks.base import apply_network, from_frames, per_frame, repeat_cyclically
from anonymizers.networks.retargeting import FRAMES, CodeHead, Critic, Decoder, Encoder
from anonymizers.networks.transformer import sinusoids
from tests.anonymizers.samples import noise_clips


def test_the_resnet_computes_what_the_authors_do(golden):
    with np.load(golden / "anonymizer_res.npz") as data:
        arrays = dict(data)
    state = {name.removeprefix("state/"): torch.from_numpy(v).double() for name, v in arrays.items() if name.startswith("state/")}
    network = create("resnet", layout="ntu", num_bodies=2).double()
    network.load_reference_state(state)
    x = torch.from_numpy(arrays["x"]).double().requires_grad_()
    y = network.eval()(x)
    np.testing.assert_allclose(y.detach(), arrays["y_eval_f64"], rtol=1e-9, atol=1e-12)
    y.sum().backward()
    np.testing.assert_allclose(x.grad, arrays["dx_eval_f64"], rtol=1e-9, atol=1e-12)
    norms = dict(zip(arrays["gradnorm_keys"].tolist(), arrays["gradnorm_eval_f64"], strict=True))
    assert {name: float(p.grad.norm()) for name, p in network.named_parameters()} == pytest.approx(norms, rel=1e-9)
    assert bool((y >= x).all())  # every branch ends in a ReLU


@pytest.mark.parametrize(
    ("name", "bodies", "count"),
    [
        ("resnet", 2, 453_000),
        ("resnet", 1, 114_000),
        ("resnet-signed", 2, 453_000),
        ("unet", 2, 31_037_763),
        ("unet", 1, 31_037_763),
    ],
)
def test_sizes_are_the_published_ones(name, bodies, count):
    network = create(name, layout="ntu", num_bodies=bodies)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_unet_has_the_published_names_and_widths():
    network = create("unet", layout="ntu", num_bodies=2)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["inc.double_conv.0.weight"] == (64, 3, 3, 3)
    assert shapes["down4.maxpool_conv.1.double_conv.3.weight"] == (1024, 1024, 3, 3)
    assert shapes["up1.up.weight"] == (1024, 512, 2, 2)
    assert shapes["up4.conv.double_conv.4.running_var"] == (64,)
    assert shapes["outc.conv.bias"] == (3,)
    again = create("unet", layout="ntu", num_bodies=1)
    again.load_reference_state(network.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_reference_state({"outc.conv.bias": torch.zeros(3)})


@pytest.mark.parametrize("name", ["resnet-signed", "unet-residual", "transformer"])
def test_own_variants_start_as_the_identity_and_have_no_published_weights(name):
    network = create(name, layout="ntu", num_bodies=1, base_width=8).eval()
    clips = noise_clips(2, 32)
    assert torch.equal(network(clips), clips)
    with pytest.raises(LookupError, match="not published"):
        network.load_reference_state({})


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("layout", "bodies"), [("ntu", 2), ("utd-mhad", 1)])
def test_every_parameter_takes_part(name, layout, bodies):
    network = create(name, layout=layout, num_bodies=bodies, base_width=8)
    for parameter in network.parameters():  # away from the identity at which some start
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    clips = noise_clips(2, 32, bodies, layout)
    out = network(clips)
    assert out.shape == clips.shape
    (out - clips).square().sum().backward()
    dead = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


@pytest.mark.parametrize("name", NETWORKS)
def test_a_clip_does_not_depend_on_the_longest_one_beside_it(name):
    network = create(name, layout="ntu", num_bodies=1, base_width=4).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    clips = noise_clips(2, 70)
    clips[0, :, 20:] = 0
    both = apply_network(network, clips, torch.tensor([20, 70]))
    alone = apply_network(network, clips[:1, :, :20], torch.tensor([20]))
    assert torch.allclose(both[0, :, :20], alone[0], atol=1e-4)


def test_frames_are_vectors_with_coordinates_slowest_and_bodies_fastest():
    clips = noise_clips(2, 5, bodies=2)
    frames = per_frame(clips)
    assert torch.equal(frames[1, 3], clips[1, :, 3].reshape(-1))
    assert torch.equal(from_frames(frames, clips.shape), clips)


def test_clips_are_repeated_from_their_first_frame():
    clips = noise_clips(2, 6)
    out = repeat_cyclically(clips, torch.tensor([4, 6]), 8)
    assert torch.equal(out[0, :, 4:], clips[0, :, :4])
    assert torch.equal(out[1, :, 6:], clips[1, :, :2])


def test_positions_are_sines_and_cosines_by_turns():
    found = sinusoids(5, 4, torch.device("cpu"))
    assert found.shape == (5, 4)
    np.testing.assert_allclose(found[3], [np.sin(3), np.cos(3), np.sin(0.03), np.cos(0.03)], rtol=1e-5)


def test_unknown_networks_and_counts_are_refused():
    with pytest.raises(LookupError, match="did you mean resnet"):
        create("resnett", layout="ntu", num_bodies=1)
    with pytest.raises(ValueError, match="at least 1"):
        create("resnet", layout="ntu", num_bodies=0)


@pytest.mark.parametrize("joints", [25, 20])
def test_networks_of_retargeting_fit_together(joints):
    windows = torch.randn(3, FRAMES, joints, 3)
    encoder, decoder = Encoder(32, 16), Decoder(32, joints)
    code = encoder(windows)
    assert code.shape == (3, 32, 16)
    assert decoder(code, code).shape == windows.shape
    assert CodeHead(32, 7).eval()(code).shape == (3, 7)
    assert Critic(joints)(windows).shape == (3,)
