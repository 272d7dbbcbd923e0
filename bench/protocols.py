"""Protocols: which clips train, validate and test each target, declared as data and checked whenever they are used.

A target is a column of the labels, `action` for utility, `subject` for re-identification, `gender` and other attributes; or
`linkage`, where pairs of clips of unseen people are to be told apart: the same person or not.
One performance (a person doing an action once, however many cameras film it) is never on both sides of a split; the check
is in `instantiate`. A split that must break it says so, and so does every row measured with it.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bench.files import UserError, digest
from bench.metrics.identification import top_k
from bench.metrics.verification import roc_auc
from bench.pairs import Pairs, make_pairs

ACTION, SUBJECT, LINKAGE = "action", "subject", "linkage"
ATTRIBUTES = ("gender", "age_group")  # labels of a person that some data sets have
MEASURED_TARGETS = ("height_class",)  # known of every data set, from its bones; asked of unseen people


class ProtocolError(UserError):
    """The data cannot support what a protocol asks for."""


@dataclass(frozen=True)
class Split:
    """Train and test clips by the values of one column.

    Args:
        by: Label column that decides, or one that follows from others (see `derivation`).
        train: Values whose clips train; the clips of all other values test.
        unseen: Whether the test people are unseen in training (attributes, utility) rather than the same (re-identification).
        alone: Whether only clips count that show one person: of others the labels do not say who is who (column `actors`).
        shares: Whether a performance may be on both sides, filmed by different cameras. For comparison with the literature
        only: the
            attacker may match the moment rather than the person, and every row says so.
    """

    by: str
    train: tuple[int, ...]
    unseen: bool
    shares: bool = False
    alone: bool = False


def _parity(labels: Any) -> Any:
    """1 where action and person minus replication are both odd or both even: half of each, balanced over actions (2
    elsewhere).
    """
    same = labels["action"] % 2 == (labels["subject"] - labels["replication"]) % 2
    return same.map({True: 1, False: 2}).astype("Int64")


def _session(labels: Any) -> Any:
    """1 for a person's earlier set-ups, 2 for the later ones; missing for people seen in one set-up only."""
    order = labels.groupby("subject")["setup"].rank(method="dense")
    last = order.groupby(labels["subject"]).transform("max")
    side = (order > (last / 2).apply(math.ceil)).map({True: 2, False: 1})
    return side.where((last > 1) & labels["setup"].notna()).astype("Int64")


def _people(labels: Any) -> Any:
    """1 for every second person, 2 for the others, in the order of their codes."""
    return 2 - labels["subject"].rank(method="dense").astype("Int64") % 2


def _occasions(labels: Any) -> Any:
    """1 for every second performance of a person in an action, 2 for the others, in the order of their names."""
    order = labels.groupby(["subject", "action"])["performance"].rank(method="dense")
    return 2 - order.astype("Int64") % 2


def _actions(labels: Any) -> Any:
    """1 for every second action, 2 for the others, in the order of their codes."""
    return 2 - labels["action"].rank(method="dense").astype("Int64") % 2


def _newcomers(labels: Any) -> Any:
    """Of NTU RGB+D 120: 1 for what is NTU RGB+D 60, 2 for people and actions that came later; old people there are missing."""
    first = (labels["subject"] <= 40) & (labels["action"] <= 60) & (labels["setup"] <= 17)
    later = (labels["subject"] > 40) & (labels["action"] > 60)
    return first.map({True: 1, False: None}).astype("Int64").fillna(later.map({True: 2, False: None}).astype("Int64"))


def _fold(labels: Any, number: int, count: int, target: str) -> Any:
    """2 for the people of one fold of several, 1 for all others: every so-many-th of those who have a label of the target.

    Where the label is an attribute, people are taken in its order, so that folds have like shares of each value; within one, and
    for actions, in the order of their codes.
    """
    known = labels[labels[target].notna()]
    people = known.drop_duplicates("subject").set_index("subject")[target]
    attribute = known.groupby("subject")[target].nunique().max() == 1
    order = sorted(people.index, key=lambda person: (people[person], person) if attribute else person)
    fold = {person: place % count + 1 for place, person in enumerate(order)}
    return labels["subject"].map(fold).map(lambda of: 2 if of == number else 1, na_action="ignore").astype("Int64")


# Columns that follow from others: name to the labels that it needs, and how. "fold 2 of 5" is one as well.
DERIVED = {
    "parity": (("action", "subject", "replication"), _parity),
    "session": (("subject", "setup"), _session),
    "people": (("subject",), _people),
    "actions": (("action",), _actions),
    "newcomers": (("subject", "action", "setup"), _newcomers),
    "occasions": (("subject", "action", "performance"), _occasions),
}


