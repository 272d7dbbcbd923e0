"""One pair, end to end: prepare, fit the anonymizer, release, train, predict, record.

Each step is a stage of the store, so a grid computes what its pairs share once: the raw-trained attackers and action classifiers,
one release for every attacker.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cache, cached_property, lru_cache, partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bench import classifiers
from bench.anonymizer import Examples, anonymize, release_labels
from bench.data import normalisation
from bench.data.clips import ClipSet, load_rows
from bench.data.store import ClipStore, ClipWriter
from bench.execution import describe
from bench.files import digest
from bench.jobs import Attack, Job, Outcome, Prediction, Release, Training, Unit, drawn
from bench.metrics.geometry import fidelity
from bench.presets import Preset, TrainingConfig
from bench.protocols import ACTION, LINKAGE, Part, Protocol, ProtocolError, anonymizer_part, hold_out, instantiate
from bench.registry import ATTACKERS, INVERTERS
from bench.specs import Spec, parse_spec
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
    "choose": 3,  # among an attacker's models: no stage of its own
}
NORMALISATION = "view"
_BATCH = 64  # clips whose poses are compared at a time

Step = Callable[[str], AbstractContextManager[Progress]]


def _unit(method: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a method of `Bench` as work that can be done apart: where it may not compute, what is missing names it."""

    @wraps(method)
    def run(self: "Bench", *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except MissingStageError as missing:  # the innermost one names it: it comes first
            mine = Unit(method.__name__, arguments)
            raise MissingStageError({key: unit or mine for key, unit in missing.stages.items()}) from None

    return run


def _each(steps: Iterable[Callable[[], Any]]) -> None:
    """Takes every step; if stages are missing, all that are missing for them are told at once."""
    missing: dict[str, Any] = {}
    for step in steps:
        try:
            step()
        except MissingStageError as error:
            missing = error.stages | missing  # whoever asks first names it
    if missing:
        raise MissingStageError(missing)


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
        self.stages.made_on = describe(device, preset.attack.precision)
        self.device = device
        self._step = step
        self._source = store
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

    @_unit
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

    @_unit
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

    @_unit
    def release(self, anonymizer: Spec, seed: int, draw: str) -> Release:
        """Every clip of the data set, anonymized with the randomness of `draw` ("holder/0", "attacker/0")."""
        fitted, labels = self.fit(anonymizer, seed), release_labels(self.parts[ACTION])

        def compute(folder: Path) -> Mapping[str, Any]:
            state = load_file(fitted.path / "state.safetensors", device=str(self.device))
            with self._step(f"release {anonymizer} ({draw})"):
                clips = self.clips(self.raw)
                rows = anonymize(anonymizer.value, state, clips, seed=seed, draw=draw, labels=labels).cpu().numpy()
            np.save(folder / "frames.npy", rows)
            return {"rows": rows_digest(rows, self.normalised.index)}

        inputs: dict[str, Any] = {"anonymizer": anonymizer.describe(), "fitted": fitted.content, "clips": self.raw.content}
        inputs["frame_rate"] = self.meta["frame_rate"]
        if anonymizer.value.stochastic:
            inputs |= {"seed": seed, "draw": draw, "names": digest(self.clip_names.tolist())}
        if anonymizer.value.uses:
            inputs["labels"] = {name: digest(labels[name].tolist()) for name in anonymizer.value.uses}
        output = self.stages.run("release", VERSIONS["release"], inputs, compute)
        return Release(output.path / "frames.npy", output.info["rows"], output.seconds)

    @property
    def _recording(self) -> dict[str, Any]:
        """What an anonymizer may see of clips besides their coordinates: names, set-ups and cameras, and the frame rate."""
        return {"data": self.fingerprint, "frame_rate": self.meta["frame_rate"]}

    def releases(self, job: Job) -> list[Release]:
        """The clips as the holder releases them: of a random anonymizer as often as the preset asks for."""
        return [self.release(job.anonymizer, job.seed, f"holder/{draw}") for draw in range(self.draws(job))]

    def draws(self, job: Job) -> int:
        """How many releases the attacker is tried on."""
        return self.preset.draws if job.anonymizer.value.stochastic and not job.attacker.value.first_draw_only else 1

    def own_release(self, job: Job) -> Release:
        """The clips as the attacker anonymizes them itself."""
        return self.release(job.anonymizer, job.seed, "attacker/0")

    def attack_trainings(self, job: Job) -> list[Training]:
        """The models among which the attacker chooses; makes the releases they learn from.

        Where the anonymizer changes nothing there is nothing to adapt to, and the raw-trained model is the only one.
        """
        raw = Training(job.attacker, self.raw, job.seed, "raw clips", learning=Learning.RAW)
        own = self.raw if job.threat.learnings == (Learning.RAW,) else self.own_release(job)
        if own.content == self.raw.content:
            return [raw]
        scratch = Training(job.attacker, own, job.seed, f"clips anonymized by {job.anonymizer}")
        if not job.attacker.value.learns_representation:
            return [scratch, raw] if Learning.RAW in job.threat.learnings else [scratch]
        alone = {Learning.SCRATCH: scratch, Learning.RAW: raw}
        return [
            alone.get(learning) or dataclasses.replace(scratch, start=raw, learning=learning) for learning in job.threat.learnings
        ]

    def rehearsals(self, job: Job) -> list[Training]:
        """The models by which the attacker chooses, where those that it chooses among have learnt from its validation clips."""
        trainings = self.attack_trainings(job)
        if len(trainings) == 1 or not job.attacker.value.learns_validation:
            return []
        return [dataclasses.replace(training, rehearsal=True) for training in trainings]

    def utility_trainings(self, job: Job) -> list[Training]:
        """The raw-trained and the retrained action classifier, then the same two of another kind."""
        holder = self.release(job.anonymizer, job.seed, "holder/0")  # the consumer learns from one release, and meets others
        shown = ((self.raw, "raw clips"), (holder, f"clips anonymized by {job.anonymizer}"))
        return [Training(who, release, job.seed, seen) for who in (None, self._transfer) for release, seen in shown]

    @_unit
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
        pairs = part.pairs if side == "test" else part.validation_pairs
        indices = part.test if side == "test" else part.validation
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

    @_unit
    def invert(self, job: Job) -> tuple[list[Release], Output]:
        """The holder's releases as the attacker restores them, and the model that does so."""
        own, part = self.own_release(job), self.part(job.target)
        inverter, name = self._inverter, f"clips anonymized by {job.anonymizer}"

        def fit(folder: Path) -> Mapping[str, Any]:
            with self._step(f"learn to invert {name}") as report:
                clips = self.clips(own), self.clips(self.raw)
                return inverter.value.fit(*clips, part, self.preset, folder, seed=job.seed, progress=report)

        who = {"inverter": inverter.describe(), "training": dict(inverter.value.budget(self.preset))}
        inputs = {**who, "part": part.digest, "clips": own.content, "raw": self.raw.content, "seed": job.seed}
        inputs["layout"] = self._source.meta["layout"]
        fitted = self.stages.run("invert", VERSIONS["invert"], inputs, fit)

        def restore(holder: Release, folder: Path) -> Mapping[str, Any]:
            with self._step(f"restore {name}"):
                rows = inverter.value.restore(self.clips(holder), self.preset, fitted.path).cpu().numpy()
            np.save(folder / "frames.npy", rows)
            return {"rows": rows_digest(rows, self.normalised.index)}

        restored = []
        for holder in self.releases(job):
            inputs = {"model": fitted.key, "clips": holder.content}
            output = self.stages.run("restore", VERSIONS["restore"], inputs, partial(restore, holder))
            restored.append(Release(output.path / "frames.npy", output.info["rows"]))
        return restored, fitted

    @property
    def inverter(self) -> dict[str, Any]:
        """What a record states about the network that undoes anonymizers, and its budget."""
        return {**self._inverter.describe(), "budget": dict(self._inverter.value.budget(self.preset))}

    @cached_property
    def _inverter(self) -> Spec:
        return parse_spec(self.preset.inverter, INVERTERS)

    @cached_property
    def _transfer(self) -> Spec:
        return parse_spec(self.preset.transfer, ATTACKERS)

    def fidelity(self, release: Release) -> np.ndarray:
        """(m, F) how far the poses of the action test clips are from the raw ones, in the order of `MEASURES`."""
        indices = self.part(ACTION).test

        def compute(folder: Path) -> None:
            raw, released = self.clips(self.raw), self.clips(release)
            parts = torch.as_tensor(indices, device=self.device).split(_BATCH)
            found = [fidelity(raw.whole(part), released.whole(part), raw.layout, raw.frame_rate) for part in parts]
            np.save(folder / "fidelity.npy", torch.cat(found).cpu().numpy())

        inputs = {"raw": self.raw.content, "clips": release.content, "test": self.part(ACTION).side_digest("test")}
        inputs |= {"layout": self._source.meta["layout"], "frame_rate": self.meta["frame_rate"]}
        output = self.stages.run("fidelity", VERSIONS["fidelity"], inputs, compute)
        return np.load(output.path / "fidelity.npy", allow_pickle=False)

    # Jobs

    def _choose(self, job: Job, trained: Mapping[str, Output]) -> tuple[str, dict[str, float]]:
        """The learning whose model does best on the attacker's own validation part, and how well each does.

        A model that learnt from that part is judged by one that learnt in the same way from the other training clips.
        """
        if len(trained) == 1:
            return next(iter(trained)), {}
        own, part, side, judged = self.own_release(job), self.part(job.target), "validation", dict(trained)
        if job.attacker.value.learns_validation:
            judged = {training.learning: self.train(training) for training in self.rehearsals(job)}
            part, side = hold_out(part), "test"
        quality = {}
        for learning, model in judged.items():
            scores = self.predict(job.attacker, model, own, side=side, enrolled=own, part=part).scores
            quality[learning] = part.quality(scores, side)
        return max(quality, key=quality.__getitem__), quality  # of equals the first

    def prepare(self, job: Job) -> None:
        """Makes all that takes long and may serve others as well: releases, models, what an inverter restores."""

        def models(trainings: Callable[[Job], list[Training]]) -> None:
            _each([partial(self._train_after_start, training) for training in trainings(job)])

        _each(
            [
                *(partial(models, which) for which in (self.attack_trainings, self.rehearsals, self.utility_trainings)),
                partial(self.probes, job),
            ]
        )

    def _train_after_start(self, training: Training) -> None:
        """As `train`, but the model that it goes on from is a piece of work of its own, and comes first."""
        if training.start:
            self.train(training.start)
        self.train(training)

    def probes(self, job: Job) -> tuple[list[Release], Output | None]:
        """What the attacker looks at: the holder's releases, or what an inverter restores of them, and that inverter."""
        holder = self.releases(job)
        changed = any(release.content != self.raw.content for release in holder)
        return self.invert(job) if job.threat.inverts and changed else (holder, None)

    def attack(self, job: Job) -> Attack:
        """Trains the attacker as its threat level has it, and has it read the holder's releases."""
        trained = {training.learning: self.train(training) for training in self.attack_trainings(job)}
        learning, validation = self._choose(job, trained)
        probes, inverter = self.probes(job)
        enrolled = self.raw if job.threat.enrols_raw else self.own_release(job)
        found = tuple(self.predict(job.attacker, trained[learning], release, enrolled=enrolled) for release in probes)
        return Attack(found, trained[learning], learning, validation, inverter)

    def evaluate(self, job: Job) -> Outcome:
        """Computes, or finds, all that one record rests on."""
        attack = self.attack(job)
        raw_model, retrained_model, *transfer = (self.train(training) for training in self.utility_trainings(job))
        holder = self.releases(job)
        of_draws = {
            "attack": attack.predictions,
            "action_raw": [self.predict(None, raw_model, release) for release in holder],
            "action_retrained": [self.predict(None, retrained_model, release) for release in holder],
            "transfer_retrained": [self.predict(self._transfer, transfer[1], release) for release in holder],
        }
        references = {
            "action_reference": self.predict(None, raw_model, self.raw),
            "transfer_reference": self.predict(self._transfer, transfer[0], self.raw),
        }
        predictions = {
            drawn(name, draw): found for name, each in of_draws.items() for draw, found in enumerate(each)
        } | references
        fitted = self.fit(job.anonymizer, job.seed)
        models = {
            "fit": fitted,
            "attacker": attack.model,
            **({"inverter": attack.inverter} if attack.inverter else {}),
            "utility_raw": raw_model,
            "utility_retrained": retrained_model,
            "utility_transfer_raw": transfer[0],
            "utility_transfer_retrained": transfer[1],
        }
        return Outcome(
            **{name: np.stack([found.scores for found in each]) for name, each in of_draws.items()},
            **{name: found.scores for name, found in references.items()},
            fidelity=np.stack([self.fidelity(release) for release in holder]),
            training=attack.model.info,
            validation=attack.validation,
            learning=attack.learning,
            inversion=attack.inverter.info if attack.inverter else {},
            fitting=fitted.info,
            stages={
                **{drawn("release", draw): {"content": release.content} for draw, release in enumerate(holder)},
                **{which: {"key": output.key} for which, output in models.items()},
                **{which: {"key": p.stage.key, "content": p.stage.content} for which, p in predictions.items()},
            },
            outputs=(*models.values(), *(p.stage for p in predictions.values())),
            cost={
                "fit_seconds": fitted.seconds if job.anonymizer.value.learns else 0.0,
                "transform_ms": 1000 * float(np.mean([release.seconds for release in holder])) / len(self.clip_names),
                "values": sum(tensor.numel() for tensor in load_file(fitted.path / "state.safetensors").values()),
                "causal": job.anonymizer.value.causal,
            },
        )


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
