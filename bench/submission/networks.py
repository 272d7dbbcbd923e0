"""Trained networks of a known attacker, as files: `attacker.json` says what they are, `STREAM/model.safetensors` holds each.

Nothing in them is run, and of their last layer, which names the people of whoever trained it, nothing is used: it is fitted anew
to the clips that the attacker may learn from. What the other layers were trained on cannot be seen in them.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench import classifiers
from bench.attacker import Attacker
from bench.data.clips import ClipSet
from bench.files import UserError, atomic_folder, read_json, write_json
from bench.jobs import Training
from bench.pipeline import Bench
from bench.presets import Preset
from bench.protocols import Part
from bench.registry import ATTACKERS, BACKBONES
from bench.skeleton import get_layout
from bench.specs import Spec, parse_spec
from bench.submission.prepared import NO_CODE
from bench.threat import Learning
from bench.training import Progress

_STATED = "attacker.json"
_FILE = "model.safetensors"
_HEAD = "classifier."  # of every backbone


class Stated(BaseModel):
    """`attacker.json`.

    Args:
        attacker: A neural attacker of the registry, e.g. "sgn-reid".
        width: Of its networks, as the preset that they were trained under had it.
        layout: Name of the layout of the clips.
        bodies: Bodies of each clip.
        classes: Of the last layers.
        fitted_to: Data set, protocol, preset and seed: for people to read.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    attacker: Annotated[str, Field(max_length=200)]
    width: Annotated[float, Field(gt=0.0, le=4.0)]
    layout: Annotated[str, Field(max_length=40)]
    bodies: Annotated[int, Field(ge=1, le=10)]
    classes: Annotated[int, Field(ge=2, le=100_000)]
    fitted_to: dict[str, str | int] = {}


def export(bench: Bench, spec: Spec, seed: int, folder: Path) -> Path:
    """Trains an attacker on raw clips, or finds it trained, and writes what it learnt.

    Raises:
        UserError: if something is there already, or it is no neural attacker.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another place or delete it")
    streams = _streams(spec)
    trained = bench.train(Training(spec, bench.raw, seed, "raw clips", learning=Learning.RAW))
    stated = {
        "schema": 1,
        "attacker": str(spec),
        "width": float(spec.value.config(bench.preset).width),
        "layout": bench.normalised.layout.name,
        "bodies": bench.clips(bench.raw).num_bodies,
        "classes": len(bench.part(spec.value.target).classes),
        "fitted_to": {
            "dataset": bench.dataset,
            "protocol": bench.protocol.name,
            "preset": bench.preset.name,
            "seed": seed,
        },
    }
    with atomic_folder(folder) as temporary:
        for stream in streams:
            (temporary / stream).mkdir()
            shutil.copyfile(trained.path / stream / _FILE, temporary / stream / _FILE)
        write_json(temporary / _STATED, stated)
    return folder


def _streams(spec: Spec) -> tuple[str, ...]:
    """What the networks of a neural attacker read, one each.

    Raises:
        UserError: if it is no neural attacker of this package.
    """
    parameters = spec.parameters
    neural = {"backbone", "streams"} <= set(parameters) and not spec.value.control
    known = spec.plugin.provider == "builtin" and neural and BACKBONES[parameters["backbone"]].provider == "builtin"
    if not known:
        raise UserError(f"{spec} is no neural attacker of this package; submit it as code")
    return tuple(parameters["streams"].split("+"))


@dataclass(frozen=True)
class Networks:
    """Such a folder, read and found to fit what it says of itself.

    Args:
        stated: What it says.
        spec: The attacker.
        folder: Where it lies.
    """

    stated: Stated
    spec: Spec
    folder: Path

    @classmethod
    def load(cls, folder: Path) -> "Networks":
        """Reads the folder.

        Raises:
            UserError: if it is not whole, its attacker is unknown, or its weights are those of another network.
        """
        try:
            stated = Stated.model_validate(read_json(folder / _STATED))
        except (OSError, ValueError) as error:  # a ValidationError is a ValueError
            told = f"{e['loc']}: {e['msg']}" if isinstance(error, ValidationError) and (e := error.errors()[0]) else str(error)
            raise UserError(f"{folder / _STATED} does not say what its networks are ({told})") from error
        spec = parse_spec(stated.attacker, ATTACKERS)
        found = cls(stated, spec, folder)
        try:
            layout = get_layout(stated.layout)
        except LookupError as error:
            raise UserError(str(error)) from error
        for stream in _streams(spec):
            with torch.device("meta"):  # shapes alone: nothing is drawn, nothing takes memory
                network = BACKBONES[spec.parameters["backbone"]].load()(
                    layout=layout, num_classes=stated.classes, num_bodies=stated.bodies, width=stated.width
                )
            found.body(stream, network.state_dict())
        return found

    def body(self, stream: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights of one network but those of its last layer.

        Args:
            wanted: Names and shapes.

        Raises:
            UserError: if others are there, or numbers that are not finite.
        """
        path = self.folder / stream / _FILE
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} holds no weights ({type(error).__name__}: {error})") from error
        shapes = {name: value.shape for name, value in wanted.items() if not name.startswith(_HEAD)}
        found = {name: value for name, value in weights.items() if not name.startswith(_HEAD)}
        for name in sorted(shapes | found):
            if name not in found or name not in shapes or found[name].shape != shapes[name]:
                have = tuple(found[name].shape) if name in found else "nothing"
                want = tuple(shapes[name]) if name in shapes else "nothing"
                raise UserError(
                    f"{path} is of another network than {self.spec} of this width and these clips: {name} is {have}, not {want}"
                )
        if bad := [name for name, value in found.items() if not torch.isfinite(value.double()).all()]:
            raise UserError(f"{path} holds numbers that are not finite: {bad[0]}")
        return found

    def budget(self, preset: Preset) -> Preset:
        """The preset with the width of these networks."""
        return replace(preset, attack=replace(preset.attack, width=self.stated.width))


