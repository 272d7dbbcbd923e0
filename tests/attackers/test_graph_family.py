"""The family of 2s-AGCN: graphs by hand, counts from the equations, what sets AAGCN and ST-GCN apart."""

from itertools import pairwise

import pytest
import torch

from attackers.backbones import create
from attackers.backbones.graphs import disentangled, distance_partition, spatial_partition
from bench.skeleton import Layout

# 0 - 1 - 2, and 3 and 4 on 1; the centre is 1.
STAR = Layout(
    name="star",
    joints=("hip", "spine", "head", "left shoulder", "right shoulder"),
    parents=(0, 0, 1, 1, 1),
    centre=1,
    spine=(0, 1),
    shoulders=(3, 4),
    parts={"body": (0, 1, 2, 3, 4)},
)


def test_spatial_partition_by_hand():
    itself, inwards, outwards = spatial_partition(STAR)
    assert torch.equal(itself, torch.eye(5))
    # A joint takes inwards from its parent: all but the root, which has none.
    assert inwards.nonzero().tolist() == [[0, 1], [1, 2], [1, 3], [1, 4]]
    assert inwards.sum(0).tolist() == [0, 1, 1, 1, 1]
    # Outwards the spine takes a third from each of its three children.
    assert outwards[:, 1].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])
    assert outwards[:, 0].tolist() == [0, 1, 0, 0, 0]


def test_distance_partition_by_hand():
    same, nearer, farther = distance_partition(STAR)
    assert torch.allclose((same + nearer + farther).sum(0), torch.ones(5))
    assert same.nonzero().tolist() == [[j, j] for j in range(5)]
    assert nearer.nonzero().tolist() == [[1, 0], [1, 2], [1, 3], [1, 4]]
    assert farther[:, 1].tolist() == pytest.approx([0.2, 0, 0.2, 0.2, 0.2])


def test_disentangled_scales_hold_the_joints_that_many_edges_away():
    scales = disentangled(STAR, 4)
    assert torch.equal(scales[0], torch.eye(5))
    assert (scales[1][0] > 0).tolist() == [True, True, False, False, False]
    assert (scales[2][0] > 0).tolist() == [True, False, True, True, True]
    assert torch.equal(scales[3], torch.eye(5))  # nothing is three edges away
    assert scales[1][0, 1] == pytest.approx(1 / (2 * 5) ** 0.5)  # the hip has two entries, the spine five
    windows = disentangled(STAR, 2, window=3)
    assert windows.shape == (2, 15, 15)
    assert (windows[1][0].view(3, 5) > 0).tolist() == [[True, True, False, False, False]] * 3


def test_aagcn_has_the_published_number_of_parameters():
    model = create("aagcn", layout="ntu", num_classes=60, num_bodies=2)
    assert sum(p.numel() for p in model.parameters()) == 3_781_668


def test_st_gcn_has_the_parameters_of_its_equations():
    widths = [3, *[64] * 4, *[128] * 3, *[256] * 3]
    count = 150 * 2 + 256 * 60 + 60
    for number, (c, d) in enumerate(pairwise(widths)):
        count += 3 * 25 * 25 + 3 * (c * d + d) + 2 * d + 9 * d * d + d + 2 * d
        if number and c != d:
            count += c * d + d + 2 * d
    model = create("st-gcn", layout="ntu", num_classes=60, num_bodies=2)
    assert sum(p.numel() for p in model.parameters()) == count


def test_aagcn_attention_is_what_its_equations_say():
    torch.manual_seed(0)
    block = create("aagcn", layout=STAR, num_classes=3, num_bodies=1, width=0.125).blocks[1]
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    y = torch.randn(2, 5, 7, 8)  # (N, V, T, C)
    expected = y.clone()
    for n in range(2):
        mean = expected[n].mean(1)  # (V, C)
        padded = torch.nn.functional.pad(mean, (0, 0, 2, 2))
        weight, bias = block.to_joints.weight[0], block.to_joints.bias[0]
        joints = torch.stack([(padded[v : v + 5].T * weight).sum() + bias for v in range(5)]).sigmoid()
        expected[n] = expected[n] + expected[n] * joints[:, None, None]
        padded = torch.nn.functional.pad(expected[n].mean(0), (0, 0, 4, 4))
        weight, bias = block.to_frames.weight[0], block.to_frames.bias[0]
        frames = torch.stack([(padded[t : t + 9].T * weight).sum() + bias for t in range(7)]).sigmoid()
        expected[n] = expected[n] + expected[n] * frames[None, :, None]
        channels = block.excite(block.squeeze(expected[n].mean((0, 1))).relu()).sigmoid()
        expected[n] = expected[n] + expected[n] * channels
    assert torch.allclose(block.attend(y), expected, atol=1e-5)


def test_a_gated_graph_starts_as_the_skeleton():
    torch.manual_seed(0)
    graph = create("aagcn", layout=STAR, num_classes=3, num_bodies=1, width=0.125).blocks[0].graph
    x = torch.randn(2, 5, 4, 3)
    assert torch.allclose(graph(x), spatial_partition(STAR).expand(2, -1, -1, -1))
    torch.nn.init.constant_(graph.alpha, 0.5)
    assert torch.allclose(graph(x), spatial_partition(STAR) + 0.5 * graph.similarity(x).tanh())
