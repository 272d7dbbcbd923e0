"""What an anonymizer is, and the batches that it is given."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from bench.data.clips import ClipSet
from bench.skeleton import Layout
from bench.specs import Parameters


@dataclass(frozen=True)
class ClipBatch:
    """Whole clips for an anonymizer.

    Args:
        clips: (N, 3, T, V, M) float32, metres; frames past a clip's end and absent bodies are exactly zero.
        lengths: (N,) int64 frames of each clip.
        seeds: One seed a clip, derived from the run's seed and the clip's name: so what is drawn for a clip depends neither
            on its place in the batch nor on the clips beside it.
        layout: Layout of the joints.
    """

    clips: Tensor
    lengths: Tensor
    seeds: tuple[int, ...]
    layout: Layout

    @cached_property
    def present(self) -> Tensor:
        """(N, 1, T, 1, M) bool: where a body is there; absent bodies must stay exactly zero."""
        return (self.clips != 0).any(dim=3, keepdim=True).any(dim=1, keepdim=True)

    def generators(self) -> list[torch.Generator]:
        """A fresh generator for each clip, on the CPU, so that every device draws the same numbers."""
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def randn(self) -> Tensor:
        """Standard normal numbers in the shape of `clips`; each clip's do not depend on padding."""
        noise = torch.zeros(self.clips.shape, dtype=self.clips.dtype)
        _, axes, _, joints, bodies = self.clips.shape
        for i, generator in enumerate(self.generators()):
            length = int(self.lengths[i])
            noise[i, :, :length] = torch.randn((length, axes, joints, bodies), generator=generator).transpose(0, 1)
        return noise.to(self.clips.device)


class Anonymizer(Parameters, ABC):
    """Maps skeleton clips to skeleton clips of the same shape (methods.md section 4.1).

    A subclass is a frozen dataclass of its hyper-parameters. What `fit` learns is returned as tensors and handed back to
    `transform`: an anonymizer holds no state of its own, so its parameters and what it learnt can be hashed apart.

    Class attributes declare what it is: `stochastic` (its output depends on the seeds), `learns` (it needs `fit`), and
    `code_version`, raised whenever the same parameters would give another release.
    """

    stochastic: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    code_version: ClassVar[int] = 1

    def fit(self, clips: ClipSet, labels: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Learns from the protocol's anonymizer part.

        Args:
            clips: Training clips.
            labels: Class indices (N,) under "action", "subject" and whatever else is known; -1 is unknown.
            generator: Source of all randomness.

        Returns:
            What was learnt: named tensors; empty if there is nothing to learn.
        """
        return {}

    @abstractmethod
    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        """Returns anonymized clips (N, 3, T, V, M); absent bodies stay exactly zero, and `batch.clips` is not changed."""


def clip_seed(seed: int, draw: str, name: str) -> int:
    """Seed of one clip's randomness.

    Args:
        seed: Seed of the run.
        draw: Who draws, and for the how-manieth time, e.g. "holder/0" or "attacker/0".
        name: Name of the clip.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{draw}/{name}".encode()).digest()[:7])


def anonymize(
    anonymizer: Anonymizer, state: Mapping[str, Tensor], clips: ClipSet, *, seed: int, draw: str, batch_size: int = 64
) -> Tensor:
    """Anonymizes every clip of a set.

    Returns:
        (R, 3, V) rows that fit `clips.with_rows`.

    Raises:
        ValueError: if the anonymizer breaks its contract: another shape, a coordinate that is not finite, an absent body that
            was moved.
    """
    # Clips of similar length share a batch: little padding. The result does not depend on the order.
    order = torch.argsort(clips.lengths, stable=True)
    rows = torch.zeros_like(clips.rows)
    for indices in order.split(batch_size):
        batch = ClipBatch(
            clips.whole(indices),
            clips.lengths[indices],
            tuple(clip_seed(seed, draw, clips.names[i]) for i in indices.tolist()),
            clips.layout,
        )
        with torch.no_grad():
            out = anonymizer.transform(batch, state)
        _check_output(type(anonymizer).__name__, batch, out)
        clips.scatter(rows, indices, out)
    return rows


def _check_output(name: str, batch: ClipBatch, out: Tensor) -> None:
    if out.shape != batch.clips.shape:
        raise ValueError(f"{name} returned clips of shape {tuple(out.shape)} for {tuple(batch.clips.shape)}")
    bad = int((~torch.isfinite(out)).sum())
    if bad:
        raise ValueError(f"{name} returned {bad} coordinates that are not finite")
    if bool((out.ne(0) & ~batch.present).any()):
        raise ValueError(f"{name} moved bodies that are absent; multiply its output by batch.present")
