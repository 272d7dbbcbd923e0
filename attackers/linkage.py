"""LAN, the linkage attack of Carr, Lu and Xu (CIKM 2023): a network sees two clips and says whether one person made both.

How the paper measures is mended by our own design, where pairs are drawn and measured (`bench.pairs`, `bench.metrics`): no pair
within one performance, set-up-matched negatives, three regimes, and ranks instead of an F1 that "always the same" wins.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from bench import classifiers
from bench.attacker import Linker
from bench.checkpoint import Checkpoint
from bench.data.clips import ClipSet
from bench.execution import Pieces, precision_of
from bench.files import digest
from bench.metrics.verification import roc_auc
from bench.presets import Preset, TrainingConfig
from bench.protocols import Part
from bench.specs import param
from bench.stages import CHECKPOINT
from bench.training import Progress, descend, make_optimiser, precision

_WEIGHTS = "pair.safetensors"
_BATCH = 128  # pairs, where nothing is learnt


class PairNetwork(nn.Module):
    """Two encoders, which start as one and the same, and a head on what both say.

    Args:
        encoder: A trained backbone with `embed`; its last layer is not used.
        dimensions: D, length of an embedding.
    """

    def __init__(self, encoder: nn.Module, dimensions: int):
        super().__init__()
        self.encoders = nn.ModuleList([encoder, copy.deepcopy(encoder)])
        self.head = nn.Sequential(
            *(nn.Linear(2 * dimensions, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 1)),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two batches of clips (N, 3, T, V, M) to the logits (N,) that one person made both."""
        seen = [encoder.embed(clips).float() for encoder, clips in zip(self.encoders, (first, second), strict=True)]
        return self.head(torch.cat(seen, dim=1)).squeeze(1)


