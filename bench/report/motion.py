"""A clip of a synthetic person, raw and released, for the page of a method. Clips of real people may not be copied there."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from bench.anonymizer import anonymize
from bench.data.clips import ClipSet
from bench.data.prepare import open_or_prepare
from bench.data.synthetic import EXAMPLE
from bench.files import UserError, read_json
from bench.jobs import Release
from bench.leaderboard import Row
from bench.pipeline import Bench
from bench.plan import choose_protocol
from bench.presets import get_preset
from bench.registry import ANONYMIZERS, DATASETS
from bench.specs import SpecError, parse_spec
from bench.stages import FinishedStages, MissingStageError, StageStore
from bench.submission.states import submitted_as

_FRAMES = 64  # most of a page


@dataclass(frozen=True)
class Motion:
    """What the viewer shows.

    Args:
        raw, released: (T, V, 3) int, millimetres; None if there is nothing to show.
        edges: Pairs of joints.
        frame_rate: Frames per second.
        why: Whose clip it is, or why there is none.
    """

    raw: np.ndarray | None
    released: np.ndarray | None
    edges: list[tuple[int, int]]
    frame_rate: float
    why: str


def motion_of(row: Row, results: Path) -> Motion:
    """A clip before and after a method: of its own release if it shows synthetic people, or made anew if nothing is learnt."""
    first = row.rows[0].first
    try:
        if first["dataset"].partition(":")[0] == "synthetic":
            return _released(row, results)
        if not submitted_as(first["anonymizer"]):
            return _made(row.anonymizer, results)
    except (UserError, SpecError, MissingStageError, OSError) as error:
        return Motion(None, None, [], 30.0, f"No clip to show: {' '.join(str(error).split())}.")
    return Motion(None, None, [], 30.0, "No clip to show: it was measured on real people only, whose clips may not be copied.")


def _released(row: Row, results: Path) -> Motion:
    """From the release that was measured."""
    data = row.rows[0].first
    store = open_or_prepare(parse_spec(data["dataset"], DATASETS), results)
    protocol, preset = choose_protocol(parse_spec(data["dataset"], DATASETS), data["protocol"]["name"]), data["preset"]["name"]
    bench = Bench(store, protocol, get_preset(preset), FinishedStages(results / "stages"), torch.device("cpu"), _no_step)
    content = row.rows[0].records[0].releases[0]
    raw = bench.raw
    if content == raw.content:
        return _motion(bench.clips(raw), bench.clips(raw), "A synthetic person.")
    rows = ""
    for stage in sorted((results / "stages" / "release").glob("[!.]*/stage.json")):
        with suppress(OSError, ValueError, KeyError):  # a damaged stage is not the one
            rows = read_json(stage)["info"].get("rows")
        if rows == content:
            released = bench.clips(Release(stage.parent / "frames.npy", content))
            return _motion(bench.clips(raw), released, "A synthetic person, from the release that was measured.")
    raise UserError("the release that was measured is no longer in the results folder")


def _made(anonymizer: str, results: Path) -> Motion:
    spec = parse_spec(anonymizer, ANONYMIZERS)
    preset = get_preset("quick")
    if spec.value.budget(preset) or spec.value.uses:
        raise UserError("it takes a training, and was measured on real people only, whose clips may not be copied")
    data = parse_spec(EXAMPLE, DATASETS)
    bench = Bench(
        open_or_prepare(data, results),
        choose_protocol(data, None),
        preset,
        StageStore(results / "stages"),
        torch.device("cpu"),
        _no_step,
    )
    clips = bench.clips(bench.raw)
    state = load_file(bench.fit(spec, 0).path / "state.safetensors")
    rows = anonymize(spec.value, state, clips, seed=0, draw="holder/0")
    return _motion(clips, clips.with_rows(rows), "A synthetic person; the method was measured on others.")


def _motion(raw: ClipSet, released: ClipSet, why: str) -> Motion:
    chosen = torch.tensor([int(raw.lengths.argmax())])
    count = min(int(raw.lengths[chosen]), _FRAMES)
    frames = np.linspace(0, int(raw.lengths[chosen]) - 1, count).round().astype(int)
    both = [
        (of.whole(chosen)[0, :, :, :, 0].permute(1, 2, 0).numpy()[frames] * 1000).round().astype(int) for of in (raw, released)
    ]
    rate = raw.frame_rate * count / int(raw.lengths[chosen])
    return Motion(both[0], both[1], [tuple(edge) for edge in raw.layout.edges], rate, why)


def _no_step(text: str) -> object:
    from contextlib import nullcontext

    return nullcontext(lambda done, total, text="": None)
