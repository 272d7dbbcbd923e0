"""Measures one pair at one threat level: every number with its interval, from stored predictions alone."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from bench.files import UserError
from bench.measured import Measured, spread_columns
from bench.metrics.geometry import MEASURES
from bench.metrics.identification import macro_f1, normalised_leakage, reciprocal_ranks, retention, top_k, vote
from bench.metrics.information import calibrated_information, entropy, min_entropy_leakage
from bench.metrics.permutation import leak_p_value, link_p_value
from bench.metrics.risk import measure_risk, recalls
from bench.metrics.sets import set_scores
from bench.metrics.uncertainty import (
    SHARE,
    Estimate,
    People,
    Sample,
    balanced_trials,
    estimate,
    estimate_all_or_nothing,
    jackknifed,
    mean_of_known,
    unless_equal,
    variance_components,
)
from bench.metrics.verification import clustered_auc, disclosure_grade, measure_linkage, roc_auc
from bench.protocols import SUBJECT
from bench.records import Record

_ARRANGEMENTS = 999
_TIE = 1e-12
_DIGITS = 12  # of standard deviations: equal values differ by rounding
_SETS = (5, 10)  # pairs of clips that are put together
_VOTES = (2, 5, 10)  # clips that are put together
_UNKNOWN = Estimate(math.nan, math.nan, math.nan, np.empty(0), Sample(()), SHARE)


def measure(records: Sequence[Record]) -> Measured:
    """Averages the seeds and draws of one pair clip by clip and puts an interval over people on everything.

    Args:
        records: Records that differ in their seed only.
    """
    predictions = [of for record in records for of in record.draws()]
    first, data = predictions[0], records[0].data
    action_label = first["action_label"]
    # The same resamples for every method measured on the same clips: differences between methods are paired.
    actors = people_of(first["action_clip"], first["action_subject"], action_label)
    reference, raw, retrained = (
        actors.mean(_hits(predictions, f"action_{which}", action_label)) for which in ("reference", "raw", "retrained")
    )
    named, plain, linked, of_people = {}, {}, {}, []
    of_ten = _UNKNOWN
    if "mated" in first:
        leakage, of_draws, linked = _linkage(predictions, data)
    else:
        label = first["label"]
        people, hits = people_of(first["clip"], first["subject"], label), _hits(predictions, "attack", label)
        folds = first.get("fold", np.zeros(len(label), dtype=int))  # of models that may guess differently
        clips, balanced = len(label), balanced_trials(label)
        leakage = people.estimate(people.balanced_mean(hits, label, folds), SHARE, balanced)
        scores = [p["attack"] for p in predictions]
        of_draws = [people.balanced_mean(top_k(s, label, 1), label, folds)[0] for s in scores]
        named = {
            "top1": people.estimate(people.mean(hits), SHARE, clips),
            "top5": people.estimate(people.mean(_hits(predictions, "attack", label, 5)), SHARE, clips),
            "mrr": people.estimate(people.mean(np.mean([reciprocal_ranks(s, label) for s in scores], axis=0)), SHARE, clips),
        }
        if scores[0].shape[1] == 2 and data["target"] != SUBJECT:
            named["auc"] = people.estimate(
                np.mean([_auc_by_fold(people, s[:, 1], label == 1, folds) for s in scores], axis=0), SHARE, balanced / 2
            )
        personal = len(np.unique(np.stack([first["subject"], label]), axis=1).T) == len(np.unique(first["subject"]))
        units = first["subject" if personal and data["target"] != SUBJECT else "performance"]
        answers = np.array([s.argmax(axis=1) for s in scores])
        known, total = np.mean([calibrated_information(s, label, first["subject"]) for s in scores], axis=0), entropy(label)
        named["information"] = people.estimate(np.maximum(people.mean(known), 0.0), (0.0, total))
        largest = np.bincount(label).max() / len(label)
        bound = np.log2(1 / largest)
        named["min_entropy_leakage"] = people.estimate(min_entropy_leakage(people.mean(hits), largest), (0.0, bound))
        plain = {
            "p_leak": leak_p_value(answers, label, units, np.random.default_rng(0), folds=folds),
            **({"information_share": named["information"].value / total} if total else {}),
        }
        if data["target"] == SUBJECT:
            of_people = sorted(recalls(hits, label).tolist())
            named |= _of_people(scores, hits, label, people, data["chance"])
            of_ten = of_ten_clips(scores, label)
            plain |= _widest_gap(hits, first["subject"], data["groups"])
    each = np.reshape(of_draws, (len(records), data["draws"]))
    of_seeds, of_releases = variance_components(each)
    return Measured(
        records=tuple(records),
        leakage=leakage,
        each=each.tolist(),
        of_ten=of_ten,
        people=of_people,
        named=named,
        plain={**plain, **_made(records)},
        linked=linked,
        action_reference=actors.estimate(reference, SHARE, len(action_label)),
        action_raw=actors.estimate(raw, SHARE, len(action_label)),
        action_retrained=actors.estimate(retrained, SHARE, len(action_label)),
        retention=_retention(actors, retrained, reference, data["action_chance"]),
        use={
            **_use(predictions, actors, action_label, data["action_chance"]),
            **_action_scores(predictions, actors, action_label),
        },
        spread={
            "leakage_people_std": float(np.nanstd(leakage.draws)),
            "leakage_seed_std": round(float(np.sqrt(of_seeds)), _DIGITS),
            "leakage_draw_std": round(float(np.sqrt(of_releases)), _DIGITS),
        },
    )


def _made(records: Sequence[Record]) -> dict[str, Any]:
    """By which commits the records were made, and what the anonymizer costs, averaged over the seeds, on whatever computed it.

    Nothing of records that do not say.
    """
    try:
        stated = [record.manifest() for record in records]
        costs = [of["cost"] for of in stated]
    except (UserError, KeyError):  # `bench store verify` says so
        return {}
    names = {"fit_seconds": "fit_seconds", "transform_ms": "transform_ms", "values": "learnt_values", "causal": "causal"}
    commits = ", ".join(sorted({of.get("commit", "") for of in stated} - {""}))
    return {
        **{column: float(np.mean([of[name] for of in costs])) for name, column in names.items()},
        **({"commit": commits} if commits else {}),
    }


def _hits(predictions: Sequence[Mapping[str, np.ndarray]], scores: str, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """(n,) how often, over the seeds and draws, the right class was among the first k."""
    return np.mean([top_k(p[scores], labels, k) for p in predictions], axis=0)


def _use(
    predictions: Sequence[Mapping[str, np.ndarray]], people: People, label: np.ndarray, chance: float
) -> dict[str, Estimate]:
    """What a release is good for besides: to a classifier of another kind, and as poses."""
    before, after = (people.mean(_hits(predictions, f"transfer_{which}", label)) for which in ("reference", "retrained"))
    found = {
        "action_transfer": people.estimate(after, SHARE, len(label)),
        "transfer_retention": _retention(people, after, before, chance),
    }
    poses = np.mean([p["fidelity"] for p in predictions], axis=0)
    for name, values in zip(MEASURES, poses.T, strict=True):
        known = np.isfinite(values)
        if known.any():
            found[name] = people.estimate(replace(people, codes=people.codes[known]).mean(values[known]))
    if "frechet" in predictions[0]:
        found["frechet"] = jackknifed(np.mean([p["frechet"] for p in predictions], axis=0), bounds=(0.0, np.inf))
    return found


def _action_scores(predictions: Sequence[Mapping[str, np.ndarray]], people: People, label: np.ndarray) -> dict[str, Estimate]:
    """Macro F1 of the action classifiers, and top-5 of the retrained one, averaged over the seeds and draws."""
    which = {"raw": "action_raw", "retrained": "action_retrained", "transfer": "transfer_retrained"}
    found = {
        f"action_{name}_f1": np.mean([macro_f1(people, p[scores].argmax(axis=1), label) for p in predictions], axis=0)
        for name, scores in which.items()
    }
    found["action_retrained_top5"] = people.mean(_hits(predictions, "action_retrained", label, 5))
    return {name: people.estimate(draws, SHARE, len(label)) for name, draws in found.items()}


def _retention(people: People, after: np.ndarray, before: np.ndarray, chance: float) -> Estimate:
    """Of two top-1 accuracies (B + 1,) on the same clips, each with what is known of it where all resamples agree."""
    after, before = (unless_equal(of, len(people.codes)) for of in (after, before))
    return people.estimate(np.asarray(retention(after, before, chance)))


def _widest_gap(hits: np.ndarray, subjects: np.ndarray, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The group of people that leaks most, as "gender=F", how much more than the group that leaks least, and its p value.

    The attribute and the groups are those with the widest gap, which is never narrow where many groups are small: so the p value
    is the share of arrangements of the same people in groups of the same sizes whose widest gap is as wide (999 of them, and this
    one). Nothing without an attribute of which two values occur.
    """
    person, codes = np.unique(subjects, return_inverse=True)
    recall = np.bincount(codes, weights=hits) / np.bincount(codes)
    arranged = np.vstack([recall, np.random.default_rng(0).permuted(np.tile(recall, (_ARRANGEMENTS, 1)), axis=1)])
    widest, most = np.zeros(len(arranged)), ""
    for attribute, of in groups.items():
        values = np.array(of)[person]
        known = sorted(set(values) - {""})
        if len(known) >= 2:
            means = np.stack([arranged[:, values == value].mean(axis=1) for value in known])
            gap = means.max(axis=0) - means.min(axis=0)
            if not most or gap[0] > widest[0]:
                most = f"{attribute}={known[means[:, 0].argmax()]}"
            widest = np.maximum(widest, gap)
    if not most:
        return {}
    return {"group_most": most, "group_gap": float(widest[0]), "group_gap_p": float((widest >= widest[0] - _TIE).mean())}


