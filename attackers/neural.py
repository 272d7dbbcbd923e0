"""Neural attackers: a graph network trained to name the person or an attribute."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench import classifiers
from bench.attacker import Attacker
from bench.data.clips import STREAMS, ClipSet
from bench.presets import Preset, TrainingConfig
from bench.protocols import Part
from bench.specs import param
from bench.training import Progress

_FUSIONS = (*STREAMS, "joint+bone", "+".join(STREAMS))


@dataclass(frozen=True)
class NeuralAttacker(Attacker):
    """A backbone with a classification head, trained by the preset's recipe on what the threat level allows.

    With several streams, one network learns from each, and their class probabilities are averaged clip by clip.
    """

    backbone: str = param("shift-gcn", "network that reads the clips")
    target: str = param("subject", "label that it learns")
    balanced: bool = param(False, "weigh classes by the inverse of their frequency")
    streams: str = param("joint", "what it reads", choices=_FUSIONS)

    learns_representation: ClassVar[bool] = True

    def config(self, preset: Preset) -> TrainingConfig:
        """The budget as it holds for this backbone."""
        return replace(classifiers.config_for(self.backbone, preset.attack), balanced=self.balanced)

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return asdict(self.config(preset))

    def fit(
        self,
        clips: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        seed: int,
        start: Path | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        return self._each(
            lambda name, seen, report: classifiers.fit_classifier(
                self.backbone,
                seen,
                part,
                self.config(preset),
                _made(folder / name),
                seed=seed,
                start=start and start / name,
                progress=report,
            ),
            clips,
            progress,
        )

    def fine_tune(
        self,
        clips: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        start: Path,
        seed: int,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        return self.fit(clips, part, preset, folder, seed=seed, start=start, progress=progress)

    def refit(
        self,
        clips: ClipSet,
        part: Part,
        preset: Preset,
        folder: Path,
        *,
        start: Path,
        seed: int,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        return self._each(
            lambda name, seen, _: classifiers.refit_head(
                self.backbone, seen, part, self.config(preset), _made(folder / name), seed=seed, start=start / name
            ),
            clips,
            progress,
        )

    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        config = self.config(preset)
        each = [
            classifiers.classifier_scores(self.backbone, replace(clips, stream=name), indices, part, config, folder / name)
            for name in self.streams.split("+")
        ]
        return np.mean(each, axis=0, dtype=np.float32)

    def _each(self, learn: Any, clips: ClipSet, progress: Progress | None) -> dict[str, Any]:
        """Has `learn(name, clips, progress)` learn every stream, and reports their steps as those of one training."""
        names, told = self.streams.split("+"), {}
        for number, name in enumerate(names):

            def report(done: int, total: int, text: str, number: int = number, name: str = name) -> None:
                if progress:
                    progress(number * total + done, len(names) * total, f"{name}: {text}" if len(names) > 1 else text)

            told[name] = learn(name, replace(clips, stream=name), report)
        return told if len(names) > 1 else told[names[0]]


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)  # an attempt that was interrupted may have left a checkpoint there
    return folder


@dataclass(frozen=True)
class ShiftGCNReID(NeuralAttacker):
    """Names the person by a Shift-GCN (Cheng et al., CVPR 2020), the attacker of Moon et al. (AAAI 2023)."""


@dataclass(frozen=True)
class ShiftGCNGender(NeuralAttacker):
    """Names the gender of unseen people by a Shift-GCN; classes are weighed equally, since data sets are rarely balanced."""

    target: str = param("gender", "label that it learns")
    balanced: bool = param(True, "weigh classes by the inverse of their frequency")


@dataclass(frozen=True)
class MSG3DReID(NeuralAttacker):
    """Names the person by an MS-G3D (Liu et al., CVPR 2020)."""

    backbone: str = param("ms-g3d", "network that reads the clips")


@dataclass(frozen=True)
class MSG3DGender(ShiftGCNGender):
    """Names the gender of unseen people by an MS-G3D (Liu et al., CVPR 2020), classes weighed equally."""

    backbone: str = param("ms-g3d", "network that reads the clips")


@dataclass(frozen=True)
class TwoStreamAGCNReID(NeuralAttacker):
    """Names the person by two adaptive graph networks, on joints and on bones (2s-AGCN; Shi et al., CVPR 2019)."""

    backbone: str = param("2s-agcn", "network that reads the clips")
    streams: str = param("joint+bone", "what it reads", choices=_FUSIONS)


@dataclass(frozen=True)
class TwoStreamAGCNGender(ShiftGCNGender):
    """Names the gender of unseen people by two adaptive graph networks (2s-AGCN), classes weighed equally."""

    backbone: str = param("2s-agcn", "network that reads the clips")
    streams: str = param("joint+bone", "what it reads", choices=_FUSIONS)


@dataclass(frozen=True)
class SGNReID(NeuralAttacker):
    """Names the person by an SGN (Zhang et al., CVPR 2020), the small network that PMR and TMR are evaluated with."""

    backbone: str = param("sgn", "network that reads the clips")


@dataclass(frozen=True)
class SGNGender(ShiftGCNGender):
    """Names the gender of unseen people by an SGN (Zhang et al., CVPR 2020), classes weighed equally."""

    backbone: str = param("sgn", "network that reads the clips")
