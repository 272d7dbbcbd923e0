"""Networks that anonymize, by name."""

import difflib

from anonymizers.networks.base import AnonymizerNetwork
from anonymizers.networks.resnet import ResNet, SignedResNet
from anonymizers.networks.transformer import Transformer
from anonymizers.networks.unet import ResidualUNet, UNet
from bench.skeleton import Layout, get_layout

__all__ = ["NETWORKS", "AnonymizerNetwork", "create"]

NETWORKS: dict[str, type[AnonymizerNetwork]] = {
    "resnet": ResNet,
    "resnet-signed": SignedResNet,
    "unet": UNet,
    "unet-residual": ResidualUNet,
    "transformer": Transformer,
}


def create(name: str, *, layout: str | Layout, num_bodies: int, base_width: int = 64) -> AnonymizerNetwork:
    """A freshly initialised network.

    Args:
        name: One of `NETWORKS`.
        layout: Layout of the joints, or its name.
        num_bodies: Bodies of every clip.
        base_width: Width of the narrowest layer; 64 is the published network.

    Raises:
        LookupError: if there is no such network or layout.
        ValueError: if a number is below 1.
    """
    if name not in NETWORKS:
        close = difflib.get_close_matches(name, NETWORKS)
        raise LookupError(
            f"no anonymizer network named {name!r}; "
            + (f"did you mean {close[0]}?" if close else f"there are {', '.join(NETWORKS)}")
        )
    if num_bodies < 1 or base_width < 1:
        raise ValueError(f"num_bodies and base_width must be at least 1, got {num_bodies} and {base_width}")
    layout = get_layout(layout) if isinstance(layout, str) else layout
    return NETWORKS[name](layout, num_bodies, base_width)