_FOLD = re.compile(r"fold (\d+) of (\d+)")
_FOLD_NAME = re.compile(r"(\d+)-fold-(\d+)(/1)?")


def fold_of(name: str) -> tuple[int, int] | None:
    """(number, count) of the protocol of one fold, by its name, e.g. "5-fold-2/1"; None for any other."""
    found = _FOLD_NAME.fullmatch(name)
    return found and (int(found[2]), int(found[1]))


def derivation(by: str, target: str) -> tuple[tuple[str, ...], Callable[[Any], Any]]:
    """The labels that a column needs, and how it follows from them; a column of the labels stands for itself."""
    if of := _FOLD.fullmatch(by):
        return ("subject",), partial(_fold, number=int(of[1]), count=int(of[2]), target=target)
    return DERIVED.get(by, ((by,), lambda labels: labels[by]))


@dataclass(frozen=True)
class Protocol:
    """How a data set is split.

    Args:
        name: Name and version, e.g. "xrep/1"; results of different protocols never share a table.
        splits: Target column to its split.
        validation: Share of the training performances that is held out for choosing the best epoch.
    """

    name: str
    splits: Mapping[str, Split]
    validation: float = 0.2

    def split(self, target: str) -> Split | None:
        """The split of a target; None if the protocol cannot test it."""
        if target not in MEASURED_TARGETS:
            return self.splits.get(target)
        return next((split for split in self.splits.values() if split.unseen), None)

    def fold(self, number: int, count: int) -> "Protocol":
        """The same questions asked about the people of one fold, 1 to `count`, who train in all other folds.

        Re-identification has no part in it: its people are the same on both sides. Nor has linkage, whose scores cannot be
        compared between the models of different folds.

        Raises:
            ProtocolError: if there is no such fold.
        """
        if not 1 <= number <= count or count < 2:
            raise ProtocolError(f"there is no fold {number} of {count}; it takes two folds, and numbers from 1")
        split = Split(by=f"fold {number} of {count}", train=(1,), unseen=True)
        asked = {target: own for target, own in self.splits.items() if (own.unseen or target == ACTION) and target != LINKAGE}
        splits = {target: replace(split, alone=own.alone) for target, own in asked.items()}
        return Protocol(f"{count}-fold-{number}/1", splits, self.validation)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "validation": self.validation, "splits": {t: _described(s) for t, s in self.splits.items()}}


def _described(split: Split) -> dict[str, Any]:
    """All values of a split but those that a later version added and that it does not use: older records keep their digests."""
    return {name: value for name, value in asdict(split).items() if name != "alone" or value}


