"""Shallow attackers: cheap, hard to fool, explainable.

All look at body 0 alone, learn from the training and the validation part, and hold all classes equally likely beforehand,
however many clips each has: what counts is the balanced top-1. `flat-svm` does so as far as penalties can: with more dimensions
than clips it separates all training clips whatever they cost, and still leans towards the larger classes.
"""

import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from attackers.features import bone_features
from attackers.movement import direction_features, flat_features, stats_features
from bench.attacker import Attacker
from bench.data.clips import ClipSet
from bench.presets import Preset
from bench.protocols import Part
from bench.specs import param
from bench.training import Progress

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

_MODEL = "model.skops"
_ROUNDING = 1e-5  # of lengths in metres, and of their ratios: a hundredth of a millimetre
_FEW = 10  # clips of a class
_BATCH = 128  # clips whose features are computed at a time
_TREE = "sklearn.tree._tree.Tree"
_BOOSTED_TREE = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"


@dataclass(frozen=True)
class ShallowAttacker(Attacker):
    """Hand-made features of clips, read by a scikit-learn model that is stored without pickles.

    A subclass says what it knows of clips (`features`) and how it learns from that (`learn`). `trusted` names the types of its
    model that skops does not load unasked.
    """

    target: str = param("subject", "label that it learns")
    learns_validation: ClassVar[bool] = True
    trusted: ClassVar[tuple[str, ...]] = ()

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return {}

    @abstractmethod
    def features(self, clips: ClipSet, indices: np.ndarray) -> np.ndarray:
        """(n, F) of the clips at `indices`."""

    @abstractmethod
    def learn(self, features: np.ndarray, at: np.ndarray, part: Part, seed: int) -> tuple["ClassifierMixin", dict[str, Any]]:
        """Fits a classifier.

        Args:
            features: (n, F) of the clips to learn from.
            at: (n,) their indices: those of the training and of the validation part, each class among them.
            part: Target, labels and indices.
            seed: Source of all randomness.

        Returns:
            The model, and what the record should keep about it.
        """

    def training_clips(self, part: Part, seed: int) -> np.ndarray:
        """Indices of the clips to learn from, in ascending order."""
        return np.sort(np.concatenate([part.train, part.validation]))

    def probabilities(self, model: "ClassifierMixin", features: np.ndarray, part: Part) -> np.ndarray:
        """Class probabilities (n, K) that the model gives to features (n, F)."""
        return model.predict_proba(features)

    def fit(
        self, clips: ClipSet, part: Part, preset: Preset, folder: Path, *, seed: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        import skops.io

        at = self.training_clips(part, seed)
        if (found := len(np.unique(part.labels[at]))) != len(part.classes):
            raise ValueError(f"expected training clips of all {len(part.classes)} classes of {part.target}, got {found}")
        model, info = self.learn(self.features(clips, at), at, part, seed)
        skops.io.dump(model, folder / _MODEL, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
        return {"features": int(model.n_features_in_), "clips": len(at), **info}

    def scores(self, clips: ClipSet, indices: np.ndarray, part: Part, preset: Preset, folder: Path) -> np.ndarray:
        import skops.io

        model = skops.io.load(folder / _MODEL, trusted=list(self.trusted))
        return self.probabilities(model, self.features(clips, indices), part).astype(np.float32)


@dataclass(frozen=True)
class DescribingAttacker(ShallowAttacker):
    """Features that follow from the coordinates of each clip alone."""

    @abstractmethod
    def describe(self, batch: Tensor, clips: ClipSet) -> Tensor:
        """Features (N, F) of whole clips (N, 3, T, V, M), metres, padded with zeros; `clips` tells layout and frame rate."""

    def features(self, clips: ClipSet, indices: np.ndarray) -> np.ndarray:
        parts = torch.as_tensor(indices, device=clips.device).split(_BATCH)
        return torch.cat([self.describe(clips.whole(part), clips) for part in parts]).cpu().numpy()


@dataclass(frozen=True)
class BonesLDA(DescribingAttacker):
    """Names the person by linear discriminant analysis on bone lengths: finds any method that keeps body shape."""

    code_version: ClassVar[int] = 2

    def describe(self, batch: Tensor, clips: ClipSet) -> Tensor:
        return bone_features(batch, clips.layout).double()

    def learn(self, features, at, part, seed):
        return _beyond_rounding(_discriminant(part), features, part.labels[at]), {}


@dataclass(frozen=True)
class BonesKNN(DescribingAttacker):
    """Names the person by the training clips with the most similar bone lengths: finds any method that keeps body shape."""

    k: int = param(5, "number of nearest training clips that vote", minimum=1)
    weights: str = param("distance", "votes count equally, or by the inverse of the distance", choices=("uniform", "distance"))

    code_version: ClassVar[int] = 2

    def describe(self, batch: Tensor, clips: ClipSet) -> Tensor:
        return bone_features(batch, clips.layout).double()

    def learn(self, features, at, part, seed):
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        # By brute force: there are too many features for a tree of clips to help, and skops does not load one unasked.
        votes = KNeighborsClassifier(min(self.k, len(at)), weights=self.weights, algorithm="brute", n_jobs=1)
        return _beyond_rounding(make_pipeline(StandardScaler(), votes), features, part.labels[at]), {}

    def probabilities(self, model: "ClassifierMixin", features: np.ndarray, part: Part) -> np.ndarray:
        # One more vote, spread over all classes: a class without a neighbour is unlikely, not impossible.
        return (self.k * _balanced(model.predict_proba(features), part) + part.chance) / (self.k + 1)


@dataclass(frozen=True)
class FlatSVM(DescribingAttacker):
    """Names the person by a support vector machine on the clip as it is: the recognition attack on Pantomime's releases.

    Hanisch, Todt and Strufe (PoPETs 2026): clips resampled to 100 frames and flattened, scaled by the largest absolute value,
    principal components with 0.99 of the variance, radial basis functions. Penalty and width of the functions are chosen on
    the validation part, from a grid: what suits one data set halves the leakage on another. Scores are the softmax of the
    decision function.
    """

    most_clips: int = param(
        4000, "training clips beyond which it learns from a random choice, the same number of each class", minimum=2
    )
    penalties: ClassVar[tuple[float, ...]] = (10.0, 100.0)
    widths: ClassVar[tuple[float, ...]] = (1.0, 0.3, 0.1, 0.03)  # gamma in units of 1 / (components * their mean variance)

    def describe(self, batch: Tensor, clips: ClipSet) -> Tensor:
        return flat_features(batch).float()

    def training_clips(self, part: Part, seed: int) -> np.ndarray:
        return _thinned(super().training_clips(part, seed), part.labels, self.most_clips, seed)

    def learn(self, features, at, part, seed):
        from sklearn.decomposition import PCA
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import MaxAbsScaler
        from sklearn.svm import SVC

        labels, held = part.labels[at], np.isin(at, part.validation)
        reduce = Pipeline([("scale", MaxAbsScaler()), ("components", PCA(0.99, svd_solver="full"))])
        with np.errstate(invalid="ignore"):  # clips that are all the same have no variance to share out
            reduced = reduce.fit_transform(features)
        unit = 1 / max(reduced.shape[1] * float(reduced.var()), 1e-9)
        grid = [{"C": penalty, "gamma": width * unit} for penalty in self.penalties for width in self.widths]
        recalls = [0.0] * len(grid)
        if held.any():
            tried = (SVC(class_weight="balanced", **choice).fit(reduced[~held], labels[~held]) for choice in grid)
            recalls = [_recall(labels[held], svm.predict(reduced[held])) for svm in tried]
        best = int(np.argmax(recalls))
        svm = SVC(class_weight="balanced", **grid[best]).fit(reduced, labels)
        info = {"components": reduced.shape[1], **grid[best], "validation_recall": recalls[best]}
        return Pipeline([*reduce.steps, ("svm", svm)]), info

    def probabilities(self, model: "ClassifierMixin", features: np.ndarray, part: Part) -> np.ndarray:
        decision = model.decision_function(features)
        if decision.ndim == 1:  # two classes: one margin
            decision = np.stack([-decision, decision], axis=1) / 2
        raised = np.exp(decision - decision.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class StatsRF(DescribingAttacker):
    """Names the person by a random forest on where each joint is and how fast it moves."""

    trees: int = param(500, "number of trees", minimum=1)
    leaves: int = param(512, "most leaves of a tree; bounds memory where there are many clips and classes", minimum=2)
    trusted: ClassVar[tuple[str, ...]] = (_TREE,)

    def describe(self, batch: Tensor, clips: ClipSet) -> Tensor:
        return stats_features(batch, clips.frame_rate)

    def learn(self, features, at, part, seed):
        forest = _forest(self.trees, seed, max_leaf_nodes=self.leaves, max_features="log2")
        return forest.fit(features, part.labels[at]), {}

    def probabilities(self, model: "ClassifierMixin", features: np.ndarray, part: Part) -> np.ndarray:
        return _balanced(model.predict_proba(features), part)


@dataclass(frozen=True)
class GaitDyn(DescribingAttacker):
    """Names the person by posture and movement alone, never by size: finds what survives retargeting to another body.

    Gradient boosting on bone directions. Trees split on one number at a time and need many clips of each person to add up many
    weak hints, so they do not see the directions but the class probabilities that linear discriminants give to them; those of
    the training clips come from discriminants that saw no clip of the same performance, in up to five folds. Where a class has
    fewer than three performances, or ten clips, there is too little to leave out: trees would learn to contradict discriminants
    that missed a third of it, so the discriminants alone decide.
    """

    rounds: int = param(20, "boosting rounds, each with one tree a class; 0 leaves it to the discriminants", minimum=0)
    trusted: ClassVar[tuple[str, ...]] = (_BOOSTED_TREE, "sklearn.utils._bunch.Bunch")
    code_version: ClassVar[int] = 2

    def describe(self, batch: Tensor, clips: ClipSet) -> Tensor:
        return direction_features(batch, clips.layout, clips.frame_rate)

    def learn(self, features, at, part, seed):
        from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier

        labels = part.labels[at]
        linear, folds = _discriminant(part), _folds(labels, part.performances[at], most=5)
        if len(folds) < 3 or np.bincount(labels).min() < _FEW or not self.rounds:
            return linear.fit(features, labels), {"folds": 0}
        boosting = HistGradientBoostingClassifier(
            learning_rate=0.2,
            max_iter=self.rounds,
            max_leaf_nodes=4,
            min_samples_leaf=len(folds),
            l2_regularization=1.0,  # with a hundred classes, a Newton step without it is so long that nothing is learnt
            early_stopping=False,
            class_weight="balanced",
            random_state=seed,
        )
        stack = StackingClassifier([("linear", linear)], boosting, cv=folds, stack_method="predict_proba")
        return stack.fit(features, labels), {"folds": len(folds)}


@dataclass(frozen=True)
class Nuisance(ShallowAttacker):
    """Names the person without looking at the body: by a clip's length and, where known, room and camera.

    What it finds is no property of the body and not an anonymizer's to remove: the share of a leakage that another attacker
    may owe to the recording. It says the same of every release.
    """

    control: ClassVar[bool] = True
    trusted: ClassVar[tuple[str, ...]] = (_TREE,)

    def features(self, clips: ClipSet, indices: np.ndarray) -> np.ndarray:
        columns = [clips.lengths[:, None].double()]
        if clips.nuisance is not None:
            columns.append(clips.nuisance.double())
        return torch.cat(columns, dim=1).cpu().numpy()[indices]

    def learn(self, features, at, part, seed):
        return _forest(100, seed, min_samples_leaf=3, max_features=None).fit(features, part.labels[at]), {}

    def probabilities(self, model: "ClassifierMixin", features: np.ndarray, part: Part) -> np.ndarray:
        return _balanced(model.predict_proba(features), part)


@dataclass(frozen=True)
class ShuffledLabels(BonesLDA):
    """As `bones-lda`, but learns wrong names: those of its training performances, dealt out at random.

    There is nothing to learn, so whatever it finds beyond chance reached it by another way than learning: the measurement is
    broken.
    """

    control: ClassVar[bool] = True

    def learn(self, features, at, part, seed):
        names, first, of = np.unique(part.performances[at], return_index=True, return_inverse=True)
        dealt = part.labels[at][first][np.random.default_rng(seed).permutation(len(names))]
        return _beyond_rounding(_discriminant(part), features, dealt[of]), {}


def _beyond_rounding(model: "Pipeline", features: np.ndarray, labels: np.ndarray) -> "Pipeline":
    """Fits a scaler and a classifier to lengths and ratios of lengths (n, F); those that vary by no more than rounding become 0.

    Where everybody has the same bones, their lengths differ by rounding alone. That hangs on where joints are: brought to
    variance 1 it would name people by how they move, to an attacker that is to read nothing but lengths.
    """
    scaler, classifier = model[0], model[-1]
    scaler.fit(features)
    scaler.scale_[np.sqrt(scaler.var_) < _ROUNDING] = np.inf
    classifier.fit(scaler.transform(features), labels)
    return model


def _discriminant(part: Part) -> "Pipeline":
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Shrinkage keeps the covariance invertible with fewer clips than features; equal priors: no person is favoured.
    priors = np.full(len(part.classes), part.chance)
    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=priors))


def _forest(trees: int, seed: int, **options: Any) -> "ClassifierMixin":
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(trees, n_jobs=1, random_state=seed, **options)


def _folds(labels: np.ndarray, performances: np.ndarray, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions to learn from and positions left out, for each of up to `most` folds.

    A performance is left out as a whole, and every fold leaves out at least one of each class: there are no more folds than
    the rarest class has performances.
    """
    fold = np.empty(len(labels), dtype=np.int64)
    for k in np.unique(labels):
        found, which = np.unique(performances[labels == k], return_inverse=True)
        fold[labels == k], most = which, min(most, len(found))
    return [(np.flatnonzero(fold % most != i), np.flatnonzero(fold % most == i)) for i in range(most)]


def _balanced(probabilities: np.ndarray, part: Part) -> np.ndarray:
    """Probabilities (n, K) as they would be if every class had as many training clips as the next.

    Class weights do not do that for neighbours and for trees whose leaves are pure.
    """
    known = part.labels[np.concatenate([part.train, part.validation])]
    odds = probabilities / np.bincount(known, minlength=len(part.classes))
    return odds / odds.sum(axis=1, keepdims=True)


def _recall(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur of the share of their clips that is named rightly."""
    return float(np.mean([np.mean(predicted[labels == k] == k) for k in np.unique(labels)]))


def _thinned(indices: np.ndarray, labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of the clips, as equal a number of each class as there is, in ascending order; all of them if so few."""
    if len(indices) <= most:
        return indices
    drawn = np.random.default_rng(seed).permutation(indices)
    turn = np.empty(len(drawn), dtype=np.int64)  # how many clips of its class were drawn before each
    for k in np.unique(labels[drawn]):
        of_class = labels[drawn] == k
        turn[of_class] = np.arange(of_class.sum())
    return np.sort(drawn[np.argsort(turn, kind="stable")[:most]])
