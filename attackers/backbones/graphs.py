"""Adjacency matrices of a skeleton's graph, as graph networks use them."""

import numpy as np
import torch
from torch import Tensor

from bench.skeleton import Layout


def spatial_partition(layout: Layout) -> Tensor:
    """(3, V, V): itself, edges inwards, edges outwards; entry (i, j) is what joint j takes from joint i.

    Columns sum to 1 or, where a joint has no such edge, to 0 (Shi et al., CVPR 2019).
    """
    joints = layout.num_joints
    itself, inwards = torch.eye(joints), torch.zeros(joints, joints)
    for child, parent in layout.edges:
        inwards[parent, child] = 1
    return torch.stack([itself, _columns_to_one(inwards), _columns_to_one(inwards.T)])


def undirected(layout: Layout) -> Tensor:
    """(V, V): 1 where two joints share an edge."""
    adjacency = torch.zeros(layout.num_joints, layout.num_joints)
    for child, parent in layout.edges:
        adjacency[child, parent] = adjacency[parent, child] = 1
    return adjacency


def distance_partition(layout: Layout) -> Tensor:
    """(3, V, V): neighbours as far from the layout's centre as the joint itself, nearer ones, farther ones.

    The spatial configuration partitioning of Yan et al. (AAAI 2018, eq. 8), columns of the whole graph scaled to sum to 1.
    """
    whole = _columns_to_one(undirected(layout) + torch.eye(layout.num_joints))
    far = _steps(undirected(layout))[layout.centre]
    rows, columns = far[:, None], far[None]
    return torch.stack([whole * (rows == columns), whole * (rows < columns), whole * (rows > columns)])


def disentangled(layout: Layout, scales: int, window: int = 1) -> Tensor:
    """(scales, window * V, window * V): joints exactly k edges apart, and each joint itself, for k = 0 .. scales - 1.

    Symmetrically normalised by the row sums (Liu et al., CVPR 2020, eq. 4 and 5). With a window, every frame's joints see the
    joints of all its frames.
    """
    adjacency = undirected(layout)
    if window > 1:
        adjacency = (adjacency + torch.eye(layout.num_joints)).repeat(window, window)
    size = len(adjacency)
    steps = _steps(adjacency)
    out = []
    for k in range(scales):
        exact = (steps == k).float()
        exact = exact + torch.eye(size) if k else exact
        # Rounded as in the published networks: numpy's power in float32, which is off by a digit here and there.
        root = torch.from_numpy(np.power(exact.sum(1).numpy(), np.float32(-0.5)))
        out.append(root[:, None] * exact * root[None])
    return torch.stack(out).float()


def _steps(adjacency: Tensor) -> Tensor:
    """(S, S): fewest steps between two nodes; infinite where there is no way."""
    found = torch.full_like(adjacency, torch.inf)
    reached, onwards = torch.eye(len(adjacency)), ((adjacency + torch.eye(len(adjacency))) > 0).float()
    for steps in range(len(adjacency)):
        found[(reached > 0) & found.isinf()] = steps
        reached = (reached @ onwards).clamp_max(1)
    return found


def _columns_to_one(matrix: Tensor) -> Tensor:
    total = matrix.sum(0, keepdim=True)
    return matrix / torch.where(total > 0, total, 1.0)