def _auc_by_fold(people: People, scores: np.ndarray, positive: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(B + 1,) mean over the folds of the area under the ROC curve: scores of different models are not compared.

    A fold that a resample leaves without one of the classes is left out of it.
    """
    of = [folds == fold for fold in np.unique(folds)]
    each = [clustered_auc(replace(people, codes=people.codes[here]), scores[here], positive[here]) for here in of]
    return mean_of_known(np.stack(each, axis=1))


def _of_people(
    scores: Sequence[np.ndarray], hits: np.ndarray, label: np.ndarray, people: People, chance: float
) -> dict[str, Estimate]:
    """How re-identification spreads over people, and what several clips of each give."""
    risk = measure_risk(hits, people, chance)
    everybody = people.weights.shape[1]
    found = {
        "worst_person": people.estimate(risk.worst, (0.0, float(risk.worst[0]))),
        "p95_person": people.estimate(risk.p95, SHARE),
        "exposed_people": people.estimate(risk.exposed, SHARE, everybody),
        "singled_out_people": people.estimate(risk.singled_out, SHARE, everybody),
        "gini": people.estimate(risk.gini, SHARE),
    }
    for size in (*_VOTES, "all"):
        named, sets = _voted(scores, label, None if size == "all" else size)
        if len(sets):
            found[f"top1_of_{size}_clips"] = estimate_all_or_nothing(named, sets)
    return found


def _voted(scores: Sequence[np.ndarray], label: np.ndarray, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Of each person who has so many clips: how often a set of them names that person, over seeds and draws; how many sets."""
    voted = [vote(s, label, size, np.random.default_rng(0)) for s in scores]
    _, who, sets = np.unique(voted[0][1], return_inverse=True, return_counts=True)  # the same sets, whoever reads them
    named = np.mean([top_k(s, of, 1) for s, of in voted], axis=0)
    return np.bincount(who, weights=named) / sets, sets


def of_ten_clips(scores: Sequence[np.ndarray], label: np.ndarray) -> Estimate:
    """What ten clips of one person give, each person counting alike: chance-normalised, as leakage is.

    Of people some of whom have no ten clips, who always says the name of one that has is right once in as many as have.

    Args:
        scores: For each seed and draw (n, K) what the attacker says of each clip.
        label: (n,) column of the person whom it shows.

    Returns:
        Not a number of fewer than two people who have ten clips.
    """
    named, _ = _voted(scores, label, 10)
    if len(named) < 2:
        return _UNKNOWN
    found, chance = estimate_all_or_nothing(named), 1 / len(named)
    value, low, high, draws = (normalised_leakage(of, chance) for of in (found.value, found.low, found.high, found.draws))
    return Estimate(float(value), float(low), float(high), np.asarray(draws), found.sample, SHARE)


def _linkage(
    predictions: Sequence[Mapping[str, np.ndarray]], data: Mapping[str, Any]
) -> tuple[Estimate, list[float], dict[str, Any]]:
    """AUC, the AUC of each seed and draw, and all other numbers about pairs, averaged over these.

    Intervals are those of the mean of the resamples.
    """
    arrays = predictions[0]
    there = np.unique(arrays["regime"])
    seed = zlib.crc32("\n".join([*arrays["enrolled"], *arrays["probe"]]).encode())
    found, by_regime, p_leak = [], {}, np.nan
    for regime in there:
        of = arrays["regime"] == regime
        mated, people = arrays["mated"][of], (arrays["enrolled_subject"][of], arrays["probe_subject"][of])
        aucs = [roc_auc(p["attack"][of][mated], p["attack"][of][~mated]) for p in predictions]
        by_regime[f"auc_{data['regimes'][regime].replace('-', '_')}"] = float(np.mean(aucs))
        if regime == there[0]:
            found = [measure_linkage(p["attack"][of], mated, *people, np.random.default_rng(seed)) for p in predictions]
            for size in _SETS:
                sets = [set_scores(p["attack"][of], *people, size, np.random.default_rng(seed)) for p in predictions]
                known = [roc_auc(s[m], s[~m]) for s, m in sets if m.any() and not m.all()]
                by_regime[f"auc_of_{size}_pairs"] = float(np.mean(known)) if known else np.nan
            together = np.mean([rankdata(p["attack"][of]) for p in predictions], axis=0)
            p_leak = link_p_value(together, *people, np.random.default_rng(seed))

    def mean(name: str) -> Any:
        values = [getattr(one, name) for one in found]
        if not isinstance(values[0], Estimate):
            return float(np.mean(values))
        draws = np.mean([v.draws for v in values], axis=0)
        return estimate(float(np.mean([v.value for v in values])), draws, values[0].sample, bounds=values[0].bounds)

    above_zero = ("linkability", "maximal_linkability", "disclosure", "worst_disclosure")
    plain = ("min_cllr", *above_zero, *(f"{name}_chance" for name in above_zero))
    return (
        mean("auc"),
        [one.auc.value for one in found],
        {
            "test_pairs": len(arrays["mated"]),
            "regime": data["regimes"][there[0]],
            **spread_columns("eer", mean("eer")),
            "tar_far_01": mean("tar_01"),
            "tar_far_001": mean("tar_001"),
            **{name: mean(name) for name in plain},
            "disclosure_grade": disclosure_grade(mean("worst_disclosure")),
            "p_leak": p_leak,
            **by_regime,
        },
    )


def people_of(clips: np.ndarray, subjects: np.ndarray, labels: np.ndarray) -> People:
    """The people of test clips and their resamples: the same ones wherever the same clips are asked about.

    Args:
        clips: (n,) names.
        subjects: (n,) person of each clip.
        labels: (n,) class of each clip.
    """
    seed = zlib.crc32("\n".join(clips).encode())
    return People.resample(subjects, np.random.default_rng(seed), strata=labels)