@dataclass(frozen=True)
class SubmittedNetworks(Attacker):
    """A known neural attacker that starts with what strangers taught it.

    At every level its last layers are fitted anew; where it knows the anonymizer, all of it is fine-tuned besides, from there.
    Its other layers may have been trained on the very clips that are tested, which nobody can see in them: so, as scores do, it
    counts as little as a control.
    """

    folder: str = field(default="")
    target: str = "subject"
    code_version: int = 1
    learns_representation = True
    control = True

    def __post_init__(self) -> None:
        """The files are checked when they are read."""

    def _networks(self) -> Networks:
        return Networks.load(Path(self.folder))

    def reads(self, clips: ClipSet) -> bool:
        """Whether clips have the layout and the number of bodies that its networks are made for."""
        stated = self._networks().stated
        return (clips.layout.name, clips.num_bodies) == (stated.layout, stated.bodies)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        networks = self._networks()
        return networks.spec.value.budget(networks.budget(preset))

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        networks = self._networks()
        if not self.reads(clips):
            raise UserError(
                f"its networks read {networks.stated.bodies} bodies of layout {networks.stated.layout}, these clips have "
                f"{clips.num_bodies} of {clips.layout.name}"
            )
        value, own = networks.spec.value, networks.budget(preset)
        with TemporaryDirectory(prefix="bench-") as name:
            for stream in _streams(networks.spec):
                config = value.config(own)
                network = classifiers.build(value.backbone, replace(clips, stream=stream), len(part.classes), config, seed)
                network.load_state_dict({**network.state_dict(), **networks.body(stream, network.state_dict())})
                (Path(name) / stream).mkdir()
                classifiers.save(network, Path(name) / stream)
            return NO_CODE | value.refit(clips, part, own, folder, start=Path(name), seed=seed, progress=progress)

    def refit(self, clips: ClipSet, part: Part, preset: Preset, folder: Path, **how: Any) -> dict[str, Any]:
        networks = self._networks()
        return NO_CODE | networks.spec.value.refit(clips, part, networks.budget(preset), folder, **how)

    def fine_tune(self, clips: ClipSet, part: Part, preset: Preset, folder: Path, **how: Any) -> dict[str, Any]:
        networks = self._networks()
        return NO_CODE | networks.spec.value.fine_tune(clips, part, networks.budget(preset), folder, **how)

    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        networks = self._networks()
        return networks.spec.value.scores(clips, indices, part, networks.budget(preset), folder)
