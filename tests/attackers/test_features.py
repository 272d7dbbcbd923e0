import numpy as np
import torch

from attackers.features import bone_features, bone_lengths
from bench.skeleton import get_layout

LAYOUT = get_layout("kinect-v1")


def test_bone_lengths_by_hand():
    clips = torch.zeros(1, 3, 2, 20, 1)
    clips[0, 1, :, 3, 0] = 1.5  # head one and a half metres above everything else
    lengths = bone_lengths(clips, LAYOUT)[0]
    bone = LAYOUT.bones.index((3, 2))
    assert lengths[:, bone].tolist() == [1.5, 1.5]
    assert lengths.sum() == 3


def test_features_do_not_change_under_rotation_and_translation_or_with_padding():
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn((4, 3, 9, 20, 1), generator=generator)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    moved = torch.einsum("ij,njtvm->nitvm", torch.tensor(turn, dtype=torch.float32), clips) + 2.5
    features = bone_features(clips, LAYOUT)
    assert torch.allclose(bone_features(moved, LAYOUT), features, atol=1e-4)
    padded = torch.cat([clips, torch.zeros(4, 3, 5, 20, 1)], dim=2)
    assert torch.allclose(bone_features(padded, LAYOUT), features, atol=1e-5)


def test_features_of_a_clip_without_a_body_are_finite():
    features = bone_features(torch.zeros(2, 3, 4, 20, 1), LAYOUT)
    assert torch.isfinite(features).all()