@dataclass(frozen=True)
class LinkageNetwork(Linker):
    """Links clips by LAN (Carr et al., CIKM 2023): two SGN encoders learnt on identities, a head on both, trained on pairs."""

    backbone: str = param("sgn", "network that reads the clips")
    lr: float = param(1e-3, "learning rate of Adam on pairs; a third after three epochs that bring nothing", minimum=0.0)
    epochs: int = param(20, "most passes over the training pairs; the preset's limit of steps holds as well", minimum=1)
    batch: int = param(32, "pairs of a batch", minimum=2)

    learns_representation: ClassVar[bool] = True

    def config(self, preset: Preset) -> TrainingConfig:
        """The budget of the encoders."""
        return classifiers.config_for(self.backbone, preset.attack)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return asdict(self.config(preset))

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        config = self.config(preset)
        told = classifiers.fit_classifier(self.backbone, clips, part, config, folder, seed=seed, progress=progress)
        encoder = classifiers.load(self.backbone, clips, part, config, folder)
        network = self._network(encoder, clips, seed)
        return told | self._learn_pairs(network, network.parameters(), clips, part, config, folder, seed, self.lr, progress)

    def refit(
        self,
        clips: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        start: Path,
        seed: int,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        network = self._load(clips, part, preset, start)
        head = network.head.parameters()
        return self._learn_pairs(network, head, clips, part, self.config(preset), folder, seed, self.lr, progress)

    def fine_tune(
        self,
        clips: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        start: Path,
        seed: int,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        network, config = self._load(clips, part, preset, start), self.config(preset).fine_tuning()
        return self._learn_pairs(network, network.parameters(), clips, part, config, folder, seed, self.lr / 10, progress)

    def pair_scores(
        self, enrolled: ClipSet, probes: ClipSet, pairs: np.ndarray, part: Part, preset: Preset, folder: Path
    ) -> np.ndarray:
        return _similarity(self._load(probes, part, preset, folder), enrolled, probes, pairs, self.config(preset))

    def _network(self, encoder: nn.Module, clips: ClipSet, seed: int) -> PairNetwork:
        with classifiers.seeded(seed, clips.device):
            return PairNetwork(encoder, encoder.classifier.in_features).to(clips.device)

    def _load(self, clips: ClipSet, part: Part, preset: Preset, folder: Path) -> PairNetwork:
        encoder = classifiers.build(self.backbone, clips, len(part.classes), self.config(preset), seed=0)
        network = self._network(encoder, clips, seed=0)
        network.load_state_dict(load_file(folder / _WEIGHTS, device=str(clips.device)))
        return network.eval()

    def _learn_pairs(
        self,
        network: PairNetwork,
        parameters: Any,
        clips: ClipSet,
        part: Part,
        config: TrainingConfig,
        folder: Path,
        seed: int,
        lr: float,
        progress: Progress | None,
    ) -> dict[str, Any]:
        """Trains on the training pairs and writes the network that did best on the validation pairs."""
        train, check = part.training_pairs, part.validation_pairs
        chosen = [p for p in parameters if p.requires_grad]
        optimiser = make_optimiser("adam", [{"params": chosen}], lr)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=1 / 3, patience=2)
        generator = torch.Generator(clips.device).manual_seed(seed)
        first, second = torch.from_numpy(train.clips.T).to(clips.device)
        mated = torch.from_numpy(train.mated).to(clips.device, torch.float32)
        steps = max(len(train) // self.batch, 1)
        epochs = self.epochs
        if config.most_steps:
            steps = min(steps, max(config.most_steps // 5, 1))  # several chances to choose from
            epochs = min(epochs, max(config.most_steps // steps, 1))
        curve: list[float] = []
        best: dict[str, Tensor] = {}
        pieces = Pieces(self.batch, least=2)  # the head normalises over pairs
        with classifiers.seeded(seed, clips.device):  # dropout
            place = [clips.device.type, precision_of(clips.device, config.precision)]
            saved = Checkpoint(
                folder / f"pairs{CHECKPOINT}",
                digest([asdict(self), asdict(config), epochs, steps, lr, seed, place, clips.sketch(), train.clips.tolist()]),
                networks={"pairs": network},
                optimisers={"pairs": optimiser},
                generators={"clips": generator},
            )
            unsaved = ""
            if found := saved.restore():
                best, curve, pieces.size = found[0], found[1]["curve"], found[1]["micro_batch"]
                schedule.load_state_dict(found[1]["schedule"])
            for epoch in range(len(curve), epochs):
                network.train()
                order = torch.randperm(len(train), generator=generator, device=clips.device)
                for step in range(steps):
                    at = order[step * self.batch : (step + 1) * self.batch]
                    both = [clips.windows(side[at], config.frames, config.sampling, generator) for side in (first, second)]
                    descend(optimiser, partial(_pair_loss, network, both, mated[at], config), len(at), pieces, chosen, 5.0)
                network.eval()
                scores = _similarity(network, clips, clips, check.clips, config)
                curve.append(roc_auc(scores[check.mated], scores[~check.mated]))
                schedule.step(curve[-1])
                if curve[-1] >= max(curve):
                    best = {name: value.detach().clone() for name, value in network.state_dict().items()}
                if progress:
                    progress(epoch + 1, epochs, f"validation AUC {curve[-1]:.3f}{unsaved}")
                numbers = {"curve": curve, "schedule": schedule.state_dict(), "micro_batch": pieces.size}
                unsaved = saved.save(best, numbers, last=epoch + 1 == epochs)
        save_file({name: value.contiguous() for name, value in best.items()}, folder / _WEIGHTS)
        return {"pair_validation_auc": curve, **({"micro_batch": pieces.size} if pieces.size < self.batch else {})}


def _pair_loss(
    network: PairNetwork, both: Sequence[Tensor], mated: Tensor, config: TrainingConfig, piece: slice
) -> tuple[Tensor, dict[str, Tensor]]:
    with precision(mated.device, config):
        said = network(*(side[piece] for side in both))
        return functional.binary_cross_entropy_with_logits(said, mated[piece]), {}


@torch.no_grad()
def _similarity(
    network: PairNetwork, enrolled: ClipSet, probes: ClipSet, pairs: np.ndarray, config: TrainingConfig
) -> np.ndarray:
    """Logits (P,) of pairs (P, 2): the mean of both orders, since which clip came first says nothing."""

    def seen(encoder: nn.Module, clips: ClipSet, asked: np.ndarray) -> Tensor:
        once, places = np.unique(asked, return_inverse=True)
        return classifiers.embeddings(encoder, clips, once, config)[torch.from_numpy(places).to(clips.device)]

    one, two = network.encoders
    out = []
    sides = (enrolled, pairs[:, 0]), (probes, pairs[:, 1])
    for first, second in (sides, sides[::-1]):
        both = torch.cat([seen(one, *first), seen(two, *second)], dim=1)
        out.append(torch.cat([network.head(part) for part in both.split(_BATCH)]).squeeze(1))
    # Rounded: the last digits depend on which clips shared a batch, and so would tell alike clips from others.
    return torch.stack(out).mean(0).cpu().numpy().round(5)
