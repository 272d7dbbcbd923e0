"""Records: one JSON per pair, threat level and seed, with per-clip predictions beside it. Everything shown is a view of these.

Three files share a name below `records/`:

    KEY.json            what was measured and on what it rests; the same bytes whenever the same job is run on the same CPU
    KEY.npz             per-clip predictions: every later metric, interval and test comes from them without training again
    KEY.manifest.json   how this run went: versions, hardware, git commit, time, memory; and the SHA-256 of the other two

The JSON is written last: a record that has it is whole.
"""

import platform
import subprocess
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.files import UserError, atomic_file, digest, file_name, json_text, package_version, read_json, whole_digest, write_json
from bench.jobs import Job, Outcome, drawn
from bench.pairs import REGIMES
from bench.pipeline import Bench
from bench.protocols import ACTION, ATTRIBUTES, MEASURED_TARGETS, Part, fold_of
from bench.specs import Spec
from bench.workshop import VERSIONS

SCHEMA = 6
_OF_DRAWS = ("attack", "action_raw", "action_retrained", "transfer_retrained", "fidelity", "frechet")
_PACKAGES = ("skeleton-privacy-bench", "torch", "numpy", "scipy", "scikit-learn", "pandas")


# Keys of a record that determine it; `identity` makes them.
IDENTITY = (
    *("schema", "dataset", "data", "protocol", "normalisation", "preset", "anonymizer", "attacker", "budget", "backbones"),
    *("inverter", "target", "threat", "seed", "code"),
)


@dataclass(frozen=True)
class Record:
    """A record read back.

    Args:
        path: Its JSON file.
        data: Content of the JSON file.
    """

    path: Path
    data: Mapping[str, Any]

    def predictions(self) -> dict[str, np.ndarray]:
        """Arrays of the `.npz`.

        `clip`, `label`, `subject`, `performance` (n,) and `attack` (D, n, K) for the target's test clips; for linkage instead
        `enrolled`, `probe`, `enrolled_subject`, `probe_subject`, `mated`, `regime` (an index into the record's `regimes`), all
        (P,), and `attack` (D, P).
        Of pooled folds also `fold` (n,): whose model was asked.
        `action_clip`, `action_label`, `action_subject` (m,), `action_reference` and `transfer_reference` (m, A), `action_raw`,
        `action_retrained` and `transfer_retrained` (D, m, A), `fidelity` (D, m, F) and `frechet` (D, 1 + S) for the action test
        clips; records of before lack the last.
        The first axis of length D counts the releases that were attacked.

        Raises:
            UserError: if the file is damaged.
        """
        path = self.path.with_suffix(".npz")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged ({error}); remove it, and `bench run` measures it again") from error

    def draws(self) -> list[dict[str, np.ndarray]]:
        """The arrays of `predictions` for each release by itself: without the axis that counts them."""
        arrays = self.predictions()
        return [
            {name: array[draw] if name in _OF_DRAWS else array for name, array in arrays.items()}
            for draw in range(self.data["draws"])
        ]

    def manifest(self) -> dict[str, Any]:
        """How the run went that made it.

        Raises:
            UserError: if the file is missing or damaged.
        """
        path = self.path.with_name(f"{self.path.stem}.manifest.json")
        try:
            return dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is missing or damaged ({error}); remove the record, and it is measured again") from error

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the records on disk that this one stands for: its own."""
        return (self.data["key"],)

    @property
    def releases(self) -> tuple[str, ...]:
        """Digests of the clips that were released."""
        return tuple(self.data["stages"][drawn("release", draw)]["content"] for draw in range(self.data["draws"]))

    @property
    def trainings(self) -> tuple[Mapping[str, Any], ...]:
        """What the attacker reported about its training; of folds, each one's."""
        return (self.data["training"],)

    @property
    def contents(self) -> list[Any]:
        """What tells it from every other record, predictions included."""
        return [self.data["key"], self.data["stages"]]


