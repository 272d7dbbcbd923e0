"""A backbone with a head, trained by the common loop, kept as safetensors: the utility model and every neural attacker."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.data.clips import ClipSet
from bench.presets import TrainingConfig
from bench.protocols import Part
from bench.registry import BACKBONES
from bench.training import Progress, predict_logits, train_classifier

_WEIGHTS = "model.safetensors"


def describe(backbone: str) -> dict[str, Any]:
    """What a record states about a backbone; `code` changes when its author says that its results do.

    Raises:
        LookupError: if there is no such backbone.
    """
    plugin = BACKBONES[backbone]
    return {"name": backbone, "provider": plugin.provider, "code": getattr(plugin.load(), "code_version", 1)}


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Initial weights and dropout draw from torch's global state: seeded here, and put back as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def build(backbone: str, clips: ClipSet, num_classes: int, config: TrainingConfig, seed: int) -> nn.Module:
    """A freshly initialised backbone on the clips' device; the initial weights depend on `seed` alone.

    Raises:
        LookupError: if there is no such backbone.
    """
    network = BACKBONES[backbone].load()
    with _seeded(seed, clips.device):
        model = network(layout=clips.layout, num_classes=num_classes, num_bodies=clips.num_bodies, width=config.width)
    if config.published_gradients:
        model.use_published_gradients()
    return model.to(clips.device)


def fit_classifier(
    backbone: str,
    clips: ClipSet,
    part: Part,
    config: TrainingConfig,
    folder: Path,
    *,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains a backbone on `part` and writes its weights into `folder`.

    Returns:
        The curves and the number of parameters, for the record.
    """
    model = build(backbone, clips, len(part.classes), config, seed)
    labels = torch.from_numpy(part.labels).to(clips.device)
    with _seeded(seed, clips.device):
        history = train_classifier(model, clips, labels, part.train, part.validation, config, seed=seed, progress=progress)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / _WEIGHTS)
    return {"parameters": sum(p.numel() for p in model.parameters()), "curves": asdict(history)}


def classifier_scores(
    backbone: str, clips: ClipSet, indices: np.ndarray, part: Part, config: TrainingConfig, folder: Path
) -> np.ndarray:
    """Class probabilities (n, K) float32 of the clips at `indices`, by the weights in `folder`."""
    model = build(backbone, clips, len(part.classes), config, seed=0)
    model.load_state_dict(load_file(folder / _WEIGHTS, device=str(clips.device)))
    return predict_logits(model, clips, indices, config).softmax(dim=1).cpu().numpy()
