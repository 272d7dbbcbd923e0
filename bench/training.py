"""The training loop of classifiers: of actions, neural attackers, verifiers, and those that an adversary starts with.

What learns by another loss than that of a classifier (minimax games, retargeting, inverters, networks of pairs) has a loop of its
own, beside that loss; it takes from here how an optimiser is made and how a step is taken, in pieces where memory is short, and
keeps where it stands in a `bench.checkpoint.Checkpoint` as this one does.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.checkpoint import Checkpoint
from bench.data.clips import ClipSet, rotate_about_vertical, stretch
from bench.distributed import Group
from bench.execution import Pieces, compiled, fused, precision_of
from bench.files import digest
from bench.presets import TrainingConfig

Progress = Callable[[int, int, str], None]
_UNUSUAL = ("micro_batch", "processes")  # told where they are not 0
_MEANINGFUL = 0.005  # nats: a smaller gain of validation does not keep a training going
_MEANINGFUL_SHARE = 0.01  # of the training loss, which sinks a little even where nothing can be learnt


@dataclass
class History:
    """What happened, epoch by epoch (a list entry an epoch).

    Args:
        train_loss: Mean training loss (nats).
        validation_loss: Mean loss on the validation part (nats).
        validation_accuracy: Top-1 on the validation part.
        lr: Learning rate at the epoch's end.
        best_epoch: Epoch whose weights were kept, from 0.
        micro_batch: Clips that went through the network at a time, where the device had too little memory for a whole batch: the
            gradients are those of the batch, but batch normalisation sees fewer clips. 0 if there was enough.
        processes: How many processes shared it; 0 if one did all. Batch normalisation sees the share of the first.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    best_epoch: int = -1
    micro_batch: int = 0
    processes: int = 0

    def describe(self) -> dict[str, Any]:
        """What a record states: the curves, and what was unusual."""
        return {name: value for name, value in asdict(self).items() if name not in _UNUSUAL or value}


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Learning rate after `epoch` epochs (a fraction counts): linear warm-up, then cosine to zero or steps of 0.1."""
    if epoch < config.warmup:
        return config.lr * (epoch + 1e-3) / config.warmup
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(epoch >= step for step in config.steps)
    done = (epoch - config.warmup) / max(config.epochs - config.warmup, 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """(K,) weights inverse to each class's frequency, with mean 1 over the clips; a class without clips weighs 0."""
    counts = torch.bincount(labels, minlength=num_classes).float()
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp_min(1)), 0.0)


def precision(device: torch.device, config: TrainingConfig) -> torch.autocast:
    """Autocast to bfloat16 where the budget asks for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision_of(device, config.precision) == "bfloat16")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Groups for an optimiser: the model's own, if it scales the weight decay of some parameters, or one of all parameters."""
    if hasattr(model, "parameter_groups"):
        return model.parameter_groups(weight_decay)
    return [{"params": list(model.parameters()), "weight_decay": weight_decay}]


def _long_enough(config: TrainingConfig, steps: int) -> TrainingConfig:
    """The budget with so many more epochs, of `steps` each, that it plans for its fewest steps."""
    least = min(config.least_steps, config.most_steps or config.least_steps)
    more = math.ceil(least / (steps * config.epochs))
    if more <= 1:
        return config
    longer = {name: more * getattr(config, name) for name in ("epochs", "patience", "warmup")}
    return replace(config, steps=tuple(more * step for step in config.steps), **longer)


def _mean_recall(found: Tensor, truth: Tensor) -> float:
    return float(torch.stack([(found[truth == value] == value).float().mean() for value in truth.unique()]).mean())


def _guessing(truth: Tensor) -> float:
    """What the mean recall of a guess hardly exceeds: three standard errors above chance."""
    _, counts = truth.unique(return_counts=True)
    chance = 1 / len(counts)
    return chance + 3 * math.sqrt(chance * (1 - chance) * float((1 / counts).sum())) * chance


