"""The inverter: it restores what can be restored, each clip on its own."""

import numpy as np
import pytest
import torch

from attackers.inversion import RestoringNetwork, TemporalInverter
from bench.data.clips import ClipSet
from bench.presets import get_preset
from bench.protocols import Part
from bench.skeleton import get_layout

LAYOUT = get_layout("kinect-v1")
PRESET = get_preset("quick")


def smooth_clips(count=60, frames=40, seed=0):
    """Bodies of 20 joints that drift slowly."""
    generator = torch.Generator().manual_seed(seed)
    pose = torch.randn((3, 20), generator=torch.Generator().manual_seed(9))
    place = pose * (1 + 0.1 * torch.randn((count, 1, 1, 20), generator=generator))
    drift = torch.randn((count, 1, 3, 20), generator=generator) * torch.linspace(-0.02, 0.02, frames)[None, :, None, None]
    index = torch.arange(count)
    names = np.array([str(i) for i in range(count)], dtype=object)
    return ClipSet((place + drift).flatten(0, 1), index * frames, index * 0 + frames, index * 0 + 1, names, LAYOUT, 2, 30.0)


def part(count=60):
    every = np.arange(count)
    return Part("subject", (0, 1), every % 2, every[:40], every[40:50], every[50:], every % 2, every)


@pytest.fixture
def trained_network():
    torch.manual_seed(0)
    network = RestoringNetwork(20, 16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    return network.eval()


def test_starts_as_the_identity():
    clips = torch.randn(2, 3, 9, 20, 2)
    assert torch.equal(RestoringNetwork(20, 16)(clips), clips)


@torch.no_grad()
def test_a_clip_is_restored_alike_alone_padded_and_beside_others_and_absent_bodies_stay_absent(trained_network):
    clips = torch.randn(3, 3, 30, 20, 2)
    clips[0, :, 12:] = 0
    clips[1, ..., 1] = 0
    together = trained_network(clips)
    assert not torch.allclose(together[0, :, :12], clips[0, :, :12])
    assert torch.allclose(trained_network(clips[:1, :, :12])[0], together[0, :, :12], atol=1e-5)
    assert torch.allclose(trained_network(clips[1:2])[0], together[1], atol=1e-5)
    assert (together[0, :, 12:] == 0).all()
    assert (together[1, ..., 1] == 0).all()


def test_an_offset_is_undone_and_noise_averaged_out(tmp_path):
    raw = smooth_clips()
    noise = 0.05 * torch.randn(raw.rows.shape, generator=torch.Generator().manual_seed(1))
    inverter = TemporalInverter(epochs=30, channels=16, frames=20, batch=4)
    for name, released in (("offset", raw.rows + 0.3), ("noise", raw.rows + noise)):
        folder = tmp_path / name
        folder.mkdir()
        seen = raw.with_rows(released)
        told = inverter.fit(seen, raw, part(), PRESET, folder, seed=0)
        restored = inverter.restore(seen, PRESET, folder)
        test = slice(50 * 40, None)
        before, after = ((rows - raw.rows)[test].norm(dim=1).mean() for rows in (released, restored))
        assert after < 0.75 * before
        assert told["mpjpe_m"] < told["mpjpe_before_m"]
        assert told["bone_length_r2"] > 0.9
    again = tmp_path / "again"
    again.mkdir()
    inverter.fit(seen, raw, part(), PRESET, again, seed=0)
    assert torch.equal(inverter.restore(seen, PRESET, again), restored)
