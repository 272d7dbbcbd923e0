"""Anonymizers made of others: blends with the source, chains, and a strength chosen for a leakage."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted, anonymize
from bench.checkpoint import Checkpoint
from bench.files import UserError, digest
from bench.presets import Preset
from bench.protocols import Part, hold_out
from bench.registry import ATTACKERS
from bench.specs import Spec, param, parse_spec, wrapped

_WIDEST = 100.0  # a strength without declared ends is sought within this factor of its default


class Wrapper(Anonymizer):
    """What it declares follows from what it wraps."""

    @property
    def wrapped(self) -> tuple[Spec, ...]:
        return (self.inner,)

    @property
    def stochastic(self) -> bool:
        return any(spec.value.stochastic for spec in self.wrapped)

    @property
    def learns(self) -> bool:
        return any(spec.value.learns for spec in self.wrapped)

    @property
    def uses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for spec in self.wrapped for name in spec.value.uses))

    @property
    def causal(self) -> bool:
        return all(spec.value.causal for spec in self.wrapped)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return {str(number): dict(spec.value.budget(preset)) for number, spec in enumerate(self.wrapped)}


@dataclass(frozen=True)
class Blend(Wrapper):
    """Releases beta parts of an anonymizer's clip and 1 - beta of the source: beta * x~ + (1 - beta) * x.

    The partial retargeting of Carr et al. (ECCV 2026), who recommend 0.2, for any anonymizer. The source can be restored from
    such a blend by whoever knows the method: look at the threat level `inverter`.
    """

    inner: Spec = wrapped("anonymizer to blend")
    beta: float = param(0.2, "share of the anonymized clip", minimum=0, maximum=1, strength=True)

    @property
    def learns_as(self) -> Spec:
        return self.inner

    def fit(self, examples: Examples) -> Fitted:
        return self.inner.value.fit(examples)

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return torch.lerp(batch.clips, self.inner.value.transform(batch, state), self.beta)


@dataclass(frozen=True)
class Chain(Wrapper):
    """Applies several anonymizers one after the other, each fitted to what those before it release: `first+second`."""

    steps: tuple[Spec, ...] = wrapped("anonymizers, the first one first")

    @property
    def wrapped(self) -> tuple[Spec, ...]:
        return self.steps

    def fit(self, examples: Examples) -> Fitted:
        state: dict[str, Tensor] = {}
        info: dict[str, Any] = {}
        clips, labels = examples.clips, examples.release_labels()
        for number, spec in enumerate(self.steps):
            folder = examples.folder and examples.folder / str(number)  # a step must not go on from another one's checkpoint
            fitted = spec.value.fit(replace(examples, clips=clips, folder=folder))
            state |= {f"{number}.{name}": value for name, value in fitted.state.items()}
            info |= {f"{number}.{spec.plugin.name}": dict(fitted.info)} if fitted.info else {}
            if number < len(self.steps) - 1:
                draw = f"fit/{number}"
                rows = anonymize(spec.value, fitted.state, clips, seed=examples.seed, draw=draw, labels=labels)
                clips = clips.with_rows(rows)
        return Fitted(state, info)

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        clips = batch.clips
        for number, spec in enumerate(self.steps):
            clips = spec.value.transform(batch.step(clips, number), _own(state, f"{number}."))
        return clips


def _own(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Calibrated(Wrapper):
    """Chooses an anonymizer's strength such that a reference attacker's leakage meets a target.

    So methods can be compared at equal privacy, as Hanisch, Todt and Strufe (Pantomime, PoPETs 2026) do with noise. The strength
    is found by bisection on the clips that the anonymizer may learn from: the attacker, semi-informed, learns from one part of
    the performances, and its chance-normalised leakage is measured on others. Where the target cannot be met, the end of the
    strength's range that comes closest is taken, and the record says so. Interrupted, it goes on with the strength that it was
    at.
    """

    inner: Spec = wrapped("anonymizer with a strength")
    target: float = param(0.2, "leakage, with chance at 0 and every clip named at 1", minimum=0, maximum=1, strength=True)
    attacker: str = param("flat-svm", "reference attacker; of its target the leakage is meant")
    tolerance: float = param(0.02, "a leakage so close to the target will do", minimum=0.001, maximum=0.5)
    steps: int = param(10, "most strengths to try between the ends of the range", minimum=1)

    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.strength is None:
            raise ValueError(f"{self.inner} has no strength that could be calibrated")
        parse_spec(self.attacker, ATTACKERS)
        # whatever strength it was written with is not used: two ways of writing one thing must have one name
        field = self.inner.strength
        value = replace(self.inner.value, **{field.name: field.default})
        object.__setattr__(self, "inner", Spec(self.inner.plugin, value))

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        reference = parse_spec(self.attacker, ATTACKERS)
        own = {"attacker": reference.describe(), "training": dict(reference.value.budget(preset))}
        return {**super().budget(preset), **own}

    def fit(self, examples: Examples) -> Fitted:
        tried: list[dict[str, float]] = []
        trial = _Trial(self, examples)
        # Without networks: a trial is known by its strength and what was found, and the bisection takes the same way again.
        on = {"networks": {}, "optimisers": {}, "generators": {}}
        saved, unsaved = Checkpoint(examples.checkpoint("trials"), trial.of, **on, dropout=False), ""
        earlier = saved.restore()
        known = {one["strength"]: one["leakage"] for one in earlier[1]["tried"]} if earlier else {}
        total, span = self.steps + 2, self.inner.value.strength_range(examples)

        def leakage(share: float) -> float:
            nonlocal unsaved
            strength = self._strength(share, span)
            new = strength not in known
            if new:
                known[strength] = trial.leakage(self._with(strength))
            tried.append({"strength": strength, "leakage": known[strength]})
            if new:
                told = f"{self.inner.strength.name} {strength:.4g}: leakage {known[strength]:.2f}{unsaved}"
                examples.progress(len(tried), total, told)
                unsaved = saved.save({}, {"tried": tried})
            return known[strength]

        low, high = 0.0, 1.0
        at_low, at_high = leakage(low), leakage(high)
        rises = at_high > at_low
        if min(at_low, at_high) <= self.target <= max(at_low, at_high):
            for _ in range(self.steps):
                middle = (low + high) / 2
                found = leakage(middle)
                if abs(found - self.target) <= self.tolerance:
                    break
                low, high = (low, middle) if (found > self.target) == rises else (middle, high)
        best = min(tried, key=lambda one: abs(one["leakage"] - self.target))
        fitted = trial.fitted(self._with(best["strength"]))
        info = {
            "strength": best["strength"],
            "leakage": best["leakage"],
            "met": abs(best["leakage"] - self.target) <= self.tolerance,
            "tried": tried,
            "inner": dict(fitted.info),
        }
        state = {f"inner.{name}": value for name, value in fitted.state.items()}
        return Fitted({**state, "strength": torch.tensor(best["strength"], dtype=torch.float64)}, info)

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return self._with(float(state["strength"])).transform(batch, _own(state, "inner."))

    def _strength(self, share: float, span: tuple[float, float] | None = None) -> float:
        """The strength at a place in its range, 0 to 1: evenly where both ends are declared, else by factors around the
        default.
        """
        field = self.inner.strength
        low, high = span or (field.metadata["minimum"], field.metadata["maximum"])
        if low is not None and high is not None:
            value = low + share * (high - low)
        else:
            value = field.default * _WIDEST ** (2 * share - 1)
            value = value if low is None else max(value, low)
            value = value if high is None else min(value, high)
        return float(round(value)) if isinstance(field.default, int) else value

    def _with(self, strength: float) -> Anonymizer:
        field = self.inner.strength
        return replace(self.inner.value, **{field.name: type(field.default)(strength)})


class _Trial:
    """Measures what a reference attacker that knows the anonymizer finds."""

    def __init__(self, method: Calibrated, examples: Examples):
        self.attacker, self.examples = parse_spec(method.attacker, ATTACKERS).value, examples
        target = self.attacker.target
        if target not in examples.parts:
            raise UserError(f"calibrated: {method.attacker} needs labels of {target!r}; there are {', '.join(examples.parts)}")
        self.part: Part = hold_out(examples.parts[target].of_trained_classes())
        of = [method.inner.digest, method.attacker, asdict(examples.preset), examples.seed, examples.clips.sketch()]
        self.of = digest([*of, self.part.labels.tolist(), self.part.train.tolist(), self.part.test.tolist()])
        self._fitted: dict[str, Fitted] = {}

    def fitted(self, anonymizer: Anonymizer) -> Fitted:
        """What an anonymizer learns; a blend learns the same whatever its share."""
        if anonymizer.learns_as is None:
            return anonymizer.fit(self.examples)
        key = anonymizer.learns_as.digest
        if key not in self._fitted:
            self._fitted[key] = anonymizer.fit(self.examples)
        return self._fitted[key]

    def leakage(self, anonymizer: Anonymizer) -> float:
        """Chance-normalised balanced top-1 on the held-out performances."""
        examples, state = self.examples, self.fitted(anonymizer).state
        own, released = (
            examples.clips.with_rows(
                anonymize(
                    anonymizer,
                    state,
                    examples.clips,
                    seed=examples.seed,
                    draw=f"calibrate/{who}",
                    labels=examples.release_labels(),
                )
            )
            for who in ("attacker", "holder")
        )
        with TemporaryDirectory() as folder:
            self.attacker.fit(own, self.part, examples.preset, Path(folder), seed=examples.seed)
            scores = self.attacker.scores(released, self.part.test, self.part, examples.preset, Path(folder))
        return (self.part.quality(scores, "test") - self.part.chance) / (1 - self.part.chance)