def augmented(batch: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Clips (N, 3, T, V, M) turned and stretched at random, as the budget asks for it."""
    if config.rotate:
        batch = rotate_about_vertical(batch, config.rotate, generator)
    if config.stretch:
        batch = stretch(batch, config.stretch, generator)
    return batch


def make_optimiser(kind: str, groups: list[dict], lr: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum 0.9 ("sgd"), "adam" or "adamw", which updates all parameters in one kernel on a GPU.

    Args:
        groups: Parameters, all on one device, and the weight decay of each group if it has any.
        lr: Peak learning rate.
    """
    common = {"lr": lr, "fused": fused(groups[0]["params"][0].device)}
    if kind == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](groups, **common)


def descend(
    optimiser: torch.optim.Optimizer,
    loss_of: Callable[[slice], tuple[Tensor, Mapping[str, Tensor]]],
    count: int,
    pieces: Pieces,
    parameters: Iterable[nn.Parameter] = (),
    most: float = 0.0,
) -> dict[str, Tensor]:
    """A step down the gradient of the loss of a batch, taken in as few pieces as the memory of the device allows.

    Args:
        loss_of: Maps a slice of the batch to its mean loss, and to what should be told of it by name. Pieces weigh by their
            length: where a loss is no mean over the items of the batch, that of pieces is near it, not the same.
        count: Items of the batch.
        pieces: How many go through the networks at a time.
        parameters, most: Their gradient is made no longer than `most`; 0 does not limit it.

    Returns:
        What was told, the mean over the batch, without gradients.
    """

    def run(_: int) -> dict[str, Tensor]:
        optimiser.zero_grad(set_to_none=True)
        told: dict[str, Tensor] = {}
        for piece in pieces.slices(count):
            share = (piece.stop - piece.start) / count if count else 1.0
            loss, said = loss_of(piece)
            (loss * share).backward()
            for name, value in said.items():
                told[name] = told.get(name, 0.0) + share * value.detach()
        return told

    told = pieces(run, count)
    if most:
        nn.utils.clip_grad_norm_(parameters, most)
    optimiser.step()
    return told


@dataclass
class _Stand:
    """Where a training stands between two epochs, besides weights, momenta and generators.

    Args:
        epoch: The next one.
        informed: Whether validation was ever better than guessing; until then it can neither choose nor end.
        lowest: Validation loss of the chosen epoch.
        milestone, milestone_epoch: Last loss that was meaningfully lower than before.
    """

    epoch: int = 0
    informed: bool = False
    lowest: float = math.inf
    milestone: float = math.inf
    milestone_epoch: int = 0


class _Backward:
    """Gradients of a batch, in as few pieces as the memory of the device allows.

    Args:
        model: Maps clips to logits.
        loss_of: Maps logits and labels to the mean loss of the clips.
        weights: (K,) of the classes in that mean; None if all clips count alike.
        config: Budget.
        pieces: How many clips go through the network at a time.
        group: Processes that the batch is dealt out to.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        weights: Tensor | None,
        config: TrainingConfig,
        pieces: Pieces,
        group: Group,
    ):
        self._model, self._loss_of, self._weights, self._config = model, loss_of, weights, config
        self.pieces, self._group = pieces, group

    def __call__(self, batch: Tensor, labels: Tensor) -> Tensor:
        """Sets the gradients of the parameters; returns the loss, or this process's share of it."""
        loss = self.pieces(lambda size: self._in_pieces(batch, labels, size), len(self._group.own(batch)))
        self._group.add(p.grad for p in self._model.parameters() if p.grad is not None)
        return loss

    def _in_pieces(self, batch: Tensor, labels: Tensor, size: int) -> Tensor:
        self._model.zero_grad(set_to_none=True)
        if len(batch) <= size and self._group.size == 1:
            return self._backward(batch, labels)
        counts = torch.ones_like(labels, dtype=torch.float32) if self._weights is None else self._weights[labels]
        own = (self._group.own(of).split(size) for of in (batch, labels, counts / counts.sum()))
        pieces = zip(*own, strict=True)
        return torch.stack([self._backward(*piece[:2], piece[2].sum()) for piece in pieces]).sum()

    def _backward(self, batch: Tensor, labels: Tensor, share: Tensor | None = None) -> Tensor:
        with precision(batch.device, self._config):
            error = self._loss_of(self._model(batch), labels)
        if share is not None:
            error = error * share
        error.backward()
        return error.detach()


