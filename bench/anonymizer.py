"""What an anonymizer is, what it may learn from, and the batches that it is given."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.data.clips import ClipSet, presence
from bench.presets import Preset
from bench.protocols import Part
from bench.skeleton import Layout
from bench.specs import Parameters, Spec
from bench.stages import CHECKPOINT
from bench.training import Progress

RELEASE_LABELS = ("action", "subject")  # what a data holder may use of a clip that it releases
_TRIED = 4  # clips that are released twice before all are


@dataclass(frozen=True)
class ClipBatch:
    """Whole clips for an anonymizer.

    Args:
        clips: (N, 3, T, V, M) float32, metres; frames past a clip's end and absent bodies are exactly zero.
        lengths: (N,) int64 frames of each clip.
        seeds: One seed a clip, derived from the run's seed and the clip's name: so what is drawn for a clip depends neither
            on its place in the batch nor on the clips beside it.
        layout: Layout of the joints.
        frame_rate: Frames per second.
        labels: What the holder knows of each clip, (N,) int64 codes, -1 where unknown: those that the anonymizer `uses`.
        names: (N,) names of the clips; none where the method is `blind`.
    """

    clips: Tensor
    lengths: Tensor
    seeds: tuple[int, ...]
    layout: Layout
    frame_rate: float = 30.0
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @cached_property
    def present(self) -> Tensor:
        """(N, 1, T, 1, M) bool: where a body is there; absent bodies must stay exactly zero."""
        return presence(self.clips)

    @cached_property
    def inside(self) -> Tensor:
        """(N, T) bool: the frames that belong to each clip."""
        return torch.arange(self.clips.shape[2], device=self.clips.device) < self.lengths[:, None]

    def generators(self) -> list[torch.Generator]:
        """A fresh generator for each clip, on the CPU, so that every device draws the same numbers."""
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def per_frame(self, draw: Callable[..., Tensor]) -> Tensor:
        """Numbers in the shape of `clips` by `draw`, such as `torch.randn`; each clip's do not depend on padding."""
        noise = torch.zeros(self.clips.shape, dtype=self.clips.dtype)
        _, axes, _, joints, bodies = self.clips.shape
        for i, generator in enumerate(self.generators()):
            length = int(self.lengths[i])
            noise[i, :, :length] = draw((length, axes, joints, bodies), generator=generator).transpose(0, 1)
        return noise.to(self.clips.device)

    def per_clip(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        """(N, *shape) numbers by `draw`, such as `torch.rand`, once a clip."""
        return torch.stack([draw(shape, generator=generator) for generator in self.generators()]).to(self.clips.device)

    def step(self, clips: Tensor, number: int) -> "ClipBatch":
        """The same clips as an earlier anonymizer changed them, for the next one: with seeds of its own."""
        seeds = tuple(clip_seed(seed, "step", str(number)) for seed in self.seeds)
        return replace(self, clips=clips, seeds=seeds)


@dataclass(frozen=True)
class Examples:
    """What an anonymizer may learn from.

    Args:
        clips: Clips that no target of the protocol tests.
        parts: For every target that the data supports but linkage: labels of these clips, and which of them train and validate.
        preset: Budget.
        seed: Source of all randomness.
        progress: Called with (done, total, text).
        release_frames: Frames of all bodies of the longest clip that will be released, and
        release_clips: most clips of one person that will be: what a privacy budget must count, and nothing else may be learnt
        of them.
            At least those of `clips` count.
        folder: Where checkpoints of a long training go; None if nowhere.
    """

    clips: ClipSet
    parts: Mapping[str, Part]
    preset: Preset
    seed: int
    progress: Progress = lambda done, total, text="": None
    release_frames: int = 0
    release_clips: int = 0
    folder: Path | None = None

    def checkpoint(self, name: str) -> Path | None:
        """File of a `Checkpoint` from which an interrupted training of this name goes on; None to keep nothing."""
        return self.folder and self.folder / f"{name}{CHECKPOINT}"

    def generator(self) -> torch.Generator:
        return torch.Generator(self.clips.device).manual_seed(self.seed)

    def release_labels(self) -> dict[str, Tensor]:
        """The labels of `ClipBatch` for these clips."""
        return {name: codes.to(self.clips.device) for name, codes in release_labels(self.parts["action"]).items()}


@dataclass(frozen=True)
class Fitted:
    """What an anonymizer learnt.

    Args:
        state: Named tensors; what `transform` needs.
        info: What the record should keep about the training (JSON values), e.g. loss curves.
    """

    state: Mapping[str, Tensor] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


def release_labels(action: Part) -> dict[str, Tensor]:
    """The labels that a holder may use, from the part of the target `action`."""
    return {"action": torch.from_numpy(action.labels), "subject": torch.from_numpy(action.subjects)}


class Anonymizer(Parameters, ABC):
    """Maps skeleton clips to skeleton clips of the same shape.

    A subclass is a frozen dataclass of its hyper-parameters. What `fit` learns is returned as tensors and handed back to
    `transform`: an anonymizer holds no state of its own, so its parameters and what it learnt can be hashed apart.

    Class attributes declare what it is: `stochastic` (its output depends on the seeds), `learns` (it needs `fit`), `uses` (the
    labels of a clip, of `RELEASE_LABELS`, that it must know to release it), `causal` (a released frame depends on no later one),
    `code_version`, raised whenever the same parameters would give another release, `blind` (it must not learn the clips'
    names from its seeds: these follow from the coordinates instead), and `secret` (mixed into its seeds, so that code that knows
    how these are made cannot tell by them who draws).
    """

    stochastic: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    uses: ClassVar[tuple[str, ...]] = ()
    causal: ClassVar[bool] = False
    blind: ClassVar[bool] = False
    secret: ClassVar[str] = ""
    code_version: ClassVar[int] = 1

    def fit(self, examples: Examples) -> Fitted:
        """Learns from the protocol's anonymizer part.

        Raises:
            UserError: if the data cannot teach it, e.g. for want of labels.
        """
        return Fitted()

    @property
    def title(self) -> str:
        """What messages to its author call it."""
        return type(self).__name__

    @property
    def learns_as(self) -> Spec | None:
        """An anonymizer that learns the very same, if there is one: it is fitted once for both."""
        return None

    def strength_range(self, examples: Examples) -> tuple[float, float] | None:
        """Ends of its strength where the data sets them, such as the number of people; None where its declaration does."""
        return None

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        """Everything of the preset that determines what it learns (JSON values): a part of its address."""
        return {}

    @abstractmethod
    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        """Returns anonymized clips (N, 3, T, V, M); absent bodies stay exactly zero, and `batch.clips` is not changed."""

    def close(self) -> None:
        """Ends what a release started, after its last batch."""


def clip_seed(seed: int, draw: str, name: str) -> int:
    """Seed of one clip's randomness.

    Args:
        seed: Seed of the run.
        draw: Who draws, and for the how-manieth time, e.g. "holder/0" or "attacker/0".
        name: Name of the clip.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{draw}/{name}".encode()).digest()[:7])


def secretly(draw: str, secret: str) -> str:
    """A draw that nobody repeats who does not know the secret; the draw itself without one."""
    return f"{draw}/{secret}" if secret else draw


def anonymize(
    anonymizer: Anonymizer,
    state: Mapping[str, Tensor],
    clips: ClipSet,
    *,
    seed: int,
    draw: str,
    labels: Mapping[str, Tensor] | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Anonymizes every clip of a set.

    Args:
        anonymizer: The method.
        state: What it learnt.
        clips: What to anonymize.
        seed: Seed of the run.
        draw: Who draws its randomness, and for the how-manieth time, e.g. "holder/0".
        labels: (N,) codes of each of `RELEASE_LABELS`; needed if the method `uses` any.
        batch_size: Most clips at a time; the result does not depend on it.

    Returns:
        (R, 3, V) rows that fit `clips.with_rows`.

    Raises:
        ValueError: if the anonymizer breaks its contract: another shape, a coordinate that is not finite, an absent body that
            was moved.
    """
    # Clips of similar length share a batch: little padding. The result does not depend on the order.
    order = torch.argsort(clips.lengths, stable=True)
    rows = torch.zeros_like(clips.rows)
    for indices, out in released(anonymizer, state, clips, order, seed=seed, draw=draw, labels=labels, batch_size=batch_size):
        clips.scatter(rows, indices, out)
    return rows


def released(
    anonymizer: Anonymizer,
    state: Mapping[str, Tensor],
    clips: ClipSet,
    order: Tensor,
    *,
    seed: int,
    draw: str,
    labels: Mapping[str, Tensor] | None = None,
    batch_size: int = 64,
) -> Iterator[tuple[Tensor, Tensor]]:
    """As `anonymize`, a batch at a time: clip indices in the given order, and whole clips (N, 3, T, V, M)."""
    for indices in order.split(batch_size):
        names = tuple(clips.names[i] for i in indices.tolist())
        keys = tuple(coordinates_digest(clips, i) for i in indices.tolist()) if anonymizer.blind else names
        batch = ClipBatch(
            clips.whole(indices),
            clips.lengths[indices],
            tuple(clip_seed(seed, secretly(draw, anonymizer.secret), key) for key in keys),
            clips.layout,
            clips.frame_rate,
            {name: labels[name].to(clips.device)[indices] for name in anonymizer.uses} if labels else {},
            () if anonymizer.blind else names,
        )
        with torch.no_grad():
            out = anonymizer.transform(batch, state)
        _check_output(anonymizer, batch, out)
        yield indices, out


def refuse_chance(anonymizer: Anonymizer, state: Mapping[str, Tensor], clips: ClipSet, **how: Any) -> None:
    """Makes sure that a few clips come out the same twice: what is measured must be what anybody else would get.

    Args:
        anonymizer, state, clips, how: As for `anonymize`.

    Raises:
        ValueError: if they do not.
    """
    few = torch.arange(min(_TRIED, len(clips)), device=clips.device)

    def once() -> Tensor:
        ((_, out),) = released(anonymizer, state, clips, few, **how)
        return out

    if not torch.equal(once(), once()):
        raise ValueError(
            f"{anonymizer.title} releases the same clips otherwise the second time; draw from batch.generators() or "
            "batch.per_frame() alone, keep nothing between calls, and declare `stochastic = True`"
        )


def coordinates_digest(clips: ClipSet, i: int) -> str:
    """Digest of a clip's coordinates."""
    first = int(clips.first[i])
    rows = clips.rows[first : first + int(clips.lengths[i]) * int(clips.bodies[i])]
    return hashlib.sha256(rows.cpu().numpy().tobytes()).hexdigest()


def _check_output(anonymizer: Anonymizer, batch: ClipBatch, out: Tensor) -> None:
    if out.shape != batch.clips.shape:
        raise ValueError(f"{anonymizer.title} returned clips of shape {tuple(out.shape)} for {tuple(batch.clips.shape)}")
    bad = int((~torch.isfinite(out)).sum())
    if bad:
        raise ValueError(f"{anonymizer.title} returned {bad} coordinates that are not finite")
    if bool((out.ne(0) & ~batch.present).any()):
        raise ValueError(f"{anonymizer.title} moved bodies that are absent; multiply its output by batch.present")
