"""Trained networks of a known attacker, as files: `attacker.json` says what they are, `STREAM/model.safetensors` holds each.

Nothing in them is run, and of their last layer, which names the people of whoever trained it, nothing is used: it is fitted anew
to the clips that the attacker may learn from. What the other layers were trained on cannot be seen in them.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import classifiers
from bench.attacker import Attacker
from bench.data.clips import ClipSet
from bench.files import UserError, atomic_folder, read_json, write_json
from bench.jobs import Training
from bench.pipeline import Bench
from bench.presets import Preset
from bench.protocols import LINKAGE, Part
from bench.registry import ATTACKERS, BACKBONES
from bench.skeleton import get_layout
from bench.specs import Spec, parse_spec
from bench.submission.prepared import NO_CODE
from bench.threat import Learning
from bench.training import Progress

_STATED = "attacker.json"
_FILE = "model.safetensors"
_HEAD = "classifier."  # of every backbone
_LONGEST = 2**16  # bytes of attacker.json
_HEADER = 2**20  # bytes of a file of weights that are none
_FRAMES = 32  # of made-up clips


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
    width: Annotated[float, Field(gt=0.0, le=2.0)]
    layout: Annotated[str, Field(max_length=40)]
    bodies: Annotated[int, Field(ge=1, le=10)]
    classes: Annotated[int, Field(ge=2, le=10_000)]
    fitted_to: Annotated[dict[str, str | int], Field(max_length=10)] = {}


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
        Networks.load(temporary)  # nothing is written that could not be read
    return folder


def _streams(spec: Spec) -> tuple[str, ...]:
    """What the networks of a neural attacker read, one each.

    Raises:
        UserError: if it is no neural attacker of this package that names classes.
        LookupError: if there is no such backbone.
    """
    parameters = spec.parameters
    neural = {"backbone", "streams"} <= set(parameters) and not spec.value.control and spec.value.target != LINKAGE
    if spec.plugin.provider != "builtin" or not neural or BACKBONES[parameters["backbone"]].provider != "builtin":
        raise UserError(f"{spec} is no neural attacker of this package; submit it as code")
    return tuple(parameters["streams"].split("+"))


@dataclass(frozen=True)
class Networks:
    """Such a folder, read and found to fit what it says of itself.

    Args:
        stated: What it says.
        spec: The attacker.
        bodies: For each stream, the weights of its network but those of its last layer.
    """

    stated: Stated
    spec: Spec
    bodies: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def load(cls, folder: Path) -> "Networks":
        """Reads the folder; nothing is read that is larger than what it must be.

        Raises:
            UserError: if it is not whole, its attacker is unknown, or its weights are those of another network, or of none that
                can name anything.
        """
        stated = _stated(folder / _STATED)
        spec = parse_spec(stated.attacker, ATTACKERS)
        try:
            layout = get_layout(stated.layout)
            shape = {"layout": layout, "num_classes": stated.classes, "num_bodies": stated.bodies, "width": stated.width}
            bodies = {}
            for stream in _streams(spec):
                network = BACKBONES[spec.parameters["backbone"]].load()(**shape)
                weights = _weights(folder / stream / _FILE, network, spec)
                network.load_state_dict(weights)
                with torch.no_grad():
                    said = network.eval()(torch.randn(2, 3, _FRAMES, layout.num_joints, stated.bodies))
                if not torch.isfinite(said).all():
                    raise UserError(f"{folder / stream / _FILE}: the network says nothing finite of clips")
                bodies[stream] = {name: value for name, value in weights.items() if not name.startswith(_HEAD)}
        except (LookupError, ImportError) as error:
            raise UserError(str(error)) from error
        return cls(stated, spec, bodies)

    def budget(self, preset: Preset) -> Preset:
        """The preset with the width of these networks."""
        return replace(preset, attack=replace(preset.attack, width=self.stated.width))


def _stated(path: Path) -> Stated:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LONGEST:
            raise ValueError(f"it must be a plain file of at most {_LONGEST} bytes")
        return Stated.model_validate(read_json(path))
    except (OSError, ValueError) as error:  # a ValidationError is a ValueError
        told = f"{e['loc']}: {e['msg']}" if isinstance(error, ValidationError) and (e := error.errors()[0]) else str(error)
        raise UserError(f"{path} does not say what its networks are ({told})") from error


def _weights(path: Path, network: nn.Module, spec: Spec) -> dict[str, Tensor]:
    """All weights of a network, as it has them.

    Raises:
        UserError: if others are there, or of another type, or numbers that are not finite, or variances below zero.
    """
    wanted = network.state_dict()
    try:
        if path.stat().st_size > sum(value.nbytes for value in wanted.values()) + _HEADER:
            raise UserError(f"{path} is larger than the weights of {spec} of this width")
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} holds no weights ({type(error).__name__}: {error})") from error
    for name in sorted(wanted.keys() | found.keys()):
        have, want = (_form(of.get(name)) for of in (found, wanted))
        if have != want:
            raise UserError(
                f"{path} is of another network than {spec} of this width and these clips: {name} is {have}, not {want}; what an "
                "older version of this package exported has to be exported again"
            )
        if not torch.isfinite(found[name]).all() or (name.endswith("running_var") and (found[name] < 0).any()):
            raise UserError(f"{path} holds numbers that are not finite, or variances below zero: {name}")
    return found


def _form(value: Tensor | None) -> str:
    return "nothing" if value is None else f"{value.dtype} of shape {tuple(value.shape)}"


@cache
def _networks(folder: str) -> Networks:
    return Networks.load(Path(folder))


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

    def reads(self, clips: ClipSet) -> bool:
        """Whether clips have the layout and the number of bodies that its networks are made for."""
        stated = _networks(self.folder).stated
        return (clips.layout.name, clips.num_bodies) == (stated.layout, stated.bodies)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        networks = _networks(self.folder)
        return networks.spec.value.budget(networks.budget(preset))

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        networks = _networks(self.folder)
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
                network.load_state_dict({**network.state_dict(), **networks.bodies[stream]})
                (Path(name) / stream).mkdir()
                classifiers.save(network, Path(name) / stream)
            return NO_CODE | value.refit(clips, part, own, folder, start=Path(name), seed=seed, progress=progress)

    def refit(self, clips: ClipSet, part: Part, preset: Preset, folder: Path, **how: Any) -> dict[str, Any]:
        networks = _networks(self.folder)
        return NO_CODE | networks.spec.value.refit(clips, part, networks.budget(preset), folder, **how)

    def fine_tune(self, clips: ClipSet, part: Part, preset: Preset, folder: Path, **how: Any) -> dict[str, Any]:
        networks = _networks(self.folder)
        return NO_CODE | networks.spec.value.fine_tune(clips, part, networks.budget(preset), folder, **how)

    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        networks = _networks(self.folder)
        return networks.spec.value.scores(clips, indices, part, networks.budget(preset), folder)
