"""`bench` in this process, with a budget of seconds."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from bench.cli import main
from bench.presets import PRESETS
from bench.records import Record, records
from bench.registry import BACKBONES, Plugin

DATA = "synthetic:people=4,motions=3,cameras=1"
HERE = ["--executor", "serial"]  # the tiny budget is known to this process alone
RUN = [
    "run",
    "--dataset",
    DATA,
    "--anonymizer",
    "identity,null,gauss:std=0.1",
    "--attacker",
    "bones-lda,shiftgcn-reid:backbone=simple",
    "--no-mlflow",
    *HERE,
]


class Simple(nn.Module):
    """A backbone that learns in no time: linear in the mean pose and its spread."""

    def __init__(self, *, layout, num_classes, num_bodies, width=1.0, in_channels=3):
        super().__init__()
        size = 2 * in_channels * layout.num_joints * num_bodies
        self.norm = nn.BatchNorm1d(size, affine=False, momentum=0.5)
        self.classifier = nn.Linear(size, num_classes)

    def embed(self, clips):
        return self.norm(torch.cat([clips.mean(2).flatten(1), clips.std(2).flatten(1)], dim=1))

    def forward(self, clips):
        return self.classifier(self.embed(clips))


def shrink_budget(patch: pytest.MonkeyPatch) -> None:
    """Makes `quick` a matter of seconds: few epochs, a simple network."""
    quick = PRESETS["quick"]
    small = {name: dataclasses.replace(getattr(quick, name), epochs=12, frames=16, batch=4) for name in ("attack", "utility")}
    patch.setitem(PRESETS, "quick", dataclasses.replace(quick, utility_backbone="simple", **small))
    patch.setitem(BACKBONES._builtin, "simple", Plugin("backbone", "simple", f"{__name__}:Simple", "builtin"))


def bench(*arguments: str, results: Path) -> Result:
    """What a command says and how it ends; an error that it does not tell by itself is raised."""
    return CliRunner().invoke(main, [*arguments, "--results", str(results)], catch_exceptions=False)


def stages(results: Path, name: str) -> list[dict]:
    """What each stage of a kind states."""
    return [json.loads(file.read_text()) for file in (results / "stages" / name).glob("*/stage.json")]


def record_bytes(results: Path) -> dict[str, bytes]:
    """Every record without its manifest."""
    folder = results / "records"
    files = {path: path.read_bytes() for path in folder.rglob("*.json") if not path.name.endswith(".manifest.json")}
    return {str(path.relative_to(folder)): content for path, content in files.items()}


def rewrite(record: Record, data: Mapping[str, Any]) -> None:
    """Changes what a record states, and seals it anew: what only an audit finds."""
    record.path.write_text(json.dumps(data))
    reseal(record.path)


def reseal(path: Path) -> None:
    """Makes the manifest state what the record's files are now."""
    manifest = path.with_name(f"{path.stem}.manifest.json")
    now = {kind: hashlib.sha256(path.with_suffix(f".{kind}").read_bytes()).hexdigest() for kind in ("json", "npz")}
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sha256": now}))


def cut_predictions(results: Path) -> Path:
    """Cuts the predictions of a record; says which."""
    record = next(records(results / "records"))
    file = record.path.with_suffix(".npz")
    file.write_bytes(file.read_bytes()[:1000])
    return record.path


def change_chance(results: Path) -> Path:
    """Changes what a record states as chance, by which leakage is normalised; says which."""
    record = next(records(results / "records"))
    record.path.write_text(json.dumps({**record.data, "chance": 0.5}))
    return record.path


def change_predictions(results: Path, *, sealed: bool = False) -> Path:
    """Writes other predictions beside a record, and with `sealed` makes its manifest state these; says which."""
    record = next(records(results / "records"))
    arrays = record.predictions()
    arrays["attack"][0] = 1 - arrays["attack"][0]
    np.savez(record.path.with_suffix(".npz"), **arrays)
    if sealed:
        reseal(record.path)
    return record.path
