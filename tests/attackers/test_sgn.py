"""SGN against its equations (Zhang et al., CVPR 2020)."""

import torch
from torch.nn import functional

from attackers.backbones import create


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
    adjacency = model.adjacency(torch.randn(2, 20, 25, 32))
    assert adjacency.shape == (2, 20, 25, 25)
    assert torch.allclose(adjacency.sum(3), torch.ones(2, 20, 25))


@torch.no_grad()
def test_logits_are_those_of_the_equations_written_out():
    model = make()
    for convolution in model.graph:
        torch.nn.init.normal_(convolution.neighbours.weight, 0, 0.1)
    clips = torch.randn(4, 3, 20, 25, 1)
    for _ in range(3):
        model(clips)
    model.eval()

    def norm(layer, x):
        scale = layer.weight / (layer.running_var + 1e-5).sqrt()
        return (x - layer.running_mean) * scale + layer.bias

    def mlp(layers, x):
        return functional.linear(
            functional.linear(x, layers[0].weight, layers[0].bias).relu(), layers[2].weight, layers[2].bias
        ).relu()

    for clip, logits in zip(clips, model(clips), strict=True):
        position = clip[..., 0].permute(1, 2, 0)  # (T, V, C)
        velocity = torch.zeros_like(position)
        velocity[1:] = position[1:] - position[:-1]
        x = mlp(model.position, norm(model.position_norm, position.reshape(20, 75)).view(20, 25, 3))
        x = x + mlp(model.velocity, norm(model.velocity_norm, velocity.reshape(20, 75)).view(20, 25, 3))
        x = torch.cat([x, mlp(model.joint, torch.eye(25)).repeat(20, 1, 1)], dim=2)
        graph = [torch.softmax(model.theta(frame) @ model.phi(frame).T, dim=1) for frame in x]
        for c in model.graph:
            x = torch.stack(
                [
                    norm(c.norm, g @ frame @ c.neighbours.weight.T + c.itself(frame)).relu()
                    for g, frame in zip(graph, x, strict=True)
                ]
            )
        x = (x + mlp(model.frame, torch.eye(20))[:, None]).max(dim=1).values  # (T, C)
        padded = functional.pad(x, (0, 0, 1, 1))
        x = sum(padded[k : k + 20] @ model.over_time.weight[:, :, k].T for k in range(3)) + model.over_time.bias
        x = norm(model.over_time_norm, x).relu()
        x = norm(model.widen_norm, model.widen(x)).relu().max(dim=0).values
        assert torch.allclose(model.classifier(x), logits, atol=1e-5)
