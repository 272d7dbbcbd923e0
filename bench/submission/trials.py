"""What submitted code must hold, tried on synthetic people.

Equal input gives equal output, in another process as well, whatever else is in the batch, whatever day it is; and what can be set
changes something.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.anonymizer import Examples, anonymize
from bench.attacker import refuse_all_but_probabilities
from bench.data.clips import ClipSet
from bench.data.prepare import open_or_prepare
from bench.data.synthetic import EXAMPLE
from bench.pipeline import Bench
from bench.plan import choose_protocol
from bench.presets import smoke_preset
from bench.protocols import anonymizer_part
from bench.registry import DATASETS
from bench.specs import parse_spec
from bench.stages import StageStore
from bench.submission.findings import Problems
from bench.submission.foreign import ForeignAnonymizer, ForeignAttacker
from bench.submission.session import close
from bench.submission.source import DeclaredParameter, Submission, SubmittedSpec, declared

_CLIPS = 8  # clips that are anonymized again and again
_LATER = 400 * 24 * 3600.0  # seconds: code that waits for a date shows it
_REPEATS = 12
_BY_ITSELF = "treat each clip by itself: no statistics over the batch, no padding that counts"

_Method = TypeVar("_Method", ForeignAnonymizer, ForeignAttacker)


class Outcome(NamedTuple):
    """Name of a trial, what is wrong, and whether that must be mended."""

    name: str
    problems: Problems
    grave: bool = True


@dataclass(frozen=True)
class Lab:
    """Synthetic people to try code on.

    Args:
        bench: Bench with a tiny budget.
        clips: A few of its clips, of which no target tests one.
    """

    bench: Bench
    clips: ClipSet

    @classmethod
    def open(cls, results: Path, step: Callable[[str], Any]) -> "Lab":
        data = parse_spec(EXAMPLE, DATASETS)
        store = open_or_prepare(data, results)
        stages = StageStore(results / "stages")
        bench = Bench(store, choose_protocol(data, None), smoke_preset(), stages, torch.device("cpu"), step)
        part = anonymizer_part(bench.parts)
        some = part[np.linspace(0, len(part) - 1, _CLIPS).round().astype(int)]
        return cls(bench, bench.clips(bench.raw).subset(some))

    def examples(self) -> Examples:
        part = anonymizer_part(self.bench.parts)
        parts = {target: whole.restricted(part) for target, whole in self.bench.parts.items() if target != "linkage"}
        return Examples(self.bench.clips(self.bench.raw).subset(part), parts, self.bench.preset, 0)

    def answers(self, attacker: ForeignAttacker, *parts: slice) -> list[np.ndarray]:
        """(n, K) what an attacker that learnt from synthetic clips says of the test clips, then of parts of them."""
        part = self.bench.part(attacker.target)
        clips, preset = self.bench.clips(self.bench.raw), self.bench.preset
        with TemporaryDirectory(prefix="bench-") as name:
            attacker.fit(clips, part, preset, Path(name), seed=0)
            asked = (part.test, *(part.test[few] for few in parts))
            return [attacker.scores(clips, of, part, preset, Path(name)) for of in asked]


def try_anonymizer(
    submission: Submission, spec: SubmittedSpec, state: Mapping[str, Tensor], lab: Lab, step: Callable[[str], Any]
) -> Iterator[Outcome]:
    """Contract, determinism, independence of batch and clock, effect of parameters.

    What rests on a trial that failed is not tried: of a release that is another each time, it could be blamed on anything.

    Raises:
        ForeignError: if it fails, or is stopped.
        ValueError: if what it releases are no clips.
    """
    with step("release synthetic clips"):
        first = release(spec.value, state, lab.clips)
    yield Outcome("contract", [])
    with step("release them again, otherwise"):
        yield (same := Outcome("determinism", _same(spec, state, lab, first)))
        if same.problems:
            return
        yield Outcome("batch independence", _alone(spec.value, state, lab, first))
        with _own_session(replace(spec.value, foreign=replace(spec.value.foreign, clock=_LATER))) as later:
            different = not torch.equal(first, release(later, state, lab.clips))
        yield Outcome("clock", [("it releases other clips at another date", "do not look at the clock")] if different else [])

    def unchanged(method: ForeignAnonymizer) -> bool:
        learnt = method.fit(lab.examples()).state if method.learns else state
        return torch.equal(first, release(method, learnt, lab.clips))

    with step("change its parameters"):
        yield from _parameters(submission, spec, unchanged, grave=True)


def try_attacker(submission: Submission, spec: SubmittedSpec, lab: Lab, step: Callable[[str], Any]) -> Iterator[Outcome]:
    """As `try_anonymizer`. A parameter that changes nothing here may do so elsewhere: of an attacker that is to be known only."""
    attacker = spec.value
    with step("learn from synthetic clips and name others"):
        first, half = lab.answers(attacker, slice(None, None, 2))
    try:
        refuse_all_but_probabilities(first)
    except ValueError as error:
        yield Outcome("contract", [(str(error), "return probabilities, such as predict_proba of scikit-learn or a softmax")])
        return
    yield Outcome("contract", [])
    with step("learn again, and name them otherwise"):
        close(attacker.foreign)
        remedy = "draw from generators made of seed only"
        same = np.array_equal(first, *lab.answers(attacker))
        yield Outcome("determinism", [] if same else [("another process learns something else", remedy)])
        if not same:
            return
        apart = np.allclose(first[::2], half, atol=1e-5)
        remedy = "name each clip by itself"
        yield Outcome("batch independence", [] if apart else [("scores depend on the other clips that are asked about", remedy)])
        with _own_session(replace(attacker, foreign=replace(attacker.foreign, clock=_LATER))) as later:
            same = np.array_equal(first, *lab.answers(later))
        yield Outcome("clock", [] if same else [("it says other things at another date", "do not look at the clock")])
    with step("change its parameters"):
        yield from _parameters(submission, spec, lambda method: np.array_equal(first, *lab.answers(method)), grave=False)


def release(value: ForeignAnonymizer, state: Mapping[str, Tensor], clips: ClipSet, batch_size: int = 64) -> Tensor:
    """Rows of a few clips, released to nobody."""
    return anonymize(value, state, clips, seed=0, draw="holder/0", batch_size=batch_size)


@contextlib.contextmanager
def _own_session(value: _Method) -> Iterator[_Method]:
    """The same method, and an end to its worker afterwards: another one than that of the evaluation."""
    try:
        yield value
    finally:
        close(value.foreign)


def _same(spec: SubmittedSpec, state: Mapping[str, Tensor], lab: Lab, first: Tensor) -> Problems:
    """Again in the same process, many times, and in a fresh one."""
    for _ in range(_REPEATS):
        if not torch.equal(first, release(spec.value, state, lab.clips)):
            return [("the same clips come out otherwise the next time", "draw from batch.generators() or batch.per_frame() only")]
    close(spec.value.foreign)
    if not torch.equal(first, release(spec.value, state, lab.clips)):
        return [("another process releases other clips", "draw from batch.generators() only, and keep nothing between calls")]
    if spec.value.learns:
        again = spec.value.fit(lab.examples()).state
        if any(name not in again or not torch.equal(tensor, again[name]) for name, tensor in state.items()):
            return [("fit learns something else the next time", "draw from examples.generator() only")]
    return []


def _alone(value: ForeignAnonymizer, state: Mapping[str, Tensor], lab: Lab, first: Tensor) -> Problems:
    """Each clip by itself, and all in another order with others beside them."""
    clips = lab.clips
    for size in (1, 3):
        if not torch.equal(first, release(value, state, clips, size)):
            return [(f"clips come out otherwise in batches of {size} than in one of {len(clips)}", _BY_ITSELF)]
    order = np.arange(len(clips))[::-1].copy()
    turned = release(value, state, clips.subset(order))
    if not torch.equal(first, turned):  # rows lie at the same places: the subset shares them
        return [("clips come out otherwise in another order", _BY_ITSELF)]
    return []


def _parameters(
    submission: Submission, spec: SubmittedSpec, unchanged: Callable[[Any], bool], *, grave: bool
) -> Iterator[Outcome]:
    """Whether every declared parameter changes something; those of which no other value can be guessed are named."""
    stated, run = declared(spec.value.foreign), spec.value.foreign
    problems, untried = [], []
    for one in stated.parameters:
        if one.name == "target" and isinstance(spec.value, ForeignAttacker):
            continue  # another target is another question
        value = stated.values.get(one.name)
        other = _other_value(one, value)
        if other is None:
            untried.append(one.name)
            continue
        changed = replace(spec.value, foreign=submission.foreign(run.level, run.limits, changed={one.name: other}))
        with _own_session(changed) as method:
            if unchanged(method):
                what = f"{one.name}={other} does the same to these clips as {one.name}={value}"
                problems.append((what, "remove the parameter, or use it"))
    yield Outcome("parameters", problems, grave)
    if untried:
        what = f"no other value of {', '.join(untried)} can be guessed, so that it was not tried whether it has an effect"
        yield Outcome("parameters", [(what, "declare its choices, or a default that is a number")], grave=False)


def _other_value(parameter: DeclaredParameter, value: Any) -> Any:
    """Another allowed value of a parameter; None if there is none that can be guessed."""
    if parameter.choices:
        return next((choice for choice in parameter.choices if choice != value), None)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        low, high = parameter.minimum, parameter.maximum
        tries = [value * 2 if value else 1, value + 1, value / 2, low, high]
        kept = [type(value)(one) for one in tries if one is not None and math.isfinite(one)]
        inside = [v for v in kept if (low is None or v >= low) and (high is None or v <= high) and v != value]
        return inside[0] if inside else None
    return None
