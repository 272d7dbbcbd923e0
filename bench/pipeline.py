"""One pair, end to end: prepare, fit the anonymizer, release, train, predict, record.

Each step is a stage of the store, so a grid computes what its pairs share once: the raw-trained attackers and action classifiers,
one release for every attacker.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bench import classifiers
from bench.anonymizer import anonymize
from bench.data import normalisation
from bench.data.clips import ClipSet
from bench.data.store import ClipStore, ClipWriter
from bench.files import digest
from bench.presets import Preset
from bench.protocols import ACTION, Part, Protocol, ProtocolError, anonymizer_part, instantiate
from bench.specs import Spec
from bench.stages import Output, StageStore
from bench.threat import Threat
from bench.training import Progress

# Raised whenever a stage's code would give another output for the same inputs.
VERSIONS = {"normalise": 1, "fit": 1, "release": 1, "train": 1, "predict": 1}
NORMALISATION = "view"

Step = Callable[[str], AbstractContextManager[Progress]]


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
    """

    path: Path
    content: str


@dataclass(frozen=True)
class Training:
    """One model to train.

    Args:
        attacker: Who learns; None for the action classifier that measures utility.
        release: What it learns from.
        seed: Seed of the training.
        seen: The release in words.
    """

    attacker: Spec | None
    release: Release
    seed: int
    seen: str

    def __str__(self) -> str:
        return f"train {self.attacker or 'action classifier'} on {self.seen}"

    @property
    def key(self) -> tuple[str, str, int]:
        """Equal for equal models: what they are called and where their clips lie do not matter."""
        return self.attacker.digest if self.attacker else "", self.release.content, self.seed


@dataclass(frozen=True)
class Prediction:
    """Class probabilities (n, K) float32 of the test clips of one part, and the stage they came from."""

    scores: np.ndarray
    stage: Output


@dataclass(frozen=True)
class Outcome:
    """All predictions of one job.

    Args:
        attack: The attacker's scores on the released test clips.
        action_reference: Raw-trained action classifier on raw clips.
        action_raw: Raw-trained action classifier on released clips.
        action_retrained: Action classifier trained on released clips, on released clips.
        training: What the attacker reported about its training.
        stages: Name to key, and content where it is compared, of every stage this rests on.
        outputs: The trained models and predictions this rests on.
    """

    attack: np.ndarray
    action_reference: np.ndarray
    action_raw: np.ndarray
    action_retrained: np.ndarray
    training: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, str]]
    outputs: tuple[Output, ...]


