"""A backbone with a head, trained by the common loop, kept as safetensors: the utility model and every neural attacker."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.data.clips import ClipSet
from bench.distributed import Group, together, wanted
from bench.presets import TrainingConfig
from bench.protocols import Part
from bench.registry import BACKBONES
from bench.stages import CHECKPOINT
from bench.training import History, Progress, predict, train_classifier

_WEIGHTS = "model.safetensors"
_HEAD_DRAWS = 4  # random windows of each clip that a refitted head learns from


def describe(backbone: str) -> dict[str, Any]:
    """What a record states about a backbone; `code` changes when its author says that its results do.

    Raises:
        LookupError: if there is no such backbone.
    """
    plugin = BACKBONES[backbone]
    return {"name": backbone, "provider": plugin.provider, "code": getattr(plugin.load(), "code_version", 1)}


def config_for(backbone: str, config: TrainingConfig) -> TrainingConfig:
    """The budget as it holds for a backbone: with what the network needs and, where asked for, its authors' recipe.

    Raises:
        LookupError: if there is no such backbone.
    """
    network = BACKBONES[backbone].load()
    config = replace(config, **getattr(network, "requires", {}))
    return replace(config, **getattr(network, "published_recipe", {})) if config.published else config


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
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
    with seeded(seed, clips.device):
        model = network(layout=clips.layout, num_classes=num_classes, num_bodies=clips.num_bodies, width=config.width)
    if config.published:
        model.use_published_gradients()
    return model.to(clips.device)


def load(backbone: str, clips: ClipSet, part: Part, config: TrainingConfig, folder: Path) -> nn.Module:
    """The classifier whose weights lie in `folder`, in eval mode."""
    model = build(backbone, clips, len(part.classes), config, seed=0)
    model.load_state_dict(load_file(folder / _WEIGHTS, device=str(clips.device)))
    return model.eval()


def save(model: nn.Module, folder: Path) -> None:
    """Writes a classifier's weights into `folder`; of several processes that share it, the first does."""
    if Group.current().rank == 0:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / _WEIGHTS)


def fit_classifier(
    backbone: str,
    clips: ClipSet,
    part: Part,
    config: TrainingConfig,
    folder: Path,
    *,
    seed: int,
    start: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains a backbone on `part` and writes its weights into `folder`.

    Args:
        config: Budget, as `config_for` gives it.
        start: Folder of a classifier to fine-tune with a reduced budget; None trains from scratch.

    Returns:
        The curves and the number of parameters, for the record.
    """
    if (count := wanted(len(part.train), config.batch)) > 1:
        how = {"part": part, "config": config, "folder": folder, "seed": seed, "start": start}
        return together(count, fit_classifier, clips, backbone=backbone, progress=progress, **how)
    if start is None:
        model = build(backbone, clips, len(part.classes), config, seed)
    else:
        model, config = load(backbone, clips, part, config, start), config.fine_tuning()
    history = train(model, clips, part, config, seed=seed, progress=progress, checkpoint=folder / f"training{CHECKPOINT}")
    save(model, folder)
    return {"parameters": sum(p.numel() for p in model.parameters()), "curves": history.describe()}


def train(
    model: nn.Module,
    clips: ClipSet,
    part: Part,
    config: TrainingConfig,
    *,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> History:
    """Trains a classifier in place on `part` and leaves it in eval mode; `checkpoint` as for `train_classifier`."""
    labels = torch.from_numpy(part.labels).to(clips.device)
    with seeded(seed, clips.device):
        how = {"seed": seed, "progress": progress, "checkpoint": checkpoint}
        return train_classifier(model, clips, labels, part.train, part.validation, config, **how)


def refit_head(
    backbone: str, clips: ClipSet, part: Part, config: TrainingConfig, folder: Path, *, seed: int, start: Path
) -> dict[str, Any]:
    """Keeps the representation of the classifier in `start` and fits its last, linear layer to other clips.

    The layer is a linear discriminant analysis of the embeddings of a few windows of each training clip, with the covariance
    shrunk as Ledoit and Wolf do: nothing to choose, and at its best where clips are few.

    Returns:
        The accuracy on the validation part.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = load(backbone, clips, part, config, start)
    generator = torch.Generator(clips.device).manual_seed(seed)
    windows = [embeddings(model, clips, part.train, config, generator) for _ in range(_HEAD_DRAWS)]
    learn = torch.cat(windows).double().cpu().numpy()
    labels = np.tile(part.labels[part.train], _HEAD_DRAWS)
    classes = len(np.unique(labels))
    head = LinearDiscriminantAnalysis("lsqr", "auto", priors=np.full(classes, 1 / classes) if config.balanced else None)
    _set_head(model.classifier, head.fit(learn, labels))
    save(model, folder)
    scores = predict(model, clips, part.validation, config).cpu().numpy()
    return {"validation_accuracy": float((scores.argmax(axis=1) == part.labels[part.validation]).mean())}


@torch.no_grad()
def _set_head(layer: nn.Linear, head: Any) -> None:
    """Puts a fitted linear classifier of scikit-learn into a linear layer; a class without clips is never named."""
    weight, bias = head.coef_, head.intercept_
    if len(head.classes_) == 2 and len(weight) == 1:  # scikit-learn keeps one row for two classes
        weight, bias = np.vstack([-weight / 2, weight / 2]), np.append(-bias / 2, bias / 2)
    layer.weight.zero_()
    layer.bias.fill_(-1e4)
    classes = torch.from_numpy(head.classes_).to(layer.weight.device)
    layer.weight[classes] = torch.from_numpy(weight).to(layer.weight)
    layer.bias[classes] = torch.from_numpy(bias).to(layer.bias)


def embeddings(
    model: nn.Module, clips: ClipSet, indices: np.ndarray, config: TrainingConfig, generator: torch.Generator | None = None
) -> Tensor:
    """Embeddings (n, D) float32 of the clips at `indices`, in eval mode; from the middle window unless a generator draws it."""
    return predict(model.embed, clips, indices, config, generator=generator)


def classifier_embeddings(
    backbone: str, clips: ClipSet, indices: np.ndarray, part: Part, config: TrainingConfig, folder: Path
) -> np.ndarray:
    """Embeddings (n, E) float32 of the clips at `indices`, by the weights in `folder`."""
    return embeddings(load(backbone, clips, part, config, folder), clips, indices, config).cpu().numpy()


def classifier_scores(
    backbone: str, clips: ClipSet, indices: np.ndarray, part: Part, config: TrainingConfig, folder: Path
) -> np.ndarray:
    """Class probabilities (n, K) float32 of the clips at `indices`, by the weights in `folder`."""
    model = load(backbone, clips, part, config, folder)
    return predict(model, clips, indices, config).softmax(dim=1).cpu().numpy()
