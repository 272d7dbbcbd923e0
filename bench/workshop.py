"""The stages that jobs on one data set share: normalised clips, fitted anonymizers, releases, models, predictions, fidelity.

A grid computes each once: the raw-trained attackers and action classifiers, one release for every attacker.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache, partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bench import classifiers
from bench.anonymizer import Examples, anonymize, refuse_chance, release_labels, secretly
from bench.attacker import refuse_all_but_probabilities
from bench.data import normalisation
from bench.data.clips import ClipSet, load_rows
from bench.data.store import ClipStore, ClipWriter
from bench.execution import describe
from bench.files import digest
from bench.jobs import Prediction, Release, Training, Unit
from bench.metrics.geometry import fidelity
from bench.presets import Preset, TrainingConfig
from bench.protocols import ACTION, LINKAGE, Part, Protocol, ProtocolError, anonymizer_part, hold_out, instantiate
from bench.specs import Spec
from bench.stages import MissingStageError, Output, StageStore
from bench.threat import Learning
from bench.training import Progress

# Raised whenever a stage's code would give another output for the same inputs.
VERSIONS = {
    "normalise": 1,
    "fit": 2,
    "release": 1,
    "invert": 1,
    "restore": 1,
    "train": 4,
    "predict": 2,
    "fidelity": 2,
    "embed": 1,
    "choose": 4,  # among an attacker's models: no stage of its own
}
NORMALISATION = "view"
_BATCH = 64  # clips whose poses are compared at a time

Step = Callable[[str], AbstractContextManager[Progress]]


def unit(method: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a method of a `Workshop` as work that can be done apart: where it may not compute, what is missing names it."""

    @wraps(method)
    def run(self: "Workshop", *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except MissingStageError as missing:  # the innermost one names it: it comes first
            mine = Unit(method.__name__, arguments)
            raise MissingStageError({key: known or mine for key, known in missing.stages.items()}) from None

    return run


class Workshop:
    """Makes the stages of one data set under one protocol and preset.

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
        self.stages.made_on = describe(device, preset.attack.precision)
        self.device = device
        self._step = step
        self._source = store
        self._part: dict[str, Part] = {}
        self._rows = lru_cache(maxsize=2)(partial(load_rows, device=device))

    # Data

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The part of every target that the data set supports."""
        found = {}
        for target in self.protocol.splits:
            with contextlib.suppress(ProtocolError):
                found[target] = self.part(target)
        return found

    def part(self, target: str) -> Part:
        """The protocol's part for a target.

        Raises:
            ProtocolError: if the data cannot support it.
        """
        if target not in self._part:
            self._part[target] = instantiate(self.protocol, target, self._source.labels, self.dataset)
        return self._part[target]

    @cached_property
    def clip_names(self) -> np.ndarray:
        return self._source.labels["clip"].to_numpy(dtype=str)

    @property
    def dataset(self) -> str:
        """Name of the data set, with the parameters that generated it."""
        return self._source.meta["dataset"]

    @property
    def labels(self) -> Any:
        """The table of labels (pandas)."""
        return self._source.labels

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the source's `meta.json` says."""
        return self._source.meta

    @cached_property
    def normalised(self) -> ClipStore:
        """Clip store of the normalised clips."""
        return ClipStore.open(self.normalise().path / "clips")

    @cached_property
    def rules(self) -> Mapping[str, Any]:
        """What a record states about the protocol."""
        return self.protocol.describe()

    @property
    def fingerprint(self) -> str:
        return self._source.fingerprint

    @unit
    def normalise(self) -> Output:
        """The clips as all others see them."""

        def compute(folder: Path) -> Mapping[str, Any]:
            meta = {"dataset": self.dataset, "frame_rate": self._source.meta["frame_rate"], "normalisation": NORMALISATION}
            with self._step(f"normalise {self.dataset}"), ClipWriter(folder / "clips", self._source.layout, meta) as writer:
                normalisation.normalise_store(self._source, writer, NORMALISATION)
            normalised = ClipStore.open(folder / "clips")
            return {"rows": rows_digest(normalised.rows, normalised.index)}

        inputs = {"data": self.fingerprint, **self.normalisation}
        return self.stages.run("normalise", VERSIONS["normalise"], inputs, compute)

    @cached_property
    def _clips(self) -> ClipSet:
        return ClipSet.from_store(self.normalised, self.device)

    def clips(self, release: Release) -> ClipSet:
        """All clips of the data set as `release` shows them."""
        return self._clips if release == self.raw else self._clips.with_rows(self._rows(release.path))

    @cached_property
    def raw(self) -> Release:
        """The normalised clips, as they are without an anonymizer."""
        normalised = self.normalise()
        return Release(normalised.path / "clips" / "frames.npy", normalised.info["rows"])

    # Stages

    @unit
    def fit(self, anonymizer: Spec, seed: int) -> Output:
        """What the anonymizer learns from the clips that no target tests."""
        if anonymizer.value.learns_as:
            return self.fit(anonymizer.value.learns_as, seed)
        part = anonymizer_part(self.parts)
        value = anonymizer.value

        def compute(folder: Path) -> Mapping[str, Any]:
            parts = {target: whole.restricted(part) for target, whole in self.parts.items() if target != LINKAGE}
            with self._step(f"fit {anonymizer}") as report:
                clips, index = self.clips(self.raw).subset(part), self.normalised.index
                released = {
                    "release_frames": int((index[:, 1] * index[:, 2]).max()),
                    "release_clips": int(self.labels["subject"].value_counts().max()),
                }
                fitted = value.fit(Examples(clips, parts, self.preset, seed, report, **released, folder=folder))
            save_file({name: tensor.contiguous().cpu() for name, tensor in fitted.state.items()}, folder / "state.safetensors")
            return fitted.info

        inputs: dict[str, Any] = {"anonymizer": anonymizer.describe()}
        if value.learns:
            labels = {target: part.digest for target, part in self.parts.items()}
            inputs |= {"clips": self.raw.content, "part": digest(part.tolist()), "labels": labels, "seed": seed}
            inputs |= {"budget": dict(value.budget(self.preset)), "layout": self._source.meta["layout"], **self._recording}
        return self.stages.run("fit", VERSIONS["fit"], inputs, compute)

    @unit
    def release(self, anonymizer: Spec, seed: int, draw: str, reader: Spec | None = None) -> Release:
        """Every clip of the data set, anonymized with the randomness of `draw` ("holder/0", "attacker/0").

        Args:
            reader: The attacker whose secret goes into it.
        """
        fitted, labels = self.fit(anonymizer, seed), release_labels(self.parts[ACTION])
        secret = reader.value.secret if reader else ""

        def compute(folder: Path) -> Mapping[str, Any]:
            state = load_file(fitted.path / "state.safetensors", device=str(self.device))
            with self._step(f"release {anonymizer} ({draw})"):
                clips = self.clips(self.raw)
                how = {"seed": seed, "draw": secretly(draw, secret), "labels": labels}
                refuse_chance(anonymizer.value, state, clips, **how)
                rows = anonymize(anonymizer.value, state, clips, **how).cpu().numpy()
                anonymizer.value.close()
            np.save(folder / "frames.npy", rows)
            return {"rows": rows_digest(rows, self.normalised.index)}

        inputs: dict[str, Any] = {"anonymizer": anonymizer.describe(), "fitted": fitted.content, "clips": self.raw.content}
        inputs["frame_rate"] = self.meta["frame_rate"]
        if anonymizer.value.stochastic:
            inputs |= {"seed": seed, "draw": draw, "names": digest(self.clip_names.tolist())}
            inputs |= {"secret": digest(secret)} if secret else {}
        if anonymizer.value.uses:
            inputs["labels"] = {name: digest(labels[name].tolist()) for name in anonymizer.value.uses}
        output = self.stages.run("release", VERSIONS["release"], inputs, compute)
        return Release(output.path / "frames.npy", output.info["rows"], output.seconds)

    @property
    def _recording(self) -> dict[str, Any]:
        """What an anonymizer may see of clips besides their coordinates: names, set-ups and cameras, and the frame rate."""
        return {"data": self.fingerprint, "frame_rate": self.meta["frame_rate"]}

    @unit
    def train(self, training: Training) -> Output:
        """A trained attacker or action classifier."""
        attacker, seed, part = training.attacker, training.seed, self._part_of(training)

        def compute(folder: Path) -> Mapping[str, Any]:
            clips = self.clips(training.release)
            start = training.start and self.train(training.start).path  # before the step: it is one of its own
            with self._step(str(training)) as report:
                if not attacker:
                    backbone, config = self._utility
                    return classifiers.fit_classifier(backbone, clips, part, config, folder, seed=seed, progress=report)
                common = {"seed": seed, "progress": report}
                if training.learning == Learning.REFIT:
                    return attacker.value.refit(clips, part, self.preset, folder, start=start, **common)
                if training.learning == Learning.FINE_TUNE:
                    return attacker.value.fine_tune(clips, part, self.preset, folder, start=start, **common)
                return attacker.value.fit(clips, part, self.preset, folder, **common)

        return self.stages.run("train", VERSIONS["train"], self._training_inputs(training), compute)

    def _part_of(self, training: Training) -> Part:
        part = self.part(training.attacker.value.target if training.attacker else ACTION)
        return hold_out(part) if training.rehearsal else part

    def _training_inputs(self, training: Training) -> dict[str, Any]:
        start = training.start and {"learning": training.learning, "start": self._training_inputs(training.start)}
        return {
            **(start or {}),
            **self._who(training.attacker),
            "part": self._part_of(training).digest,
            "clips": training.release.content,
            "layout": self._source.meta["layout"],
            "seed": training.seed,
        }

    def _who(self, attacker: Spec | None) -> dict[str, Any]:
        """Who attacks, or measures utility, and under which budget: a part of the address of its stages."""
        if attacker:
            budget = dict(attacker.value.budget(self.preset))
            if attacker.value.control:  # reads labels of the recording, which clips do not show
                budget["data"] = self.fingerprint
            return {"attacker": attacker.describe(), "backbone": attacker_backbone(attacker), "training": budget}
        backbone, config = self._utility
        return {"utility": classifiers.describe(backbone), "training": dataclasses.asdict(config)}

    @cached_property
    def _utility(self) -> tuple[str, TrainingConfig]:
        """Backbone of the action classifiers, and the budget as it holds for it."""
        backbone = self.preset.utility_backbone
        return backbone, classifiers.config_for(backbone, self.preset.utility)

    def backbones(self, attacker: Spec) -> dict[str, Any]:
        """The networks that a record with this attacker rests on, with their providers and code versions."""
        return {"utility": classifiers.describe(self.preset.utility_backbone), "attacker": attacker_backbone(attacker)}

    @property
    def normalisation(self) -> dict[str, Any]:
        """How clips are normalised."""
        return {"method": NORMALISATION, "code": normalisation.VERSION}

    def predict(
        self,
        attacker: Spec | None,
        trained: Output,
        release: Release,
        *,
        side: str = "test",
        enrolled: Release | None = None,
        part: Part | None = None,
    ) -> Prediction:
        """What an attacker, or an action classifier, says of a release.

        Args:
            attacker: Who; None for an action classifier.
            trained: Its model.
            release: Clips to name, or probes to link.
            side: "test" or "validation".
            enrolled: Clips that probes are linked with; needed for linkage, otherwise unused.
            part: Who is asked; the protocol's part for the target by default.
        """
        part = part or self.part(attacker.value.target if attacker else ACTION)
        pairs = part.pairs_asked(side)
        indices = part.asked(side)
        shape = (len(pairs),) if pairs else (len(indices), len(part.classes))

        def compute(folder: Path) -> None:
            clips = self.clips(release)
            if not attacker:
                scores = classifiers.classifier_scores(self._utility[0], clips, indices, part, self._utility[1], trained.path)
            elif pairs:
                reference = self.clips(enrolled)
                scores = attacker.value.pair_scores(reference, clips, pairs.clips, part, self.preset, trained.path)
            else:
                scores = attacker.value.scores(clips, indices, part, self.preset, trained.path)
            if scores.shape != shape or not np.isfinite(scores).all():
                raise ValueError(f"expected finite scores of shape {shape}, got {scores.shape}")
            if not pairs:
                refuse_all_but_probabilities(scores)
            np.save(folder / "scores.npy", scores.astype(np.float32))

        inputs = {
            **self._who(attacker),
            "model": trained.key,  # not its content: a stored model may hold more than its numbers, such as times
            "clips": release.content,
            **({"enrolled": enrolled.content} if pairs else {}),
            "part": part.digest,
            side: part.side_digest(side),
        }
        output = self.stages.run("predict", VERSIONS["predict"], inputs, compute)
        return Prediction(np.load(output.path / "scores.npy", allow_pickle=False), output)

    def embed(self, trained: Output, release: Release) -> tuple[np.ndarray, Output]:
        """(m, E) float32 the action test clips as an action classifier sees them before it names them, and the stage."""
        part, (backbone, config) = self.part(ACTION), self._utility

        def compute(folder: Path) -> None:
            found = classifiers.classifier_embeddings(backbone, self.clips(release), part.test, part, config, trained.path)
            np.save(folder / "embeddings.npy", found)

        inputs = {**self._who(None), "model": trained.key, "clips": release.content, "part": part.digest}
        inputs["test"] = part.side_digest("test")
        output = self.stages.run("embed", VERSIONS["embed"], inputs, compute)
        return np.load(output.path / "embeddings.npy", allow_pickle=False), output

    def fidelity(self, release: Release) -> tuple[np.ndarray, Output]:
        """(m, F) how far the poses of the action test clips are from the raw ones, in the order of `MEASURES`, and the stage."""
        indices = self.part(ACTION).test

        def compute(folder: Path) -> None:
            raw, released = self.clips(self.raw), self.clips(release)
            parts = torch.as_tensor(indices, device=self.device).split(_BATCH)
            found = [fidelity(raw.whole(part), released.whole(part), raw.layout, raw.frame_rate) for part in parts]
            np.save(folder / "fidelity.npy", torch.cat(found).cpu().numpy())

        inputs = {"raw": self.raw.content, "clips": release.content, "test": self.part(ACTION).side_digest("test")}
        inputs |= {"layout": self._source.meta["layout"], "frame_rate": self.meta["frame_rate"]}
        output = self.stages.run("fidelity", VERSIONS["fidelity"], inputs, compute)
        return np.load(output.path / "fidelity.npy", allow_pickle=False), output


def attacker_backbone(attacker: Spec) -> dict[str, Any] | None:
    """What a record states about the network of a neural attacker; None for one without.

    Raises:
        LookupError: if there is no such backbone.
        ImportError: if it cannot be loaded.
    """
    name = attacker.parameters.get("backbone")
    return classifiers.describe(name) if name else None


def rows_digest(rows: np.ndarray, index: np.ndarray) -> str:
    """Digest of coordinates and of which clip they belong to."""
    found = hashlib.sha256(np.ascontiguousarray(rows))
    found.update(np.ascontiguousarray(index))
    return found.hexdigest()[:16]
