"""Where a training stands, in one file without code: an interrupted training goes on from it to the same weights, bit by bit."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.files import atomic_file

EVERY = 60.0  # seconds between two writings
_earlier: ContextVar[list[float] | None] = ContextVar("earlier", default=None)


@contextmanager
def counting() -> Iterator[list[float]]:
    """Yields a list that gets the seconds of earlier attempts from which trainings go on meanwhile."""
    found: list[float] = []
    token = _earlier.set(found)
    try:
        yield found
    finally:
        _earlier.reset(token)


class Checkpoint:
    """All that one training rests on, and the file that holds it.

    Args:
        path: The file; None keeps nothing, and finds nothing.
        of: Digest of all that determines the training; a checkpoint of another one is not taken.
        networks: By names of your choice; their weights and buffers.
        optimisers: By names; their momenta and learning rates.
        generators: By names.
        dropout: Whether torch's global generators, which draw dropout, are put back as well.
    """

    def __init__(
        self,
        path: Path | None,
        of: str,
        *,
        networks: Mapping[str, nn.Module],
        optimisers: Mapping[str, torch.optim.Optimizer],
        generators: Mapping[str, torch.Generator],
        dropout: bool = True,
    ):
        self.path, self.of = path, of
        self._networks, self._optimisers, self._generators = networks, optimisers, generators
        self._device = next((p.device for network in networks.values() for p in network.parameters()), torch.device("cpu"))
        self._dropout = dropout
        self._begun = self._saved = time.monotonic()
        self._spent = 0.0  # by earlier attempts
        self._failed = False

    def save(self, chosen: Mapping[str, Tensor], numbers: Mapping[str, Any], *, last: bool = False) -> str:
        """Writes where the training stands, if the last writing is a while ago; a lack of room for it ends no training.

        Args:
            chosen: Weights that were chosen so far.
            numbers: All other state, as JSON values.
            last: The training is over; if it took long, it need not be done again, should what follows it be interrupted.

        Returns:
            What people should know: "" unless the last try to write failed.
        """
        if self.path and time.monotonic() - (self._begun if last else self._saved) > EVERY:
            self._failed = not self._write(chosen, numbers)
            self._saved = time.monotonic()
        return ", its checkpoint could not be written" if self._failed else ""

    def _write(self, chosen: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> bool:
        tensors = {f"chosen.{name}": value for name, value in chosen.items()}
        for which, network in self._networks.items():
            tensors |= {f"network {which}.{name}": value for name, value in network.state_dict().items()}
        rates = {}
        for which, optimiser in self._optimisers.items():
            for i, state in optimiser.state_dict()["state"].items():
                told = {name: torch.as_tensor(value) for name, value in state.items() if value is not None}
                tensors |= {f"optimiser {which}.{i}.{name}": value for name, value in told.items()}
            rates[which] = [group["lr"] for group in optimiser.param_groups]
        tensors |= {f"generator.{which}": generator.get_state() for which, generator in self._generators.items()}
        tensors["global"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["global_cuda"] = torch.cuda.get_rng_state(self._device)
        whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        spent = self._spent + time.monotonic() - self._begun
        about = {"of": self.of, "numbers": json.dumps(numbers), "rates": json.dumps(rates), "seconds": f"{spent:.3f}"}
        try:
            with atomic_file(self.path) as temporary:
                save_file(whole, temporary, metadata=about)
        except (OSError, SafetensorError):  # the disk is full, which each of them says in its own way
            return False
        return True

    def remove(self) -> None:
        """Forgets what was saved: there is no going on from there."""
        if self.path:
            self.path.unlink(missing_ok=True)

    def restore(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Puts everything back as it was saved; None, with everything left as it is, if nothing fitting was.

        Returns:
            The weights that were chosen so far, and the other state.
        """
        if not self.path:
            return None
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

        weights = {which: part(f"network {which}.") for which in self._networks}
        for which, network in self._networks.items():
            if _shapes(weights[which]) != _shapes(network.state_dict()):
                return None  # it was changed since
        rates = json.loads(about["rates"])
        if {which: len(of) for which, of in rates.items()} != {n: len(o.param_groups) for n, o in self._optimisers.items()}:
            return None
        for which, network in self._networks.items():
            network.load_state_dict(weights[which])
        for which, optimiser in self._optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in part(f"optimiser {which}.").items():
                number, _, of = name.partition(".")
                state.setdefault(int(number), {})[of] = value
            groups = optimiser.state_dict()["param_groups"]
            groups = [{**group, "lr": rate} for group, rate in zip(groups, rates[which], strict=True)]
            optimiser.load_state_dict({"state": state, "param_groups": groups})
        for which, generator in self._generators.items():
            generator.set_state(tensors[f"generator.{which}"])
        if self._dropout:
            torch.set_rng_state(tensors["global"])
        if self._dropout and self._device.type == "cuda":
            torch.cuda.set_rng_state(tensors["global_cuda"], self._device)
        self._spent = float(about["seconds"])
        if (earlier := _earlier.get()) is not None:
            earlier.append(self._spent)
        return {name: value.to(self._device) for name, value in part("chosen.").items()}, json.loads(about["numbers"])


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}
