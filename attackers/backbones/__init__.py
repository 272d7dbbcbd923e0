"""Backbones: networks from skeleton clips to class scores, made by name. Importing this package does not import torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attackers.backbones.base import Backbone
    from bench.skeleton import Layout


def create(
    name: str, *, layout: "Layout | str", num_classes: int, num_bodies: int, width: float = 1.0, in_channels: int = 3
) -> "Backbone":
    """Makes a backbone with freshly drawn weights (from torch's global generator, like every torch module).

    Args:
        name: Registered name, e.g. `shift-gcn`.
        layout: Skeleton layout or the name of one; gives the number of joints and, where used, the graph.
        num_classes: Number of logits, >= 1.
        num_bodies: Bodies per clip, M >= 1.
        width: Factor on the channels of every block; 1.0 is the published network.
        in_channels: Coordinates per joint, C >= 1.

    Returns:
        A module from clips (N, in_channels, T, V, num_bodies) to logits (N, num_classes).

    Raises:
        LookupError: if no backbone or no layout has that name.
        ValueError: if a number is out of range.
    """
    from bench.registry import BACKBONES
    from bench.skeleton import get_layout

    plugin = BACKBONES[name]
    layout = get_layout(layout) if isinstance(layout, str) else layout
    return plugin.load()(layout=layout, num_classes=num_classes, num_bodies=num_bodies, width=width, in_channels=in_channels)
