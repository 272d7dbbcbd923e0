"""An experiment: what is to be evaluated, as somebody asks for it; from the command line, a file, or a job of a batch system."""

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench.files import UserError, digest
from bench.plan import DEFAULT_THREATS, Plan, make_plan, protocol_names
from bench.presets import get_preset
from bench.progress import Display


@dataclass(frozen=True)
class Experiment:
    """What is to be evaluated; equal experiments have equal digests, however they were asked for.

    Args:
        dataset: Data set with its parameters.
        protocol: Name of a split; None for the data set's default one.
        anonymizer, attacker, threat: Comma lists, or `all`; None for the default attackers.
        preset: Budget.
        seeds: Seeds of the trainings; None for the first ones, as many as the preset asks for.
        controls: Whether `identity`, `null` and the controls of each target are measured if they are not named.
    """

    dataset: str = "synthetic"
    protocol: str | None = None
    anonymizer: str = "identity,null,gauss"
    attacker: str | None = None
    threat: str = DEFAULT_THREATS
    preset: str = "quick"
    seeds: tuple[int, ...] | None = None
    controls: bool = True

    @property
    def digest(self) -> str:
        return digest(asdict(self))

    def plans(self, results: Path) -> list[Plan]:
        """What is to be done for it: one plan, or one for each fold.

        Raises:
            UserError: with one line that says what is wrong and what would be right.
        """
        preset, plans = get_preset(self.preset), []
        results = results.resolve()  # workers may have another current folder
        names = protocol_names(self.dataset, self.protocol, results)
        for name in names:
            with Display() as display, display.step(f"read {self.dataset}", quiet=True) as report:
                plan = make_plan(
                    dataset=self.dataset,
                    protocol=name,
                    siblings=[other for other in names if other != name],
                    anonymizers=self.anonymizer,
                    attackers=self.attacker,
                    threats=self.threat,
                    preset=preset,
                    seeds=range(preset.seeds) if self.seeds is None else self.seeds,
                    results=results,
                    controls=self.controls,
                    progress=lambda done, total, report=report: report(done, total, f"{done} clips"),
                )
                plans.append(plan)
        return plans

    @classmethod
    def of_job(cls, path: Path) -> "Experiment":
        """The job that a file of `bench plan --jobs` describes.

        Raises:
            UserError: if it is no such file.
        """
        found = read_settings(path, [field.name for field in fields(cls)])
        if isinstance(found.get("seeds"), list):
            found["seeds"] = tuple(found["seeds"])
        for field in fields(cls):
            value = found.get(field.name, field.default)
            wanted = (tuple, type(None)) if field.name == "seeds" else (bool,) if field.name == "controls" else (str, type(None))
            if not isinstance(value, wanted) or (value is None and field.default is not None):
                raise UserError(
                    f"{path}: {field.name} must not be {json.dumps(value)}; `bench plan --jobs DIR` writes such files"
                )
        return cls(**found)


def read_settings(path: Path, known: Sequence[str]) -> dict[str, Any]:
    """What a TOML or JSON file sets.

    Args:
        known: Names that may be set; "_" may be written "-".

    Raises:
        UserError: if it cannot be read, is neither TOML nor JSON, or sets something unknown.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of JSON, of TOML, and of the encoding
        raise UserError(f"{path} is no {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds no settings; write name = value")
    settings = {name.replace("-", "_"): value for name, value in found.items()}
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it may set {', '.join(known)}"
            raise UserError(f"{path} sets {name!r}, which is unknown; {hint}")
    return settings