@dataclass(frozen=True)
class Part:
    """The clips of one target, as indices into the store.

    Args:
        target: Label column.
        classes: Label values in class order.
        labels: (N,) class index of every clip of the store; -1 where the clip has no part in this target.
        train, validation, test: Clip indices, disjoint, in ascending order.
        subjects: (N,) subject code of every clip, for clustered intervals.
        performances: (N,) performance code of every clip: clips of one performance differ in their camera only.
        pairs: Linkage only: pairs of test clips.
        training_pairs, validation_pairs: Linkage only: pairs of training clips, and of validation clips.
        chance: 1 / number of classes; 1/2 for linkage.
        prior: Share of the largest class among the test clips: what top-1 gives for always naming it; 1/2 for linkage.
        prior_top5: Share of the five largest classes among the test clips; not a number for linkage.
    """

    target: str
    classes: tuple[Any, ...]
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    subjects: np.ndarray
    performances: np.ndarray
    pairs: Pairs | None = None
    training_pairs: Pairs | None = None
    validation_pairs: Pairs | None = None

    @property
    def chance(self) -> float:
        return 0.5 if self.pairs else 1 / len(self.classes)

    def _shares(self) -> np.ndarray:
        counts = np.bincount(self.labels[self.test], minlength=len(self.classes))
        return np.sort(counts / counts.sum())[::-1]

    @property
    def prior(self) -> float:
        return 0.5 if self.pairs else float(self._shares()[0])

    @property
    def prior_top5(self) -> float:
        return float("nan") if self.pairs else float(self._shares()[:5].sum())

    @property
    def digest(self) -> str:
        """Digest of what a trained model depends on: target, class order, labels, performances and who trains and validates."""
        arrays = [self.labels, self.performances, self.train, self.validation]
        return digest([self.target, [str(c) for c in self.classes], *(_array_digest(a) for a in arrays)])

    def asked(self, side: str) -> np.ndarray:
        """Clips of "test" or "validation"."""
        return self.test if side == "test" else self.validation

    def pairs_asked(self, side: str) -> Pairs | None:
        """Pairs of "test" or "validation"; None but for linkage."""
        return self.pairs if side == "test" else self.validation_pairs

    def quality(self, scores: np.ndarray, side: str, kept: np.ndarray | None = None) -> float:
        """How well scores of "test" or "validation" do: balanced top-1, or for linkage the area under the ROC curve.

        Args:
            scores: (n, K) of the clips, or (P,) of the pairs.
            side: Which.
            kept: (N,) which clips of the store count, and so which pairs of two of these; all by default. Not a number if it
                leaves no pairs of one kind.
        """
        pairs = self.pairs_asked(side)
        if pairs:
            mated = pairs.mated
            if kept is not None:
                both = kept[pairs.clips].all(axis=1)
                scores, mated = scores[both], mated[both]
                if mated.all() or not mated.any():
                    return float("nan")
            return roc_auc(scores[mated], scores[~mated])
        clips = self.asked(side)
        if kept is not None:
            scores, clips = scores[kept[clips]], clips[kept[clips]]
        labels = self.labels[clips]
        hits = top_k(scores, labels, 1)
        return float(np.mean([hits[labels == k].mean() for k in np.unique(labels)]))

    def restricted(self, clips: np.ndarray) -> "Part":
        """The part of one who has only these clips, at their places among `clips`: what is tested, and all pairs, are
        left out.
        """
        places = np.full(len(self.labels), -1)
        places[clips] = np.arange(len(clips))

        def kept(indices: np.ndarray) -> np.ndarray:
            return places[indices][places[indices] >= 0]

        return replace(
            self,
            labels=self.labels[clips],
            train=kept(self.train),
            validation=kept(self.validation),
            test=np.array([], dtype=int),
            subjects=self.subjects[clips],
            performances=self.performances[clips],
            pairs=None,
            training_pairs=None,
            validation_pairs=None,
        )

    def of_trained_classes(self) -> "Part":
        """The part with the classes that training clips show, in their order; clips of the others have no part in it."""
        seen = np.unique(self.labels[self.train])
        codes = np.full(len(self.classes) + 1, -1)  # the last entry is for clips without a label, -1
        codes[seen] = np.arange(len(seen))
        labels = codes[self.labels]
        sides = {side: getattr(self, side)[labels[getattr(self, side)] >= 0] for side in ("validation", "test")}
        return replace(self, classes=tuple(self.classes[k] for k in seen), labels=labels, **sides)

    def side_digest(self, side: str) -> str:
        """Digest of the clips, or pairs of clips, of "test" or "validation": who is asked."""
        pairs = self.pairs_asked(side)
        return _array_digest(pairs.clips if pairs else self.asked(side))


