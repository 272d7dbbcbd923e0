"""Neural attackers: a graph network trained to name the person or an attribute (methods.md section 5.1)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.attacker import Attacker
from bench.classifiers import classifier_scores, fit_classifier
from bench.data.clips import ClipSet
from bench.presets import Preset, TrainingConfig
from bench.protocols import Part
from bench.specs import param
from bench.training import Progress


@dataclass(frozen=True)
class NeuralAttacker(Attacker):
    """A backbone with a classification head, trained by the preset's recipe on what the threat level allows."""

    backbone: str = param("shift-gcn", "network that reads the clips")
    target: str = param("subject", "label that it learns")
    balanced: bool = param(False, "weigh classes by the inverse of their frequency")

    def _config(self, preset: Preset) -> TrainingConfig:
        return replace(preset.attack, balanced=self.balanced)

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        return fit_classifier(self.backbone, clips, part, self._config(preset), folder, seed=seed, progress=progress)

    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        return classifier_scores(self.backbone, clips, indices, part, self._config(preset), folder)


@dataclass(frozen=True)
class ShiftGCNReID(NeuralAttacker):
    """Names the person by a Shift-GCN (Cheng et al., CVPR 2020), the attacker of Moon et al. (AAAI 2023)."""


@dataclass(frozen=True)
class ShiftGCNGender(NeuralAttacker):
    """Names the gender of unseen people by a Shift-GCN; classes are weighed equally, since data sets are rarely balanced."""

    target: str = param("gender", "label that it learns")
    balanced: bool = param(True, "weigh classes by the inverse of their frequency")
