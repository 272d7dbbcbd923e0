"""Shallow attackers: cheap, hard to fool, explainable (methods.md section 5.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attackers.features import bone_features
from bench.attacker import Attacker
from bench.data.clips import ClipSet
from bench.presets import Preset
from bench.protocols import Part
from bench.specs import param
from bench.training import Progress

_MODEL = "model.skops"


@dataclass(frozen=True)
class BonesLDA(Attacker):
    """Names the person by linear discriminant analysis on bone lengths: finds any method that keeps body shape."""

    target: str = param("subject", "label that it learns")

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        import skops.io
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        learn = np.sort(np.concatenate([part.train, part.validation]))  # nothing to choose: the validation part trains as well
        # Shrinkage keeps the covariance invertible with fewer clips than features; equal priors: no person is favoured.
        classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(len(part.classes), part.chance))
        model = make_pipeline(StandardScaler(), classifier)
        model.fit(_features(clips, learn), part.labels[learn])
        skops.io.dump(model, folder / _MODEL)
        return {"features": int(model.n_features_in_), "clips": len(learn)}

    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        import skops.io

        model = skops.io.load(folder / _MODEL)
        return model.predict_proba(_features(clips, indices)).astype(np.float32)


def _features(clips: ClipSet, indices: np.ndarray, batch: int = 256) -> np.ndarray:
    parts = torch.as_tensor(indices, device=clips.device).split(batch)
    return torch.cat([bone_features(clips.whole(part), clips.layout) for part in parts]).double().cpu().numpy()
