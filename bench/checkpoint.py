"""Where a training stands, in one file without code: an interrupted training goes on from it to the same weights, bit by bit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.files import atomic_file


@dataclass(frozen=True)
class Checkpoint:
    """File of one training.

    Args:
        path: The file.
        of: Digest of all that determines the training; a checkpoint of another one is not taken.
    """

    path: Path
    of: str

    def save(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        generator: torch.Generator,
        best: Mapping[str, Tensor],
        progress: Mapping[str, Any],
    ) -> bool:
        """Writes the state of everything that a training rests on; False if there is no room for it, which ends no training.

        Args:
            model: Its weights.
            optimiser: Its momenta.
            generator: Draws windows and augmentation; torch's global generators, which draw dropout, are saved besides.
            best: Weights that were chosen so far.
            progress: All other numbers, as JSON values.
        """
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for i, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": torch.as_tensor(value) for name, value in state.items() if value is not None}
        tensors |= {"generator": generator.get_state(), "global": torch.get_rng_state()}
        if generator.device.type == "cuda":
            tensors["global_cuda"] = torch.cuda.get_rng_state(generator.device)
        whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        try:
            with atomic_file(self.path) as temporary:
                save_file(whole, temporary, metadata={"of": self.of, "progress": json.dumps(progress)})
        except (OSError, SafetensorError):  # the disk is full, which each of them says in its own way
            return False
        return True

    def remove(self) -> None:
        """Forgets what was saved: there is no going on from there."""
        self.path.unlink(missing_ok=True)

    def restore(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Puts everything back as it was saved; None if nothing fitting was.

        Returns:
            The weights that were chosen so far, and the other numbers.
        """
        try:
            with safe_open(self.path, "pt") as file:
                about = file.metadata()
                if about["of"] != self.of:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError):
            return None

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        weights = part("model.")
        if {name: value.shape for name, value in weights.items()} != {n: value.shape for n, value in model.state_dict().items()}:
            return None  # the network was changed since
        model.load_state_dict(weights)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimiser.").items():
            number, _, of = name.partition(".")
            state.setdefault(int(number), {})[of] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["global"])
        if generator.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["global_cuda"], generator.device)
        return {name: value.to(generator.device) for name, value in part("best.").items()}, json.loads(about["progress"])