def train_classifier(
    model: nn.Module,
    clips: ClipSet,
    labels: Tensor,
    train: np.ndarray,
    validation: np.ndarray,
    config: TrainingConfig,
    *,
    seed: int,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> History:
    """Trains `model` in place and leaves it in eval mode with the chosen weights.

    Validation clips choose the epoch and end the training early, but only once they are classified better than by guessing: where
    they ask for something else than what is tested, such as persons in actions that were held out, they would choose a network
    that has learnt nothing. Until then the training loss decides whether to go on, and the last epoch is kept.

    Args:
        model: Maps (N, 3, T, V, M) to logits (N, K); may offer `parameter_groups(weight_decay)`.
        clips: Clips on the model's device.
        labels: (len(clips),) int64 class indices.
        train, validation: Indices into `clips`.
        config: Budget and hyper-parameters.
        seed: Source of the order of clips, the windows and the augmentation.
        loss: Maps logits (N, K) and labels (N,) to the training loss; None for cross-entropy as the budget asks for it.
        progress: Called with (epochs done, epochs in all, one line of text).
        checkpoint: File from which an interrupted training goes on, written about once a minute.

    Raises:
        TrainingDivergedError: if the loss becomes infinite or not a number.
    """
    device, team = clips.device, Group.current()
    generator = torch.Generator(device).manual_seed(seed)
    optimiser = make_optimiser(config.optimiser, parameter_groups(model, config.weight_decay), config.lr)
    where = torch.as_tensor(train, device=device)
    labels = labels.to(device)
    weights = None
    if config.balanced:
        classes = int(labels.max()) + 1
        weights = class_weights(labels[where], classes)
    loss_of = loss or nn.CrossEntropyLoss(weight=weights, label_smoothing=config.label_smoothing)
    steps = max(len(where) // config.batch, 1)
    config = _long_enough(config, steps)
    if config.most_steps:
        steps = min(steps, config.most_steps)
        epochs = min(config.epochs, config.most_steps // steps)
        config = replace(config, epochs=epochs, warmup=min(config.warmup, 0.1 * epochs))  # the whole schedule must fit
    history, stand = History(), _Stand()
    best: dict[str, Tensor] = {}
    guessing = _guessing(labels[torch.as_tensor(validation, device=device)])
    # A generator of another kind of device cannot be put back, and other precision is another training.
    place = [device.type, precision_of(device, config.precision), team.size]
    of = ""
    if checkpoint:
        what = [type(model).__qualname__, type(loss_of).__qualname__, clips.sketch(), labels.tolist()]
        of = digest([asdict(config), seed, np.asarray(train).tolist(), np.asarray(validation).tolist(), *what, place])
    on = {"networks": {"model": model}, "optimisers": {"model": optimiser}, "generators": {"clips": generator}}
    saved, unsaved = Checkpoint(checkpoint, of, **on), ""
    if found := saved.restore():
        best, history, stand = found[0], History(**found[1]["history"]), _Stand(**found[1]["stand"])
    # Compiled for its training alone: predictions, names and groups of parameters are those of the network itself.
    backward = _Backward(compiled(model), loss_of, weights, config, Pieces(history.micro_batch or config.batch), team)
    gather = Pieces(config.batch)
    team.agree(model.state_dict().values())
    history.processes = team.size if team.size > 1 else 0
    for epoch in range(stand.epoch, config.epochs):
        model.train()
        order = where[torch.randperm(len(where), generator=generator, device=device)]
        team.agree([order])
        if team.size > 1:  # other clips, other dropout; and no state of it that a checkpoint would have to keep for each process
            torch.manual_seed(int(np.random.SeedSequence([seed, epoch, team.rank]).generate_state(1)[0]))
        total = torch.zeros((), device=device)
        for step in range(steps):  # the last, incomplete batch waits for the next epoch's order
            rate = learning_rate(config, epoch + step / steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            indices = order[step * config.batch : (step + 1) * config.batch]
            optimiser.zero_grad(set_to_none=True)  # first, for their memory
            frames = clips.window_frames(indices, config.frames, config.sampling, generator)
            batch = augmented(gather.map(clips.gather, indices, frames), config, generator)
            total += backward(batch, labels[indices])
            if config.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimiser.step()
        team.add([total])
        team.agree(model.state_dict().values())  # running statistics are of each process's own share
        history.train_loss.append(float(total) / steps)
        if not math.isfinite(history.train_loss[-1]):
            saved.remove()  # whoever mends the cause begins anew
            raise TrainingDivergedError(f"the training loss became {history.train_loss[-1]} in epoch {epoch + 1}")
        model.eval()
        logits = predict(model, clips, validation, config)
        team.agree([logits])  # all must decide alike
        truth = labels[torch.as_tensor(validation, device=device)]
        history.validation_loss.append(float(nn.functional.cross_entropy(logits, truth)))
        history.validation_accuracy.append(float((logits.argmax(dim=1) == truth).float().mean()))
        history.lr.append(rate)
        history.micro_batch = backward.pieces.size if backward.pieces.size < min(config.batch, len(where)) else 0
        if not stand.informed and _mean_recall(logits.argmax(dim=1), truth) > guessing:
            stand.informed, stand.milestone = True, math.inf
        if not config.choose_best or not stand.informed or history.validation_loss[-1] <= stand.lowest:
            history.best_epoch = epoch
            stand.lowest = history.validation_loss[-1] if stand.informed else math.inf
            best = {key: value.detach().clone() for key, value in model.state_dict().items()}
        if progress:
            accuracy = history.validation_accuracy[-1]
            progress(epoch + 1, config.epochs, f"loss {history.train_loss[-1]:.3f}, validation accuracy {accuracy:.3f}{unsaved}")
        signal = history.validation_loss[-1] if stand.informed else history.train_loss[-1]
        if signal < stand.milestone - (_MEANINGFUL if stand.informed else _MEANINGFUL_SHARE * signal):
            stand.milestone, stand.milestone_epoch = signal, epoch
        over = bool(config.patience) and epoch - stand.milestone_epoch >= config.patience
        stand.epoch = config.epochs if over else epoch + 1
        if team.rank == 0:
            numbers = {"history": asdict(history), "stand": asdict(stand)}
            unsaved = saved.save(best, numbers, last=stand.epoch == config.epochs)
        if over:
            break
    model.load_state_dict(best)
    model.eval()
    return history


@torch.no_grad()
def predict(
    function: Callable[[Tensor], Tensor],
    clips: ClipSet,
    indices: np.ndarray,
    config: TrainingConfig,
    *,
    generator: torch.Generator | None = None,
    batch: int = 128,
) -> Tensor:
    """What a network in eval mode says of the clips at `indices`, (n, ...) float32; independent of the batch size.

    Where the device has too little memory for a batch, it is read in smaller ones.

    Args:
        function: Maps (N, 3, T, V, M) to (N, ...).
        generator: Draws the windows; without it, the middle ones are taken.
        batch: Most clips that are read at a time.
    """

    def said(part: Tensor, frames: Tensor) -> Tensor:
        with precision(clips.device, config):
            return function(clips.gather(part, frames)).float()

    out, pieces = [], Pieces(batch)
    for part in torch.as_tensor(indices, device=clips.device).split(batch):
        frames = clips.window_frames(part, config.frames, config.sampling, generator)  # drawn once, also if memory runs out
        out.append(pieces.map(said, part, frames))
    return torch.cat(out)
