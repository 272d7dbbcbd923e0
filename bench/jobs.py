"""What is evaluated and what comes of it: jobs, releases, trainings, predictions, outcomes. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.specs import Spec
from bench.stages import Output
from bench.threat import Learning, Threat


@dataclass(frozen=True)
class Job:
    """All that determines one record, apart from the data, the protocol and the preset that a `Bench` fixes."""

    anonymizer: Spec
    attacker: Spec
    threat: Threat
    seed: int

    @property
    def target(self) -> str:
        return self.attacker.value.target

    def __str__(self) -> str:
        return f"{self.anonymizer} x {self.attacker}, {self.threat.name}, seed {self.seed}"


@dataclass(frozen=True)
class Release:
    """Clips as somebody sees them: raw, released by the holder, or anonymized by the attacker.

    Args:
        path: `.npy` file of the rows.
        content: Digest of the rows' bytes: equal clips have equal digests, whoever made them.
        seconds: Time that it took to make them, when they were made.
    """

    path: Path
    content: str
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Training:
    """One model to train.

    Args:
        attacker: Who learns; None for the action classifier that measures utility.
        release: What it learns from.
        seed: Seed of the training.
        seen: The release in words.
        start: The raw-trained model of the same attacker that is refitted or fine-tuned; None to start from scratch.
        rehearsal: Whether validation clips are kept from it, to judge it by (`bench.protocols.hold_out`).
        learning: How it learns; without `start` the model is the same whether this is `RAW` or `SCRATCH`.
    """

    attacker: Spec | None
    release: Release
    seed: int
    seen: str
    start: "Training | None" = None
    learning: Learning = Learning.SCRATCH
    rehearsal: bool = False

    def __str__(self) -> str:
        verb = {Learning.REFIT: "refit", Learning.FINE_TUNE: "fine-tune"}.get(self.learning, "train")
        return f"{verb} {self.attacker or 'action classifier'} on {self.seen}{' (to choose by)' if self.rehearsal else ''}"


@dataclass(frozen=True)
class Unit:
    """A piece of work that others may wait for: a method of a `Bench` and its arguments."""

    method: str
    arguments: tuple = ()

    def __str__(self) -> str:
        return " ".join([self.method, *map(str, self.arguments)])


@dataclass(frozen=True)
class Prediction:
    """Class probabilities (n, K), or similarities of pairs (P,), float32, of one side of a part, and their stage."""

    scores: np.ndarray
    stage: Output


def drawn(name: str, draw: int) -> str:
    """Name in a record of a stage of the release of that number."""
    return f"{name}/{draw}" if draw else name


@dataclass(frozen=True)
class Attack:
    """What an attacker says of a release, and how it came to it.

    Args:
        predictions: Its scores on the released test clips, a prediction a draw.
        model: Who says it.
        learning: How that model was made.
        validation: How well each model that it chose among does on its own validation part; empty if there is one only.
        inverter: The model that restores clips; None without one.
    """

    predictions: tuple[Prediction, ...]
    model: Output
    learning: str
    validation: Mapping[str, float]
    inverter: Output | None


@dataclass(frozen=True)
class Outcome:
    """All predictions of one job.

    Args:
        attack: (D, n, K) or (D, P) the attacker's scores on the test clips of each of D releases.
        action_reference: (m, A) raw-trained action classifier on raw clips.
        action_raw: (D, m, A) raw-trained action classifier on released clips.
        action_retrained: (D, m, A) action classifier trained on the first release, on released clips.
        transfer_reference, transfer_retrained: The same of the preset's classifier of another kind.
        fidelity: (D, m, F) how far the released poses of the action test clips are from the raw ones (`bench.metrics.geometry`).
        frechet: (D, 1 + S) Fréchet distance of the action test clips, released and raw, as the raw-trained action classifier
            embeds them, and the same without each person, in the order of their codes (`bench.metrics.frechet`).
        training: What the attacker reported about its training.
        validation: How well each of its models does on the attacker's own validation part; empty if there is one only.
        learning: How the model that attacks was made.
        inversion: What the inverter reported about its training; empty without one.
        fitting: What the anonymizer reported about its training; empty if it learns nothing.
        stages: Name to key, and content where it is compared, of every stage this rests on; of the second release and those
            after it "NAME/1" and so on.
        outputs: The trained models and predictions this rests on.
        cost: What the anonymizer costs: `fit_seconds`, `transform_ms` a clip, `values` that it learnt (parameters of its networks
            among them), and whether it is `causal`: releases a frame without those after it.
    """

    attack: np.ndarray
    action_reference: np.ndarray
    action_raw: np.ndarray
    action_retrained: np.ndarray
    transfer_reference: np.ndarray
    transfer_retrained: np.ndarray
    fidelity: np.ndarray
    frechet: np.ndarray
    training: Mapping[str, Any]
    validation: Mapping[str, float]
    learning: str
    inversion: Mapping[str, Any]
    fitting: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, str]]
    outputs: tuple[Output, ...]
    cost: Mapping[str, float]