@dataclass(frozen=True)
class PooledRecord(Record):
    """The folds of one job as one record: everybody is tested, each by a model that has not seen them.

    Args:
        folds: Records of all folds, in their order.
    """

    folds: tuple[Record, ...] = ()

    def predictions(self) -> dict[str, np.ndarray]:
        arrays = [fold.predictions() for fold in self.folds]
        found = {name: np.concatenate([of_fold[name] for of_fold in arrays], axis=int(name in _OF_DRAWS)) for name in arrays[0]}
        if "frechet" in found:  # of each fold's own people: the mean of the folds, and without a person of one of them
            each = [of_fold["frechet"] for of_fold in arrays]
            mean = np.mean([of[:, :1] for of in each], axis=0)
            found["frechet"] = np.hstack([mean, *(mean + (of[:, 1:] - of[:, :1]) / len(each) for of in each)])
        return {**found, "fold": np.repeat(np.arange(len(arrays)), [len(of_fold["label"]) for of_fold in arrays])}

    def manifest(self) -> dict[str, Any]:
        found = [fold.manifest() for fold in self.folds]
        seconds = round(sum(one["seconds"] for one in found), 3)
        cost = {name: float(np.mean([one["cost"][name] for one in found])) for name in found[0].get("cost", {})}
        made_on = _distinct(place for one in found for place in one.get("made_on", []))
        most = max(one["peak_memory_mb"] for one in found)
        commit = ", ".join(sorted({one.get("commit", "") for one in found} - {""}))
        return {**found[0], "cost": cost, "seconds": seconds, "peak_memory_mb": most, "made_on": made_on, "commit": commit}

    @property
    def trainings(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(fold.data["training"] for fold in self.folds)

    @property
    def contents(self) -> list[Any]:
        return [fold.contents for fold in self.folds]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(fold.data["key"] for fold in self.folds)

    @property
    def releases(self) -> tuple[str, ...]:
        return tuple(content for fold in self.folds for content in fold.releases)


def pool_folds(found: Iterable[Record]) -> list[Record]:
    """Records in which complete sets of folds are replaced by one record each; all others stay as they are."""
    kept: list[Record] = []
    jobs: dict[str, dict[int, Record]] = {}
    for record in found:
        of = fold_of(record.data["protocol"]["name"])
        if of is None:
            kept.append(record)
        else:
            same = {name: record.data[name] for name in IDENTITY if name != "protocol"}
            jobs.setdefault(digest([same, of[1]]), {})[of[0]] = record
    for folds in jobs.values():
        ordered = [folds[number] for number in sorted(folds)]
        count = fold_of(ordered[0].data["protocol"]["name"])[1]
        kept += [_pooled(ordered, count)] if len(ordered) == count else ordered
    return kept


def _pooled(folds: Sequence[Record], count: int) -> PooledRecord:
    first = folds[0].data
    splits = {target: {**split, "by": f"{count} folds"} for target, split in first["protocol"]["splits"].items()}
    data = {
        **first,
        "protocol": {**first["protocol"], "name": f"{count}-fold/1", "splits": splits},
        "key": digest([fold.data["key"] for fold in folds]),
        "learning": ", ".join(sorted({fold.data["learning"] for fold in folds})),
        **{key: {} for key in ("training", "validation", "inversion", "fitting", "stages")},  # each fold has its own
        **{name: sum(fold.data[name] for fold in folds) for name in ("test_clips", "test_people")},
    }
    record = PooledRecord(folds[0].path, data, tuple(folds))
    shares = np.sort(np.bincount(record.predictions()["label"]))[::-1] / data["test_clips"]
    data |= {"prior": float(shares[0]), "prior_top5": float(shares[:5].sum())}
    return record


def identity(bench: Bench, job: Job) -> dict[str, Any]:
    """Everything that determines a record, and nothing that does not."""
    return {
        "schema": SCHEMA,
        "dataset": bench.dataset,
        "data": bench.fingerprint,
        "protocol": bench.rules,
        "normalisation": bench.normalisation,
        "preset": bench.preset.describe(),
        "anonymizer": {**job.anonymizer.describe(), "budget": dict(job.anonymizer.value.budget(bench.preset))},
        "attacker": job.attacker.describe(),
        "budget": dict(job.attacker.value.budget(bench.preset)),
        "backbones": bench.backbones(job.attacker),
        "inverter": bench.inverter if job.threat.inverts else None,
        "target": job.target,
        "threat": job.threat.name,
        "seed": job.seed,
        "code": VERSIONS,
    }


def record_path(folder: Path, bench: Bench, job: Job) -> Path:
    """`records/<data set>/<protocol>/<preset>/<anonymizer>/<attacker>/<key>.json`."""
    names = (bench.dataset, bench.protocol.name, bench.preset.name, job.anonymizer.plugin.name, job.attacker.plugin.name)
    return Path(folder, *(file_name(name) for name in names), f"{digest(identity(bench, job))}.json")


def read_record(path: Path) -> Record | None:
    """The record at this path, or None if it or its predictions are not there, or it is of another schema, or damaged.

    A damaged one, or one that was changed since it was written, is told, and a run measures it again, in its place.
    """
    if not path.exists() or not path.with_suffix(".npz").exists():
        return None
    try:
        data = read_json(path)
        if data["schema"] != SCHEMA:
            return None
        wrong = broken_seal(path)
    except (OSError, ValueError, KeyError, TypeError):
        wrong = "it is damaged"
    if wrong:
        warnings.warn(f"{path}: {wrong}; it is left out, and `bench run` measures it again", stacklevel=2)
        return None
    return Record(path, data)


def broken_seal(path: Path) -> str:
    """What of a record's two files is not as its manifest states it; "" if all is, or if it states nothing.

    Raises:
        OSError: if one of the two cannot be read.
    """
    try:
        stated = read_json(path.with_name(f"{path.stem}.manifest.json")).get("sha256", {})
    except (OSError, ValueError, AttributeError):
        return ""  # `bench store verify` says so
    for kind, name in (("json", "it differs"), ("npz", "its predictions differ")):
        if stated and whole_digest(path.with_suffix(f".{kind}").read_bytes()) != stated.get(kind):
            return f"{name} from what was written"
    return ""


def make_record(folder: Path, bench: Bench, job: Job) -> Record:
    """Evaluates a job and writes predictions, manifest and, last, the record.

    Args:
        folder: Of all records.
        bench: What to evaluate on.
        job: What to evaluate.
    """
    started = time.perf_counter()
    path, outcome = record_path(folder, bench, job), bench.evaluate(job)
    part, action = bench.part(job.target), bench.part(ACTION)
    arrays = {
        **_asked(bench, part),
        "attack": outcome.attack,
        "action_clip": bench.clip_names[action.test],
        "action_label": action.labels[action.test],
        "action_subject": action.subjects[action.test],
        "action_reference": outcome.action_reference,
        "action_raw": outcome.action_raw,
        "action_retrained": outcome.action_retrained,
        "transfer_reference": outcome.transfer_reference,
        "transfer_retrained": outcome.transfer_retrained,
        "fidelity": outcome.fidelity,
        "frechet": outcome.frechet,
    }
    with atomic_file(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    seconds = time.perf_counter() - started
    data = {
        **identity(bench, job),
        "key": path.stem,
        "control": job.attacker.value.control,
        "names": {"anonymizer": str(job.anonymizer), "attacker": str(job.attacker)},
        "stochastic": job.anonymizer.value.stochastic,
        "uses": list(job.anonymizer.value.uses),
        "strength": _strength(job.anonymizer),
        "classes": [str(value) for value in part.classes],
        "chance": part.chance,
        "prior": part.prior,
        **({} if part.pairs else {"prior_top5": part.prior_top5}),
        "action_chance": action.chance,
        "groups": _groups(bench, part),
        "draws": len(outcome.attack),
        **({"test_pairs": len(part.pairs), "regimes": list(REGIMES)} if part.pairs else {}),
        "test_clips": len(part.test),
        "test_people": len(np.unique(part.subjects[part.test])),
        "learning": outcome.learning,
        "validation": dict(outcome.validation),
        "training": outcome.training,
        "inversion": dict(outcome.inversion),
        "fitting": dict(outcome.fitting),
        "stages": outcome.stages,
    }
    text = json_text(data)
    sealed = {"sha256": {"json": whole_digest(text.encode()), "npz": whole_digest(path.with_suffix(".npz").read_bytes())}}
    write_json(path.with_name(f"{path.stem}.manifest.json"), {**manifest(bench.device, outcome, seconds), **sealed})
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Record(path, data)


def _strength(anonymizer: Spec) -> dict[str, Any] | None:
    """Where an anonymizer stands on the curve of those that differ in their strength only."""
    field = anonymizer.strength
    return field and {"name": field.name, "value": getattr(anonymizer.value, field.name), "family": anonymizer.family}


def _groups(bench: Bench, part: Part) -> dict[str, list[str]]:
    """Attributes that people were labelled with, and each person's value by code; "" where unknown or not always the same."""
    people = bench.labels.groupby(part.subjects)
    found = {}
    for target in (*ATTRIBUTES, *MEASURED_TARGETS):
        if target in bench.labels and bench.labels[target].notna().any():
            values = people[target].agg(lambda of: of.iloc[0] if of.nunique() == 1 and of.notna().all() else "")
            found[target] = [str(value) for value in values]
    return found


def _asked(bench: Bench, part: Part) -> dict[str, np.ndarray]:
    """What the attacker was asked, and the right answers: clips and their classes, or pairs of clips."""
    if not part.pairs:
        clips = part.test
        codes = {"label": part.labels, "subject": part.subjects, "performance": part.performances}
        return {"clip": bench.clip_names[clips], **{name: of[clips] for name, of in codes.items()}}
    first, second = part.pairs.clips.T
    return {
        "enrolled": bench.clip_names[first],
        "probe": bench.clip_names[second],
        "enrolled_subject": part.subjects[first],
        "probe_subject": part.subjects[second],
        "mated": part.pairs.mated,
        "regime": part.pairs.regime,
    }


def records(folder: Path) -> Iterator[Record]:
    """All whole records below a folder, in the order of their paths."""
    for path in sorted(Path(folder).rglob("*.json")):
        if not path.name.endswith(".manifest.json") and (record := read_record(path)) is not None:
            yield record


def of_interest(record: Record, dataset: str | None, protocol: str | None, preset: str | None) -> bool:
    """Whether a record is of a data set (with or without its parameters), a protocol ("5-fold": all its folds) and a preset.

    None fits all.
    """
    data, name = record.data, record.data["protocol"]["name"]
    if (fold := fold_of(name)) and protocol in (f"{fold[1]}-fold", f"{fold[1]}-fold/1"):
        name = protocol
    return (
        dataset in (None, data["dataset"], data["dataset"].partition(":")[0])
        and protocol in (None, name, name.partition("/")[0])
        and preset in (None, data["preset"]["name"])
    )


def newest(found: Iterable[Record], shown: Callable[[Mapping[str, Any]], bool] = lambda data: True) -> tuple[list[Record], int]:
    """The records that stand beside each other in tables, and how many others there are.

    Of each pair, level and seed it is that of the newest code: versions of stages and plugins only ever rise, so that the one
    with the larger sum is newer. Of anonymizers, or attackers, that share a name in a table, such as a plugin and a submission,
    one counts for all pairs: one that is shown before one that is not, then that which met most others. So a control is never
    another attacker's than the rows that it judges.

    Args:
        found: Records.
        shown: Whether the data of a record are shown on the board.
    """
    kept = found = list(found)
    for side, other in (("attacker", "anonymizer"), ("anonymizer", "attacker")):
        kept = _one_of_each_name(kept, side, other, shown)
    latest: dict[str, Record] = {}
    for record in kept:
        data = record.data
        pair = digest([data[name] for name in ("dataset", "data", "protocol", "preset", "names", "target", "threat", "seed")])
        if pair not in latest or _age(record) > _age(latest[pair]):
            latest[pair] = record
    return list(latest.values()), len(found) - len(latest)


def _age(record: Record) -> tuple[int, str]:
    """The larger, the newer."""
    try:
        finished = record.manifest().get("finished", "")
    except UserError:
        finished = ""
    return _versions(record.data), str(finished)


def _one_of_each_name(found: Sequence[Record], side: str, other: str, shown: Callable[[Mapping[str, Any]], bool]) -> list[Record]:
    """The records of one thing on a side, an anonymizer or an attacker, for each name that it has in a table."""
    met: dict[str, dict[str, tuple[bool, set[str]]]] = {}

    def place(data: Mapping[str, Any]) -> tuple[str, str]:
        protocol, fold = data["protocol"], fold_of(data["protocol"]["name"])
        of = {**protocol, "name": fold[1]} if fold else protocol  # folds stand in one table
        return digest([data["dataset"], data["data"], data["preset"], of["name"], data["names"][side]]), _thing(data[side])

    places = [place(record.data) for record in found]
    for record, (name, thing) in zip(found, places, strict=True):
        same = met.setdefault(name, {}).setdefault(thing, (shown(record.data), set()))
        same[1].add(record.data["names"][other])
    counting = {
        name: max(things, key=lambda thing, things=things: (things[thing][0], len(things[thing][1]), thing))
        for name, things in met.items()
    }
    return [record for record, (name, thing) in zip(found, places, strict=True) if counting[name] == thing]


def _thing(described: Mapping[str, Any]) -> str:
    """Digest of what an anonymizer or attacker is, whatever the version of its code and of the package that brings it."""

    def bare(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            name: str(of).partition(" ")[0] if name == "provider" else bare(of) for name, of in value.items() if name != "code"
        }

    return digest(bare(described))


def _versions(value: Any, counts: bool = False) -> int:
    """Sum of all numbers below a key "code"."""
    if isinstance(value, Mapping):
        return sum(_versions(of, counts or name == "code") for name, of in value.items())
    if isinstance(value, list):
        return sum(_versions(of, counts) for of in value)
    return value if counts and isinstance(value, int) else 0


def manifest(device: torch.device, outcome: Outcome, record_seconds: float) -> dict[str, Any]:
    """Versions, hardware and commit of this process; time, memory and place of all stages that the record rests on.

    Args:
        device: Where it was computed.
        outcome: What the record rests on.
        record_seconds: Time of this process for it: of all stages that were not there, and of the record itself.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := package_version(name))},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "commit": git_commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(sum(output.seconds for output in outcome.outputs), 3),
        "record_seconds": round(record_seconds, 3),
        "peak_memory_mb": max(output.peak_memory_mb for output in outcome.outputs),
        "cost": dict(outcome.cost),
        "made_on": _distinct(output.made_on for output in outcome.outputs if output.made_on),
    }


def _distinct(places: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Where and how something was made, each once, in one order."""
    return [dict(place) for place in sorted({tuple(sorted(place.items())) for place in places})]


def git_commit() -> str:
    """Commit of the source tree that runs, "+" behind it if files differ from it; "" outside a checkout."""
    here = Path(__file__).parent
    try:
        own = ["git", "ls-files", "--error-unmatch", __file__]  # not that of a checkout in which we are merely installed
        subprocess.run(own, cwd=here, capture_output=True, timeout=10, check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
