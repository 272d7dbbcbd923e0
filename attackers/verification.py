"""Open-set verification: do two clips show the same person, one never seen in training? With ArcFace (Deng et al., CVPR 2019)."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from bench import classifiers
from bench.attacker import Linker
from bench.data.clips import ClipSet
from bench.distributed import Group, together, wanted
from bench.presets import Preset, TrainingConfig
from bench.protocols import Part
from bench.specs import param
from bench.stages import CHECKPOINT
from bench.training import Progress, parameter_groups, predict, train_classifier

_WEIGHTS = "embedding.safetensors"


class EmbeddingNetwork(nn.Module):
    """A backbone whose last layer gives an embedding, and one direction per training person to compare it with.

    Args:
        backbone: Maps (N, 3, T, V, M) to (N, D).
        dimensions: D.
        people: Number of training people, K.
        scale: Factor on the cosines, s of ArcFace.
    """

    def __init__(self, backbone: nn.Module, dimensions: int, people: int, scale: float):
        super().__init__()
        self.backbone = backbone
        self.directions = nn.Parameter(torch.randn(people, dimensions))
        self.scale = scale

    def embed(self, clips: Tensor) -> Tensor:
        """(N, 3, T, V, M) to (N, D) of length 1."""
        return functional.normalize(self.backbone(clips).float(), dim=1)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, V, M) to scaled cosines (N, K)."""
        return self.scale * self.embed(clips) @ functional.normalize(self.directions, dim=1).T

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        return [*parameter_groups(self.backbone, weight_decay), {"params": [self.directions], "weight_decay": weight_decay}]


class AdditiveAngularMargin:
    """ArcFace (Deng et al., CVPR 2019, eq. 3): cross-entropy in which the true person's angle is made larger by a margin.

    Args:
        scale: s, the factor that the logits carry.
        margin: m, radians.
    """

    def __init__(self, scale: float, margin: float):
        self.scale = scale
        self.margin = margin

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        cosine = (logits.float() / self.scale).clamp(-1 + 1e-6, 1 - 1e-6)  # where arccos has a slope
        own = functional.one_hot(labels, logits.shape[1]).bool()
        # Beyond pi the cosine would rise again: there the angle stays at pi.
        harder = torch.cos((cosine.arccos() + self.margin).clamp_max(torch.pi))
        return functional.cross_entropy(self.scale * torch.where(own, harder, cosine), labels)


@dataclass(frozen=True)
class Verifier(Linker):
    """Compares embeddings of two clips by their cosine; a backbone learns them on other people with ArcFace."""

    backbone: str = param("shift-gcn", "network that reads the clips")
    dimensions: int = param(256, "length of an embedding", minimum=1)
    scale: float = param(30.0, "factor on the cosines in training (ArcFace's s)", minimum=1.0)
    margin: float = param(0.3, "margin on the true person's angle in training (ArcFace's m)", unit="rad", minimum=0.0)

    learns_representation: ClassVar[bool] = True

    def config(self, preset: Preset) -> TrainingConfig:
        """The budget as it holds for this backbone."""
        return classifiers.config_for(self.backbone, preset.attack)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return asdict(self.config(preset))

    def fit(
        self,
        clips: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        seed: int,
        start: Path | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        config = self.config(preset)
        if (count := wanted(len(part.train), config.batch)) > 1:
            how = {"part": part, "preset": preset, "folder": folder, "seed": seed, "start": start}
            return together(count, self.fit, clips, progress=progress, **how)
        network = self._network(clips, part, config, seed)
        if start:
            network.load_state_dict(load_file(start / _WEIGHTS, device=str(clips.device)))
            config = config.fine_tuning()
        labels = torch.from_numpy(part.labels).to(clips.device)
        loss = AdditiveAngularMargin(self.scale, self.margin)
        with classifiers.seeded(seed, clips.device):
            history = train_classifier(
                network,
                clips,
                labels,
                part.train,
                part.validation,
                config,
                seed=seed,
                loss=loss,
                progress=progress,
                checkpoint=folder / f"training{CHECKPOINT}",
            )
        if Group.current().rank == 0:
            save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / _WEIGHTS)
        return {"parameters": sum(p.numel() for p in network.parameters()), "curves": history.describe()}

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
        return self.fit(clips, part, preset, folder, seed=seed, start=start, progress=progress)

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
        """Nothing stands on top of the embedding: it is taken over, and only the enrolled clips are anonymized."""
        shutil.copyfile(start / _WEIGHTS, folder / _WEIGHTS)
        return {}

    def pair_scores(
        self, enrolled: ClipSet, probes: ClipSet, pairs: np.ndarray, part: Part, preset: Preset, folder: Path
    ) -> np.ndarray:
        config = self.config(preset)
        network = self._network(probes, part, config, seed=0)
        network.load_state_dict(load_file(folder / _WEIGHTS, device=str(probes.device)))
        network.eval()
        sides = []
        for clips, asked in zip((enrolled, probes), pairs.T, strict=True):
            once, places = np.unique(asked, return_inverse=True)
            sides.append(predict(network.embed, clips, once, config)[torch.from_numpy(places).to(clips.device)])
        # Rounded: the last digits depend on which clips shared a batch, and so would tell alike clips from others.
        return (sides[0] * sides[1]).sum(dim=1).cpu().numpy().round(5)

    def _network(self, clips: ClipSet, part: Part, config: TrainingConfig, seed: int) -> EmbeddingNetwork:
        backbone = classifiers.build(self.backbone, clips, self.dimensions, config, seed)
        with classifiers.seeded(seed, clips.device):
            return EmbeddingNetwork(backbone, self.dimensions, len(part.classes), self.scale).to(clips.device)


@dataclass(frozen=True)
class ShiftGCNVerifier(Verifier):
    """Tells whether two clips show the same unseen person by embeddings of a Shift-GCN, learnt on other people with ArcFace."""


@dataclass(frozen=True)
class MSG3DVerifier(Verifier):
    """Tells whether two clips show the same unseen person by embeddings of an MS-G3D, learnt on other people with ArcFace."""

    backbone: str = param("ms-g3d", "network that reads the clips")


@dataclass(frozen=True)
class AGCNVerifier(Verifier):
    """Tells whether two clips show the same unseen person by embeddings of an AGCN, learnt on other people with ArcFace."""

    backbone: str = param("2s-agcn", "network that reads the clips")


@dataclass(frozen=True)
class SGNVerifier(Verifier):
    """Tells whether two clips show the same unseen person by embeddings of an SGN, learnt on other people with ArcFace."""

    backbone: str = param("sgn", "network that reads the clips")
