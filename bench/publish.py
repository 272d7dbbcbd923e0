"""What `bench anonymize` and `bench view` do: fit or load anonymizers, release clips, write or draw them."""

import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from bench.data.clips import ClipSet
from bench.data.prepare import open_or_prepare
from bench.data.store import ClipStore
from bench.devices import choose_device
from bench.files import UserError, file_name
from bench.occupied import at_work
from bench.pipeline import Bench
from bench.plan import choose_protocol
from bench.presets import Preset, get_preset
from bench.progress import Display
from bench.protocols import ACTION
from bench.registry import ANONYMIZERS, DATASETS
from bench.release import FittedAnonymizer, write_release
from bench.report.viewer import save_animation, save_strip
from bench.specs import Spec, parse_spec, parse_specs
from bench.stages import StageStore

_SHOWN = 3  # clips of a picture, if none is named


@dataclass(frozen=True)
class Wish:
    """The options of `bench anonymize`."""

    dataset: str
    protocol: str | None
    preset: str
    device: str
    anonymizer: str | None
    weights: Path | None
    out: Path
    kind: str
    save_weights: Path | None
    seed: int | None
    results: Path


def open_bench(dataset: str, protocol: str | None, preset: str | Preset, device: str, results: Path, display: Display) -> Bench:
    """The bench of a data set.

    Raises:
        UserError: if one of the names is wrong or the data is not there.
    """
    budget = get_preset(preset) if isinstance(preset, str) else preset
    data, chosen = parse_spec(dataset, DATASETS), choose_device(device)
    split = choose_protocol(data, protocol)
    with display.step(f"read {dataset}", quiet=True) as report:
        store = open_or_prepare(data, results, lambda done, total: report(done, total, f"{done} clips"))
    return Bench(store, split, budget, StageStore(results / "stages"), chosen, display.step)


def fit(bench: Bench, spec: Spec, seed: int = 0) -> FittedAnonymizer:
    """The anonymizer, fitted to the clips that the protocol leaves it."""
    fitted, action = bench.fit(spec, seed), bench.part(ACTION)
    people = bench.labels["subject"].to_numpy()
    return FittedAnonymizer(
        spec=spec,
        state=load_file(fitted.path / "state.safetensors"),
        layout=bench.normalised.layout.name,
        normalisation=bench.normalisation,
        classes={"action": tuple(map(str, action.classes)), "subject": tuple(map(str, np.unique(people)))},
        info={
            "dataset": bench.dataset,
            "data": bench.fingerprint,
            "protocol": bench.protocol.name,
            "preset": bench.preset.name,
            "seed": seed,
            "fitting": dict(fitted.info),
        },
    )


def publish(wish: Wish) -> str:
    """Writes the release; returns one line that says what was written.

    Raises:
        UserError: for whatever the user can mend.
    """
    for path in (wish.out, wish.save_weights):
        if path is not None and path.exists():
            raise UserError(f"{path} is there already; choose another place or delete it")
    loaded = FittedAnonymizer.load(wish.weights) if wish.weights else None
    spec = loaded.spec if loaded else parse_spec(wish.anonymizer or "", ANONYMIZERS)
    with Display() as display, at_work(wish.results):
        bench = open_bench(wish.dataset, wish.protocol, wish.preset, wish.device, wish.results, display)
        fitted = loaded or fit(bench, spec)
        if loaded and loaded.normalisation != bench.normalisation:
            raise UserError(f"{wish.weights} was fitted to clips normalised by {loaded.normalisation}, not {bench.normalisation}")
        source: ClipStore = bench.normalised
        clips = bench.clips(bench.raw)
        seed = secrets.randbits(62) if wish.seed is None else wish.seed
        train = np.array([], dtype=int)
        if wish.kind == "npz":
            action = bench.part(ACTION)
            train = np.union1d(action.train, action.validation)
        meta = {
            "dataset": f"{bench.dataset} anonymized by {spec}",
            "anonymizer": {**spec.describe(), "fitted_to": fitted.info.get("dataset", "")},
            "source": bench.fingerprint,
            "normalisation": bench.normalisation["method"],
            **{name: bench.meta[name] for name in ("frame_rate", "licence", "citation") if name in bench.meta},
        }
        with display.step(f"release {spec}") as report:
            write_release(
                wish.kind,
                wish.out,
                fitted.release(clips, source.labels, seed=seed),
                source,
                meta,
                train,
                lambda done, total: report(done, total, f"{done} clips"),
            )
        if wish.save_weights:
            fitted.save(wish.save_weights)
    return f"{len(source)} clips: {wish.out}"


def show(
    dataset: str,
    protocol: str | None,
    preset: str,
    device: str,
    anonymizers: str,
    names: tuple[str, ...],
    out: Path | None,
    seed: int,
    results: Path,
) -> Path:
    """Draws clips, raw and anonymized, and returns the picture's path.

    Raises:
        UserError: for whatever the user can mend.
    """
    specs = parse_specs(anonymizers, ANONYMIZERS)
    if out is not None and out.suffix not in (".gif", ".png"):
        raise UserError(f"--out must end in .gif or .png, got {out.name}")
    with Display() as display, at_work(results):
        bench = open_bench(dataset, protocol, preset, device, results, display)
        chosen = _choose(bench, names)
        table = bench.labels.iloc[chosen]
        clips: ClipSet = bench.clips(bench.raw).subset(chosen)
        columns = {"raw": [_whole(clips, i) for i in range(len(clips))]}
        for spec in specs:
            columns[str(spec)] = list(fit(bench, spec).release(clips, table, seed=seed))
        titles = [str(name) for name in clips.names]
        path = out or results / "view" / f"{file_name('-'.join(map(str, specs)))[:100]}.gif"
        save = save_strip if path.suffix == ".png" else save_animation
        with display.step(f"draw {path.name}", quiet=True):
            save(columns, titles, clips.layout, clips.frame_rate, path)
    return path


def _choose(bench: Bench, names: tuple[str, ...]) -> np.ndarray:
    """Indices of the clips to show: those named, or some test clips, evenly spaced."""
    known = {name: i for i, name in enumerate(bench.clip_names.tolist())}
    if names:
        for name in names:
            if name not in known:
                raise UserError(f"{bench.dataset} has no clip {name!r}; its first is {next(iter(known))}")
        return np.array([known[name] for name in names])
    test = bench.part(ACTION).test
    return test[np.linspace(0, len(test) - 1, min(_SHOWN, len(test))).round().astype(int)]


def _whole(clips: ClipSet, i: int) -> np.ndarray:
    whole = clips.whole(torch.tensor([i], device=clips.device))[0].cpu().numpy()
    return whole[..., : int(clips.bodies[i])]
