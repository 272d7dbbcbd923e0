"""A trained network as named tensors, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from anonymizers.networks import create
from anonymizers.networks.base import AnonymizerNetwork, apply_network
from bench.anonymizer import ClipBatch
from bench.files import UserError

_PREFIX = "network."


def to_state(name: str, network: AnonymizerNetwork, num_bodies: int, least: int) -> dict[str, Tensor]:
    """Everything that `run_network` needs.

    Args:
        name: Name of the network.
        network: The network.
        num_bodies: Bodies that it was made for.
        least: Frames up to which every clip is repeated at least, before a network with temporal context reads it.
    """
    return {
        "name": torch.tensor(list(name.encode()), dtype=torch.uint8),
        "arguments": torch.tensor([num_bodies, network.base_width, least]),
        **{_PREFIX + key: value.detach().clone() for key, value in network.state_dict().items()},
    }


def run_network(state: Mapping[str, Tensor], batch: ClipBatch) -> Tensor:
    """What the network makes of a batch of whole clips, in eval mode; absent bodies stay absent.

    Raises:
        UserError: if the clips have more bodies than the network was made for.
    """
    num_bodies, base_width, least = state["arguments"].tolist()
    missing = num_bodies - batch.clips.shape[4]
    if missing < 0:
        raise UserError(f"this anonymizer was fitted to clips of {num_bodies} bodies, these have {batch.clips.shape[4]}")
    name = bytes(state["name"].tolist()).decode()
    with torch.device("meta"):  # neither drawn nor copied: it takes the tensors of the state themselves
        network = create(name, layout=batch.layout, num_bodies=num_bodies, base_width=base_width)
    own = {key.removeprefix(_PREFIX): value.to(batch.clips.device) for key, value in state.items() if key.startswith(_PREFIX)}
    network.load_state_dict(own, assign=True)
    network.eval()
    clips = torch.nn.functional.pad(batch.clips, (0, missing))
    return apply_network(network, clips, batch.lengths, least)[..., : batch.clips.shape[4]] * batch.present
