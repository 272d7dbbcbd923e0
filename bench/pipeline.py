"""One job, end to end: what its attacker learns from, which of its models attacks, what utility is left.

Everything is a stage of the store, so that jobs of a grid share what they have in common (`bench.workshop`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from bench.choice import choose
from bench.jobs import Attack, Job, Outcome, Release, Training, drawn
from bench.metrics.frechet import frechet_distances
from bench.protocols import ACTION, hold_out
from bench.registry import ATTACKERS, INVERTERS
from bench.specs import Spec, parse_spec
from bench.stages import MissingStageError, Output
from bench.threat import Learning
from bench.workshop import VERSIONS, Workshop, rows_digest, unit


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


class Bench(Workshop):
    """Evaluates jobs on one data set under one protocol and preset."""

    def releases(self, job: Job) -> list[Release]:
        """The clips as the holder releases them: of a random anonymizer as often as the preset asks for."""
        return [self._holder(job, draw) for draw in range(self.draws(job))]

    def _holder(self, job: Job, draw: int) -> Release:
        """One of them; for submitted attackers, which must not be able to draw the same, with their secret."""
        reader = (job.attacker,) if job.attacker.value.secret else ()
        return self.release(job.anonymizer, job.seed, f"holder/{draw}", *reader)

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

    @unit
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

    def _choose(self, job: Job, trained: Mapping[Learning, Output]) -> tuple[Learning, dict[Learning, float]]:
        """The learning whose model attacks, and how well each does on the attacker's own validation part.

        A model that learnt from that part is judged by one that learnt in the same way from the other training clips.
        """
        if len(trained) == 1:
            return next(iter(trained)), {}
        own, part, side, judged = self.own_release(job), self.part(job.target), "validation", dict(trained)
        if job.attacker.value.learns_validation:
            judged = {training.learning: self.train(training) for training in self.rehearsals(job)}
            part, side = hold_out(part), "test"
        found = {
            learning: self.predict(job.attacker, model, own, side=side, enrolled=own, part=part).scores
            for learning, model in judged.items()
        }
        return choose(part, side, found)

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
        poses = [self.fidelity(release) for release in holder]
        seen, *shown = (self.embed(raw_model, release) for release in (self.raw, *holder))
        subjects = self.part(ACTION).subjects[self.part(ACTION).test]
        people = np.unique(subjects, return_inverse=True)[1]
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
            fidelity=np.stack([found for found, _ in poses]),
            frechet=np.stack([frechet_distances(seen[0], found, people, people) for found, _ in shown]),
            training=attack.model.info,
            validation=attack.validation,
            learning=attack.learning,
            inversion=attack.inverter.info if attack.inverter else {},
            fitting=fitted.info,
            stages={
                **{drawn("release", draw): {"content": release.content} for draw, release in enumerate(holder)},
                **{which: {"key": output.key} for which, output in models.items()},
                **{which: {"key": p.stage.key, "content": p.stage.content} for which, p in predictions.items()},
                **{
                    drawn(name, draw): {"key": stage.key, "content": stage.content}
                    for name, each in (("fidelity", poses), ("embedded", shown), ("embedded_reference", [seen]))
                    for draw, (_, stage) in enumerate(each)
                },
            },
            outputs=(*models.values(), *(p.stage for p in predictions.values())),
            cost={
                "fit_seconds": fitted.seconds if job.anonymizer.value.learns else 0.0,
                "transform_ms": 1000 * float(np.mean([release.seconds for release in holder])) / len(self.clip_names),
                "values": sum(tensor.numel() for tensor in load_file(fitted.path / "state.safetensors").values()),
                "causal": job.anonymizer.value.causal,
            },
        )