def _array_digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def instantiate(protocol: Protocol, target: str, labels: Any, dataset: str) -> Part:
    """Applies a protocol to a table of labels for one target.

    Args:
        protocol: The protocol.
        target: Label column to predict.
        labels: Labels of the store (pandas), one row a clip.
        dataset: Name of the data set, for messages.

    Raises:
        ProtocolError: if the protocol has no split for the target, a column is missing, a side is empty, a performance is on
            both sides, or a test class never occurs in training.
    """
    name = f"protocol {protocol.name} of {dataset}"
    split = protocol.split(target)
    if split is None:
        raise ProtocolError(f"{name} cannot test {target!r}; it can test {', '.join(protocol.splits)}")
    named = SUBJECT if target == LINKAGE else target
    needed, derive = derivation(split.by, named)
    for column in (named, *needed):
        if column not in labels or labels[column].isna().all():
            raise ProtocolError(
                f"{name} cannot test {target!r}: {dataset} as prepared has no {column} labels; "
                f"it has {', '.join(c for c in labels if not labels[c].isna().all())}"
            )
    sides = derive(labels)
    known = labels[named].notna().to_numpy() & sides.notna().to_numpy()
    if split.alone and "actors" in labels:
        known &= (labels["actors"] == 1).to_numpy(dtype=bool)
    in_train = sides.isin(split.train).to_numpy(dtype=bool) & known
    in_test = known & ~in_train
    performances = labels["performance"].to_numpy()
    both = sorted(set(performances[in_train]) & set(performances[in_test]))
    if both and not split.shares:
        raise ProtocolError(f"{name}: performance {both[0]} ({len(both)} in all) is in training and in test of {target!r}")
    subjects = labels[SUBJECT].to_numpy()
    if split.unseen and (seen := set(subjects[in_train]) & set(subjects[in_test])):
        raise ProtocolError(f"{name}: {len(seen)} test people of {target!r} are also in training")
    learnt = in_train if target == LINKAGE else known  # linkage names nobody: its test people are not classes
    classes = tuple(sorted(labels[named][learnt].unique()))
    codes = {value: k for k, value in enumerate(classes)}
    encoded = np.array([codes[value] if ok else -1 for value, ok in zip(labels[named], learnt, strict=True)])
    train_all, test = np.flatnonzero(in_train), np.flatnonzero(in_test)
    for side, indices in (("training", train_all), ("test", test)):
        if not indices.size:
            raise ProtocolError(
                f"{name}: no {side} clips for {target!r}; {split.by} has {sorted(sides.dropna().unique().tolist())}"
            )
    untrained = set(encoded[test]) - set(encoded[train_all])
    if untrained and target != LINKAGE:
        problem = f"{name}: {target} {classes[min(untrained)]} is tested but never in training"
        raise ProtocolError(f"{problem}; {_remedy(target, labels[known])}")
    if len(classes) < 2:
        raise ProtocolError(f"{name}: {target!r} has only the value {classes[0]}; nothing can be told apart")
    if fold_of(protocol.name) and target != ACTION and (lacking := set(encoded[known]) - set(encoded[test])):
        raise ProtocolError(
            f"{name}: nobody of {target} {classes[min(lacking)]} is tested; take fewer folds, with a person of each in each"
        )
    held = _held_out(encoded[train_all], performances[train_all], protocol.validation)
    people, occasions = (np.unique(column, return_inverse=True)[1] for column in (subjects, performances))
    train, validation = train_all[~held], train_all[held]
    if not validation.size:
        raise ProtocolError(
            f"{name}: no {target} has two performances in training, of which one could validate; it takes three performances each"
            if named == SUBJECT
            else f"{name}: no {target} has two performances in training, of which one could validate"
        )
    part = Part(target, classes, encoded, train, validation, test, people, occasions)
    if target != LINKAGE:
        return part
    pairs = {side: make_pairs(labels, clips) for side, clips in (("training", train), ("validation", validation), ("test", test))}
    for side, found in pairs.items():
        if not len(found):
            raise ProtocolError(
                f"{name}: the {side} clips of {target!r} make no pairs; it takes two people with two performances each"
            )
    return replace(part, pairs=pairs["test"], training_pairs=pairs["training"], validation_pairs=pairs["validation"])


def _remedy(target: str, labels: Any) -> str:
    """What helps where a value of a target is tested but never in training.

    Folds take people in the order of an attribute, so that each fold has somebody of each value if there are as many of each.
    """
    if target in (SUBJECT, ACTION):
        return "leave its clips out"
    people = labels.groupby(target)[SUBJECT].nunique()
    if people.min() < 2:
        few = ", ".join(map(str, people.index[people < 2]))
        return f"it takes two people of each {target}, one to learn from and one to be tested, and only one is {few}"
    folds = f"--protocol {min(int(people.min()), 5)}-fold"
    return f"{folds} has people of each {target} on both sides (and asks nothing of known people)"


def hold_out(part: Part, share: float = 0.2) -> Part:
    """The part of one who must test with the clips at hand: tests on its validation clips, validates on some training clips.

    Raises:
        ValueError: for linkage, whose pairs would still be those of all.
    """
    if part.pairs:
        raise ValueError("an attacker that links clips cannot learn from its validation clips as well (learns_validation)")
    held = _held_out(part.labels[part.train], part.performances[part.train], share)
    return replace(part, train=part.train[~held], validation=part.train[held], test=part.validation)


def _held_out(classes: np.ndarray, performances: np.ndarray, share: float) -> np.ndarray:
    """Mask of the clips held out: of each class, the given share of its performances, in an order fixed by their names."""
    held = np.zeros(len(classes), dtype=bool)
    for value in np.unique(classes):
        of_class = classes == value
        names = sorted(set(performances[of_class]), key=lambda text: hashlib.sha256(str(text).encode()).digest())
        count = min(max(1, round(share * len(names))), len(names) - 1)
        held |= of_class & np.isin(performances, names[:count])
    return held


def anonymizer_part(parts: Mapping[str, Part]) -> np.ndarray:
    """Clips that an anonymizer may learn from: those that no target of the protocol tests.

    Raises:
        ProtocolError: if the targets leave none.
    """
    sizes = {len(part.labels) for part in parts.values()}
    allowed = np.ones(sizes.pop(), dtype=bool)
    for part in parts.values():
        allowed[part.test] = False
    if not allowed.any():
        raise ProtocolError("the targets of this protocol leave no clip for fitting an anonymizer")
    return np.flatnonzero(allowed)
