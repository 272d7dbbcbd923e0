"""The instrument under test: leakage as `bench run` measures it, without the classifiers of utility."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.data.clips import ClipSet
from bench.data.prepare import prepare
from bench.jobs import Job
from bench.measure import people_of
from bench.metrics.identification import top_k
from bench.metrics.uncertainty import Estimate
from bench.pipeline import Bench
from bench.presets import get_preset
from bench.protocols import Part, Protocol
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS
from bench.specs import Spec, parse_spec
from bench.stages import StageStore
from bench.threat import RANKING, THREATS


@contextmanager
def _quiet(text: str) -> Iterator[Callable[..., None]]:
    yield lambda done, total, note="": None


@contextmanager
def synthetic(protocol: Protocol | None = None, **dials: Any) -> Iterator[Bench]:
    """A bench of synthetic people, in a temporary folder.

    Args:
        protocol: Instead of the data set's own.
        dials: Parameters of the data set.
    """
    spec = parse_spec("synthetic:" + ",".join(f"{name}={value}" for name, value in dials.items()), DATASETS)
    with tempfile.TemporaryDirectory(prefix="bench-validate-") as name:
        folder = Path(name)
        store = prepare(spec, None, folder)
        chosen = protocol or next(iter(spec.value.protocols.values()))
        yield Bench(store, chosen, get_preset("quick"), StageStore(folder / "stages"), torch.device("cpu"), _quiet)


def attack(bench: Bench, attacker: str, *, anonymizer: str = "identity", threat: str = RANKING, seed: int = 0) -> np.ndarray:
    """Scores (n, K) of an attacker on the released test clips."""
    job = Job(parse_spec(anonymizer, ANONYMIZERS), parse_spec(attacker, ATTACKERS), THREATS[threat], seed)
    return bench.attack(job).predictions[0].scores


def leakage(bench: Bench, attacker: str, **how: Any) -> Estimate:
    """Balanced top-1 with its interval; `how` as for `attack`."""
    part = bench.part(parse_spec(attacker, ATTACKERS).value.target)
    return of_scores(bench, part, attack(bench, attacker, **how))


def of_scores(bench: Bench, part: Part, scores: np.ndarray) -> Estimate:
    """Balanced top-1 of scores (n, K) of the test clips."""
    label = part.labels[part.test]
    people = people_of(bench.clip_names[part.test], part.subjects[part.test], label)
    return people.estimate(people.balanced_mean(top_k(scores, label, 1), label))


def taught(bench: Bench, attacker: str, share: float, seed: int) -> Estimate:
    """Leakage to an attacker that has only this share of each class's training clips, one at least."""
    spec, rng = parse_spec(attacker, ATTACKERS), np.random.default_rng(seed)
    part = bench.part(spec.value.target)
    known = np.concatenate([part.train, part.validation])
    kept = []
    for k in np.unique(part.labels[known]):
        clips = rng.permutation(known[part.labels[known] == k])
        kept.append(clips[: max(1, round(share * len(clips)))])
    poorer = replace(part, train=np.sort(np.concatenate(kept)), validation=np.array([], dtype=int))
    return _learnt_and_read(bench, spec, poorer, bench.clips(bench.raw), seed)


def of_clips(bench: Bench, attacker: str, clips: ClipSet) -> Estimate:
    """Leakage to an attacker that learns from these clips and reads them."""
    spec = parse_spec(attacker, ATTACKERS)
    return _learnt_and_read(bench, spec, bench.part(spec.value.target), clips, 0)


def _learnt_and_read(bench: Bench, spec: Spec, part: Part, clips: ClipSet, seed: int) -> Estimate:
    with tempfile.TemporaryDirectory(prefix="bench-validate-") as folder:
        spec.value.fit(clips, part, bench.preset, Path(folder), seed=seed)
        return of_scores(bench, part, spec.value.scores(clips, part.test, part, bench.preset, Path(folder)))


def motionless(clips: ClipSet) -> ClipSet:
    """The same clips in which everybody holds one and the same posture, with the bones that each clip shows.

    The bones keep their lengths frame by frame; their directions are the layout's number of fixed ones. So it removes what
    movements tell, and nothing of what bones tell.
    """
    layout, rows = clips.layout, clips.rows.double()  # (R, 3, V)
    fixed = torch.nn.functional.normalize(torch.randn(3, layout.num_joints, generator=torch.Generator().manual_seed(0)), dim=0)
    out = torch.zeros_like(rows)
    parents = dict(layout.bones)
    for joint in layout.order:
        if joint in parents:
            length = (rows[:, :, joint] - rows[:, :, parents[joint]]).norm(dim=1, keepdim=True)
            out[:, :, joint] = out[:, :, parents[joint]] + length * fixed[:, joint]
    return clips.with_rows(out.to(clips.rows))


def as_row(estimate: Estimate) -> Mapping[str, float]:
    return {"leakage": estimate.value, "low": estimate.low, "high": estimate.high}