class Bench:
    """Evaluates jobs on one data set under one protocol and preset.

    Args:
        store: Clip store of the data set.
        protocol: How it is split.
        preset: Budget.
        stages: Where finished stages lie.
        device: Where to compute.
        step: Context manager factory that shows one piece of work to people.
    """

    def __init__(
        self,
        store: ClipStore,
        protocol: Protocol,
        preset: Preset,
        stages: StageStore,
        device: torch.device,
        step: Step,
    ):
        self.protocol = protocol
        self.preset = preset
        self.stages = stages
        self.device = device
        self._step = step
        self._source = store
        self._rows = lru_cache(maxsize=2)(self._load_rows)

    # Data

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The part of every target that the data set supports."""
        found = {}
        for target in self.protocol.splits:
            with contextlib.suppress(ProtocolError):
                found[target] = self.part(target)
        return found

    @cache  # noqa: B019 - a Bench lives as long as its process
    def part(self, target: str) -> Part:
        """The protocol's part for a target.

        Raises:
            ProtocolError: if the data cannot support it.
        """
        return instantiate(self.protocol, target, self._source.labels, self.dataset)

    @cached_property
    def clip_names(self) -> np.ndarray:
        return self._source.labels["clip"].to_numpy(dtype=str)

    @property
    def dataset(self) -> str:
        """Name of the data set, with the parameters that generated it."""
        return self._source.meta["dataset"]

    @property
    def fingerprint(self) -> str:
        return self._source.fingerprint

    @cached_property
    def _normalised(self) -> Output:
        def compute(folder: Path) -> Mapping[str, Any]:
            meta = {"dataset": self.dataset, "frame_rate": self._source.meta["frame_rate"], "normalisation": NORMALISATION}
            with self._step(f"normalise {self.dataset}"), ClipWriter(folder / "clips", self._source.layout, meta) as writer:
                normalisation.normalise_store(self._source, writer, NORMALISATION)
            normalised = ClipStore.open(folder / "clips")
            return {"rows": _rows_digest(normalised.rows, normalised.index)}

        inputs = {"data": self.fingerprint, **self.normalisation}
        return self.stages.run("normalise", VERSIONS["normalise"], inputs, compute)

    @cached_property
    def _clips(self) -> ClipSet:
        return ClipSet.from_store(ClipStore.open(self._normalised.path / "clips"), self.device)

    @property
    def _index(self) -> np.ndarray:
        return ClipStore.open(self._normalised.path / "clips").index

    def _load_rows(self, path: Path) -> torch.Tensor:
        # Copy on write: on a CPU the rows stay on disk until they are read, and are never copied.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False)).to(self.device)

    def clips(self, release: Release) -> ClipSet:
        """All clips of the data set as `release` shows them."""
        return self._clips if release == self.raw else self._clips.with_rows(self._rows(release.path))

    @property
    def raw(self) -> Release:
        """The normalised clips, as they are without an anonymizer."""
        return Release(self._normalised.path / "clips" / "frames.npy", self._normalised.info["rows"])

    # Stages

    def fit(self, anonymizer: Spec, seed: int) -> Output:
        """What the anonymizer learns from the clips that no target tests."""
        part = anonymizer_part(self.parts)
        value = anonymizer.value

        def compute(folder: Path) -> None:
            clips = self.clips(self.raw).subset(part)
            labels = {t: torch.from_numpy(self.parts[t].labels[part]).to(self.device) for t in self.parts}
            with self._step(f"fit {anonymizer}"):
                state = value.fit(clips, labels, torch.Generator(self.device).manual_seed(seed))
            save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, folder / "state.safetensors")

        inputs: dict[str, Any] = {"anonymizer": anonymizer.describe()}
        if value.learns:
            labels = {target: part.digest for target, part in self.parts.items()}
            inputs |= {"clips": self.raw.content, "part": digest(part.tolist()), "labels": labels, "seed": seed}
        return self.stages.run("fit", VERSIONS["fit"], inputs, compute)

    def release(self, anonymizer: Spec, seed: int, draw: str) -> Release:
        """Every clip of the data set, anonymized with the randomness of `draw` ("holder/0", "attacker/0")."""
        fitted = self.fit(anonymizer, seed)

        def compute(folder: Path) -> Mapping[str, Any]:
            state = load_file(fitted.path / "state.safetensors", device=str(self.device))
            with self._step(f"release {anonymizer} ({draw})"):
                rows = anonymize(anonymizer.value, state, self.clips(self.raw), seed=seed, draw=draw).cpu().numpy()
            np.save(folder / "frames.npy", rows)
            return {"rows": _rows_digest(rows, self._index)}

        inputs: dict[str, Any] = {"anonymizer": anonymizer.describe(), "fitted": fitted.content, "clips": self.raw.content}
        if anonymizer.value.stochastic:
            inputs |= {"seed": seed, "draw": draw, "names": digest(self.clip_names.tolist())}
        output = self.stages.run("release", VERSIONS["release"], inputs, compute)
        return Release(output.path / "frames.npy", output.info["rows"])

    def trainings(self, job: Job) -> list[Training]:
        """The models that a job rests on: attacker, raw-trained and retrained action classifier; makes their releases."""
        seed, anonymized = job.seed, f"clips anonymized by {job.anonymizer}"
        holder = self.release(job.anonymizer, seed, "holder/0")
        attacker = Training(job.attacker, self.raw, seed, "raw clips")
        if job.threat.anonymizes:
            attacker = Training(job.attacker, self.release(job.anonymizer, seed, "attacker/0"), seed, anonymized)
        return [attacker, Training(None, self.raw, seed, "raw clips"), Training(None, holder, seed, anonymized)]

    def train(self, training: Training) -> Output:
        """A trained attacker or action classifier."""
        attacker, seed = training.attacker, training.seed
        part = self.part(attacker.value.target if attacker else ACTION)

        def compute(folder: Path) -> Mapping[str, Any]:
            clips = self.clips(training.release)
            with self._step(str(training)) as report:
                if attacker:
                    return attacker.value.fit(clips, part, self.preset, folder, seed=seed, progress=report)
                backbone, config = self.preset.utility_backbone, self.preset.utility
                return classifiers.fit_classifier(backbone, clips, part, config, folder, seed=seed, progress=report)

        return self.stages.run("train", VERSIONS["train"], self._training_inputs(training), compute)

    def is_trained(self, training: Training) -> bool:
        """Whether the model is there already."""
        return self.stages.has("train", VERSIONS["train"], self._training_inputs(training))

    def _training_inputs(self, training: Training) -> dict[str, Any]:
        return {
            **self._who(training.attacker),
            "part": self.part(training.attacker.value.target if training.attacker else ACTION).digest,
            "clips": training.release.content,
            "layout": self._source.meta["layout"],
            "seed": training.seed,
        }

    def _who(self, attacker: Spec | None) -> dict[str, Any]:
        """Who attacks, or measures utility, and under which budget: a part of the address of its stages."""
        if attacker:
            training = dataclasses.asdict(self.preset.attack)
            return {"attacker": attacker.describe(), "backbone": attacker_backbone(attacker), "training": training}
        utility = classifiers.describe(self.preset.utility_backbone)
        return {"utility": utility, "training": dataclasses.asdict(self.preset.utility)}

    def backbones(self, attacker: Spec) -> dict[str, Any]:
        """The networks that a record with this attacker rests on, with their providers and code versions."""
        return {"utility": classifiers.describe(self.preset.utility_backbone), "attacker": attacker_backbone(attacker)}

    @property
    def normalisation(self) -> dict[str, Any]:
        """How clips are normalised."""
        return {"method": NORMALISATION, "code": normalisation.VERSION}

    def predict(self, attacker: Spec | None, trained: Output, release: Release) -> Prediction:
        """Scores of an attacker, or of an action classifier, on the test clips of a release."""
        part = self.part(attacker.value.target if attacker else ACTION)

        def compute(folder: Path) -> None:
            clips = self.clips(release)
            if attacker:
                scores = attacker.value.scores(clips, part.test, part, self.preset, trained.path)
            else:
                backbone, config = self.preset.utility_backbone, self.preset.utility
                scores = classifiers.classifier_scores(backbone, clips, part.test, part, config, trained.path)
            if scores.shape != (len(part.test), len(part.classes)) or not np.isfinite(scores).all():
                raise ValueError(f"expected finite scores of shape {(len(part.test), len(part.classes))}, got {scores.shape}")
            np.save(folder / "scores.npy", scores.astype(np.float32))

        inputs = {
            **self._who(attacker),
            "model": trained.key,  # not its content: a stored model may hold more than its numbers, such as times
            "clips": release.content,
            "part": part.digest,
            "test": digest(part.test.tolist()),
        }
        output = self.stages.run("predict", VERSIONS["predict"], inputs, compute)
        return Prediction(np.load(output.path / "scores.npy", allow_pickle=False), output)

    # Jobs

    def evaluate(self, job: Job) -> Outcome:
        """Computes, or finds, all that one record rests on."""
        trained, raw_model, retrained_model = (self.train(training) for training in self.trainings(job))
        holder = self.release(job.anonymizer, job.seed, "holder/0")
        predictions = {
            "attack": self.predict(job.attacker, trained, holder),
            "action_reference": self.predict(None, raw_model, self.raw),
            "action_raw": self.predict(None, raw_model, holder),
            "action_retrained": self.predict(None, retrained_model, holder),
        }
        models = {
            "fit": self.fit(job.anonymizer, job.seed),
            "attacker": trained,
            "utility_raw": raw_model,
            "utility_retrained": retrained_model,
        }
        return Outcome(
            **{which: prediction.scores for which, prediction in predictions.items()},
            training=trained.info,
            stages={
                "release": {"content": holder.content},
                **{which: {"key": output.key} for which, output in models.items()},
                **{which: {"key": p.stage.key, "content": p.stage.content} for which, p in predictions.items()},
            },
            outputs=(*models.values(), *(p.stage for p in predictions.values())),
        )


def attacker_backbone(attacker: Spec) -> dict[str, Any] | None:
    """What a record states about the network of a neural attacker; None for one without.

    Raises:
        LookupError: if there is no such backbone.
        ImportError: if it cannot be loaded.
    """
    name = attacker.parameters.get("backbone")
    return classifiers.describe(name) if name else None


def _rows_digest(rows: np.ndarray, index: np.ndarray) -> str:
    """Digest of coordinates and of which clip they belong to."""
    found = hashlib.sha256(np.ascontiguousarray(rows))
    found.update(np.ascontiguousarray(index))
    return found.hexdigest()[:16]
