"""The minimax training of Moon et al. (AAAI 2023), for any networks and private attributes.

An anonymizer f and a privacy classifier g learn by turns, against a frozen action classifier h; both classifiers learn from raw
clips first:

    f minimises  CE(h(f(x)), action) - alpha * H(g(f(x))) + beta * MSE(f(x), x) - gamma * mean D(f(x))
    g minimises  CE(g(f(x)), private attribute)

H is the entropy of g's answer in nats: f needs no private label. D, of weight gamma, tells bone directions of real poses from
released ones and learns by the hinge loss ("Exposing and Erasing Identity in Skeleton Motion", 2025).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anonymizers.kinematics import bone_directions, bone_vectors
from anonymizers.networks import create
from anonymizers.networks.transformer import BoneDiscriminator
from bench import classifiers
from bench.anonymizer import Examples
from bench.checkpoint import Checkpoint
from bench.data.clips import presence
from bench.execution import Pieces, precision_of
from bench.files import UserError, digest
from bench.presets import TrainingConfig
from bench.protocols import ACTION, Part
from bench.training import augmented, descend, learning_rate, make_optimiser, parameter_groups, precision


@dataclass(frozen=True)
class Terms:
    """Weights of what the anonymizer minimises beside the cross-entropy of actions: entropy, squared error (1/m^2), realism."""

    alpha: float
    beta: float
    gamma: float


@dataclass
class Classifier:
    """A classifier of the game.

    Args:
        model: On the clips' device.
        config: Its budget; says which window of a clip it reads.
        labels: (N,) int64 right answers.
        curves: How it learnt from raw clips.
    """

    model: nn.Module
    config: TrainingConfig
    labels: Tensor
    curves: dict[str, Any] = field(default_factory=dict)

    @property
    def view(self) -> tuple[int, str]:
        return self.config.frames, self.config.sampling


_ALL = 2**31  # more bone directions than a batch has


@dataclass
class _Stand:
    """Where the game stands between two epochs, besides weights, momenta and generators.

    Args:
        epoch: The next one.
        turn: Steps taken.
        best, chosen: Margin and number of the epoch whose weights are kept.
        micro_batch: Clips that go through the networks at a time.
        directions: Bone directions that go through the discriminator at a time.
        curves: Of all terms so far.
        raw_curves: How the classifiers learnt from raw clips, that of actions first.
    """

    epoch: int = 0
    turn: int = 0
    best: float = -np.inf
    chosen: int = 0
    micro_batch: int = 0
    directions: int = _ALL
    curves: dict[str, list[float]] = field(default_factory=dict)
    raw_curves: list[dict[str, Any]] = field(default_factory=list)


class Game:
    """One training: `play` it, then take `anonymizer`.

    Args:
        examples: What may be learnt from.
        network: Name of the anonymizer's network.
        terms: Weights of the loss.
        action: Backbone of the action classifier, and a file of published weights for it, "" to train it.
        privacy: Backbone of the privacy classifiers.
        private: Attributes to hide, one privacy classifier each; their entropies and losses are averaged.
        lr: Peak learning rate of both sides in preset `paper`.
        minimization_steps: Steps of the anonymizer to one of the privacy classifiers.

    Raises:
        UserError: if the data lacks the labels.
    """

    def __init__(
        self,
        examples: Examples,
        network: str,
        terms: Terms,
        *,
        action: tuple[str, str],
        privacy: str,
        private: Sequence[str],
        lr: float,
        minimization_steps: int,
    ):
        self.clips, self.terms, self.seed = examples.clips, terms, examples.seed
        self.minimization_steps = minimization_steps
        self.progress, self.checkpoint = examples.progress, examples.checkpoint
        self.config = examples.preset.attack
        self.published = self.config.published
        if self.published:
            self.config = replace(self.config, lr=lr)
        self.generator, self.pieces, self.judged = examples.generator(), Pieces(self.config.batch), Pieces(_ALL)
        parts = {name: _part(examples, name) for name in (ACTION, *private)}
        count = len(parts) + 1
        backbone, weights = action
        config = classifiers.config_for(backbone, examples.preset.utility)
        self.action = self._pretrain(backbone, parts[ACTION], config, (0, count), weights)
        self.action.model.requires_grad_(False)
        config = classifiers.config_for(privacy, examples.preset.attack)
        self.privacy = [self._pretrain(privacy, parts[name], config, (i, count)) for i, name in enumerate(private, 1)]
        labelled = np.logical_and.reduce([part.labels >= 0 for part in parts.values()])
        held = np.isin(np.arange(len(labelled)), parts[ACTION].validation)
        self.train = torch.from_numpy(np.flatnonzero(labelled & ~held)).to(self.clips.device)
        self.held = torch.from_numpy(np.flatnonzero(labelled & held)).to(self.clips.device)
        width = max(4, round(64 * self.config.width))
        with classifiers.seeded(self.seed, self.clips.device):
            self.anonymizer = create(network, layout=self.clips.layout, num_bodies=self.clips.num_bodies, base_width=width)
            self.discriminator = BoneDiscriminator(len(self.clips.layout.bones))
        self.anonymizer.to(self.clips.device)
        self.discriminator.to(self.clips.device)
        self.share = (count - 1) / count  # of the progress that is behind us

    @property
    def least(self) -> int:
        """Frames up to which clips are repeated before a network with temporal context sees them."""
        return self.config.frames if self.published else 0

    def _pretrain(
        self, backbone: str, part: Part, config: TrainingConfig, place: tuple[int, int], weights: str = ""
    ) -> Classifier:
        model = classifiers.build(backbone, self.clips, len(part.classes), config, self.seed)
        labels = torch.from_numpy(part.labels).to(self.clips.device)
        if weights:
            load_published(model, Path(weights))
            return Classifier(model.eval(), config, labels)

        def report(done: int, total: int, text: str = "") -> None:
            self.progress(place[0] * total + done, place[1] * total, f"{part.target} on raw clips: {text}")

        how = {"seed": self.seed, "progress": report, "checkpoint": self.checkpoint(f"raw-{place[0]}")}
        history = classifiers.train(model, self.clips, part, config, **how)
        told = history.describe()
        curves = {name: told[name] for name in ("validation_loss", "validation_accuracy", "micro_batch") if name in told}
        return Classifier(model, config, labels, curves)

    def play(self) -> dict[str, Any]:
        """Trains the anonymizer, and returns the curves of all terms (a list entry an epoch)."""
        with classifiers.seeded(self.seed, self.clips.device):  # dropout of the privacy classifiers
            return self._play()

    def _play(self) -> dict[str, Any]:
        config = self.config
        groups = parameter_groups(self.anonymizer, config.weight_decay)
        movers = [_optimiser(groups, config)]
        movers += [_optimiser(parameter_groups(g.model, config.weight_decay), config, classifier=True) for g in self.privacy]
        critic = make_optimiser("adam", [{"params": list(self.discriminator.parameters())}], lr=1e-3)
        steps = max(len(self.train) // config.batch, 1)
        if config.most_steps:
            steps = min(steps, config.most_steps)
            epochs = max(1, config.most_steps // steps)
            config = replace(config, epochs=epochs, warmup=min(config.warmup, 0.1 * epochs))
        raw = [self._frozen_copy(g) for g in self.privacy]
        stand, kept = _Stand(raw_curves=[g.curves for g in (self.action, *self.privacy)]), self.anonymizer.state_dict()
        saved, unsaved = self._checkpoint(config, movers, critic, raw), ""
        if found := saved.restore():
            kept, stand = found[0], _Stand(**found[1])
            self.pieces.size, self.judged.size = stand.micro_batch, stand.directions
        for epoch in range(stand.epoch, config.epochs):
            order = self.train[torch.randperm(len(self.train), generator=self.generator, device=self.clips.device)]
            batches = order.split(config.batch)[:steps]
            longest = self._longest(batches)
            sums: dict[str, Tensor] = {}
            counts: dict[str, int] = {}
            for step, indices in enumerate(batches):
                share = learning_rate(config, epoch + step / steps) / config.lr
                for mover in movers:
                    for group in mover.param_groups:
                        group["lr"] = share * group["peak"]
                stand.turn += 1
                if stand.turn % (self.minimization_steps + 1):
                    losses = self._minimise(indices, longest[step], movers[0], critic)
                else:
                    losses = self._maximise(indices, longest[step], movers[1:])
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value
                    counts[name] = counts.get(name, 0) + 1
            told = {name: float(total) / counts[name] for name, total in sums.items()} | self._validate(raw)
            if not all(np.isfinite(value) for value in told.values()):
                saved.remove()  # whoever mends the cause begins anew
                raise FloatingPointError(f"a loss of the anonymizer became infinite or not a number in epoch {epoch + 1}: {told}")
            for name, value in told.items():
                stand.curves.setdefault(name, []).append(value)
            margin = told["action_accuracy"] - told["private_accuracy"]
            if margin >= stand.best or not config.choose_best:  # of equals the last, which has learnt most
                stand.best, stand.chosen = margin, epoch
                kept = copy.deepcopy(self.anonymizer.state_dict())
            done = self.share + (1 - self.share) * (epoch + 1) / config.epochs
            text = f"action {told['action_accuracy']:.2f}, private {told['private_accuracy']:.2f} on held-out clips{unsaved}"
            self.progress(round(1000 * done), 1000, text)
            stand.epoch, stand.micro_batch, stand.directions = epoch + 1, self.pieces.size, self.judged.size
            unsaved = saved.save(kept, asdict(stand), last=stand.epoch == config.epochs)
        self.anonymizer.load_state_dict(kept)
        self.anonymizer.eval()
        return {
            "curves": stand.curves,
            "best_epoch": stand.chosen,
            "raw_curves": {"action": stand.raw_curves[0], "private": stand.raw_curves[1:]},
            **({"micro_batch": self.pieces.size} if self.pieces.size < config.batch else {}),
            **({"directions": self.judged.size} if self.judged.size < _ALL else {}),
        }

    def _checkpoint(
        self,
        config: TrainingConfig,
        movers: Sequence[torch.optim.Optimizer],
        critic: torch.optim.Optimizer,
        raw: Sequence[Classifier],
    ) -> Checkpoint:
        """Of all networks that take part, those that learn no more as well: made anew elsewhere they would be others."""
        place = [self.clips.device.type, precision_of(self.clips.device, config.precision)]
        classifiers_of = [[asdict(g.config), g.labels.tolist()] for g in (self.action, *self.privacy)]
        of = [asdict(config), asdict(self.terms), self.seed, self.minimization_steps, self.train.tolist(), place]
        of += [type(self.anonymizer).__qualname__, classifiers_of, self.clips.sketch()]
        return Checkpoint(
            self.checkpoint("game"),
            digest(of),
            networks={
                "anonymizer": self.anonymizer,
                "discriminator": self.discriminator,
                "action": self.action.model,
                **{f"privacy {i}": g.model for i, g in enumerate(self.privacy)},
                **{f"raw {i}": g.model for i, g in enumerate(raw)},
            },
            optimisers={"critic": critic} | {str(i): mover for i, mover in enumerate(movers)},
            generators={"clips": self.generator},
        )

    def _longest(self, batches: Sequence[Tensor]) -> list[int]:
        """Frames of the longest clip of each batch, fetched from the device at one go: asked batch by batch, it would stall.

        A network without temporal context reads no whole clips, and need not know.
        """
        if self.anonymizer.frame_wise:
            return [0] * len(batches)
        return torch.stack([self.clips.lengths[indices].max() for indices in batches]).tolist()

    def _minimise(
        self, indices: Tensor, longest: int, mover: torch.optim.Optimizer, critic: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """A step of the anonymizer, and of the discriminator if there is one."""
        self.anonymizer.train()
        for g in self.privacy:
            g.model.requires_grad_(False).train(self.published)
        bones: list[tuple[Tensor, Tensor]] = []

        def loss_of(piece: slice) -> tuple[Tensor, dict[str, Tensor]]:
            if not piece.start:  # the first, or the first after there was too little memory
                bones.clear()
            with precision(self.clips.device, self.config):
                x, out, views = self._anonymized(indices[piece], longest, [self.action, *self.privacy], self.generator)
                action = functional.cross_entropy(self.action.model(views[0]), self.action.labels[indices[piece]])
                privacy = [entropy(g.model(view)) for g, view in zip(self.privacy, views[1:], strict=True)]
                hidden = torch.stack(privacy).mean()
                error = self._error(out, x)
                loss = action - self.terms.alpha * hidden + self.terms.beta * error
                losses = {"action_loss": action, "entropy": hidden, "squared_error": error}
                if self.terms.gamma:
                    real, made = self._directions(x, x), self._directions(out, x)
                    doubt = self.discriminator(made).mean()
                    loss = loss - self.terms.gamma * doubt
                    losses["realism"] = doubt
                    bones.append((real, made.detach()))
            return loss, losses

        told = descend(mover, loss_of, len(indices), self.pieces, self.anonymizer.parameters(), self.config.clip_norm)
        if self.terms.gamma:
            told |= self._judge(*(torch.cat(each) for each in zip(*bones, strict=True)), critic)
        return told

    def _judge(self, real: Tensor, made: Tensor, critic: torch.optim.Optimizer) -> dict[str, Tensor]:
        """A step of the discriminator on bone directions (F, bones, 3)."""

        def loss_of(piece: slice) -> tuple[Tensor, dict[str, Tensor]]:
            hinge = functional.relu(1 - self.discriminator(real[piece])) + functional.relu(1 + self.discriminator(made[piece]))
            return hinge.mean(), {"discriminator_loss": hinge.mean()}

        return descend(critic, loss_of, len(real), self.judged)

    def _maximise(self, indices: Tensor, longest: int, movers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
        """A step of the privacy classifiers."""
        self.anonymizer.train(self.published)

        def shown(part: Tensor) -> list[Tensor]:
            with torch.no_grad(), precision(self.clips.device, self.config):
                return self._anonymized(part, longest, self.privacy, self.generator)[2]

        views = self.pieces(lambda size: [torch.cat(e) for e in zip(*map(shown, indices.split(size)), strict=True)], len(indices))
        found = []
        for g, view, mover in zip(self.privacy, views, movers, strict=True):
            g.model.requires_grad_(True).train()
            found.append(
                descend(
                    mover, self._naming(g, view, indices), len(indices), self.pieces, g.model.parameters(), self.config.clip_norm
                )
            )
        return {"privacy_loss": torch.stack([told["loss"] for told in found]).mean()}

    def _naming(self, g: Classifier, view: Tensor, indices: Tensor) -> Callable[[slice], tuple[Tensor, dict[str, Tensor]]]:
        """The loss of a classifier that names who is in `view` (N, 3, T, V, M)."""

        def loss_of(piece: slice) -> tuple[Tensor, dict[str, Tensor]]:
            with precision(self.clips.device, self.config):
                loss = functional.cross_entropy(g.model(view[piece]), g.labels[indices[piece]])
            return loss, {"loss": loss}

        return loss_of

    def _anonymized(
        self, indices: Tensor, longest: int, readers: Sequence[Classifier], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Clips that the anonymizer reads (N, 3, T, V, M), what it makes of them, and the window of that for each reader.

        A network without temporal context reads no other frames than the classifiers do; one with it reads whole clips. With a
        generator, readers see what they are shown in their own training: drawn windows, augmented. `longest` is the number of
        frames of the longest clip.
        """
        wanted = {reader.view: None for reader in readers}
        windows = [self.clips.window_frames(indices, *view, generator) for view in wanted]
        lengths = self.clips.lengths[indices]
        if self.anonymizer.frame_wise:
            x = self.clips.gather(indices, torch.cat(windows, dim=1))
            out = self._masked(self.anonymizer(x), x)
            cuts = list(out.split([view.shape[1] for view in windows], dim=2))
        else:
            frames = max(self.least, longest, self.anonymizer.multiple)
            x = self.clips.gather(indices, torch.arange(frames, device=self.clips.device) % lengths[:, None])
            out = self._masked(self.anonymizer(x), x)
            cuts = [out.take_along_dim(view[:, None, :, None, None], dim=2) for view in windows]
        place = dict(zip(wanted, cuts, strict=True))
        seen = [place[reader.view] for reader in readers]
        if generator is not None:
            seen = [augmented(view, reader.config, generator) for view, reader in zip(seen, readers, strict=True)]
        return x, out, seen

    def _masked(self, out: Tensor, x: Tensor) -> Tensor:
        """Absent bodies stay absent; as published they do not while learning."""
        return out if self.published else out * presence(x)

    def _error(self, out: Tensor, x: Tensor) -> Tensor:
        """Mean squared error (m^2) of coordinates of bodies that are there; as published of all."""
        squares = (out - x).square()
        return squares.mean() if self.published else (squares * presence(x)).sum() / (3 * presence(x).sum() * x.shape[3])

    def _directions(self, clips: Tensor, x: Tensor) -> Tensor:
        """(F, bones, 3) directions of the bones of every body and frame that is there in `x`; a GPU stalls to tell how many."""
        children = [child for child, _ in self.clips.layout.bones]
        unit = bone_directions(bone_vectors(clips, self.clips.layout))[:, :, :, children]
        return unit.permute(0, 2, 4, 3, 1)[presence(x)[:, 0, :, 0]]

    def _frozen_copy(self, classifier: Classifier) -> Classifier:
        """The classifier as it is now: an attacker that knows nothing of the anonymizer."""
        return replace(classifier, model=copy.deepcopy(classifier.model).eval())

    @torch.no_grad()
    def _validate(self, raw: Sequence[Classifier]) -> dict[str, float]:
        """Accuracy of the raw-trained classifiers on held-out clips, anonymized."""
        self.anonymizer.eval()
        readers = [self.action, *raw]

        def hits(size: int) -> Tensor:
            found = torch.zeros(len(readers), device=self.clips.device)
            batches = self.held.split(size)
            for indices, longest in zip(batches, self._longest(batches), strict=True):
                _, _, views = self._anonymized(indices, longest, readers, None)
                for i, (reader, view) in enumerate(zip(readers, views, strict=True)):
                    found[i] += (reader.model(view).argmax(dim=1) == reader.labels[indices]).sum()
            return found

        found = (Pieces(64)(hits, len(self.held)) / len(self.held)).tolist()
        return {"action_accuracy": found[0], "private_accuracy": float(np.mean(found[1:]))}


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of the class probabilities (N, K)."""
    log = functional.log_softmax(logits.float(), dim=1)
    return -(log.exp() * log).sum(dim=1).mean()


def load_published(model: nn.Module, file: Path) -> None:
    """Loads the authors' weights by their own key names; the file is read without running any code in it.

    Raises:
        UserError: if it cannot be read, or is of another network or number of classes.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        model.load_reference_state(state)
    except Exception as error:  # whatever a damaged or foreign file makes torch raise
        raise UserError(f"{file} holds no weights for this action classifier and data: {str(error).splitlines()[0]}") from error


def _optimiser(groups: list[dict], config: TrainingConfig, *, classifier: bool = False) -> torch.optim.Optimizer:
    """SGD as published; otherwise Adam for the anonymizer and a tenth of the classifiers' own rate for them."""
    if config.published:
        mover = make_optimiser("sgd", groups, lr=config.lr)
    elif classifier:
        mover = make_optimiser("sgd", groups, lr=config.lr / 10)
    else:
        mover = make_optimiser("adam", [{**group, "weight_decay": 0.0} for group in groups], lr=1e-3)
    for group in mover.param_groups:
        group["peak"] = group["lr"]
    return mover


def _part(examples: Examples, target: str) -> Part:
    """The part of a target, its classes those that the examples show (actions: all, as published weights know them).

    Raises:
        UserError: if the data has no labels of the target.
    """
    if target not in examples.parts:
        raise UserError(f"adversarial needs labels of {target!r}; the data has them for {', '.join(examples.parts)}")
    part = examples.parts[target]
    return part if target == ACTION else part.of_trained_classes()
