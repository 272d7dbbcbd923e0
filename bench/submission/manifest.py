"""`submission.toml`: what a submission says of itself, its schema, and whether the files are those that it states."""

import hashlib
import os
import re
import shutil
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.files import UserError, file_digest
from bench.occupied import is_results

FILE = "submission.toml"
KINDS = ("code", "weights", "data", "attacker", "scores")
LARGEST = 2**30  # bytes of all files together
MOST_FILES = 5000
_IGNORED = ("__pycache__", ".pytest_cache", ".git", ".venv")
_BUILT = "build"  # by pip, beside the manifest
_NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"


def printable(text: str) -> str:
    """Without control characters: what strangers write goes to a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _plain(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be one line, without control characters")
    return text


Line = Annotated[str, Field(max_length=500), AfterValidator(_plain)]
Text = Annotated[Line, Field(min_length=1)]


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or not path.isprintable():
        raise ValueError("it must be a path below the submission's folder, with / between folders")
    return path


Place = Annotated[Text, AfterValidator(_inside)]
Value = bool | int | float | Line


class ManifestError(UserError):
    """What is wrong with a manifest, all of it at once.

    Args:
        problems: (where, what is wrong, what would be right).
    """

    def __init__(self, problems: list[tuple[str, str, str]]):
        self.problems = [tuple(map(printable, problem)) for problem in problems]
        super().__init__("; ".join(f"{where}: {what} ({remedy})" for where, what, remedy in self.problems))


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Code(_Table):
    """Where the code of a method lies, as for a plugin of the registry.

    Args:
        source: Folder with packages or modules, below the submission's.
        target: "package.module:Class": a frozen dataclass, a `bench.anonymizer.Anonymizer` or `bench.attacker.Attacker`.
        parameters: Values of its parameters; defaults for the others.
    """

    source: Place = "."
    target: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    parameters: dict[Annotated[str, Field(pattern=r"^[a-z_]\w*$")], Value] = {}


class Weights(_Table):
    """Folder with what a known method learnt: of an anonymizer as `bench anonymize --save-weights` writes it, of an attacker as
    `bench submit export` does.
    """

    folder: Place


class Data(_Table):
    """Anonymized clips: a clip store as `bench anonymize --format store` writes it, with the names of the source's clips."""

    folder: Place


class Scores(_Table):
    """Class probabilities that state a leak; whoever has the labels can write them, so they prove none.

    Args:
        file: `.npz` with `clip` (n,) names, `classes` (K,) values of the target as text, and `scores` (n, K) float32.
        anonymizer: What was attacked: a spec of the registry, released with seed 0.
        target: Label that is named: subject, gender, ...
    """

    file: Place
    anonymizer: Text
    target: Text


class File(_Table):
    """A file of the submission."""

    path: Place
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Claim(_Table):
    """A number that the authors measured; it is compared with ours and never copied.

    Args:
        dataset: Data set.
        metric: "leakage" (of the worst semi-informed attacker, normalised), "utility_retention", or "leakage" of one attacker.
        attacker: Whose; "" for the worst.
        value: A fraction.
        tolerance: Largest difference that still counts as reproduced.
    """

    dataset: Text
    metric: Literal["leakage", "utility_retention"]
    attacker: Line = ""
    value: Annotated[float, Field(ge=-1.0, le=2.0)]
    tolerance: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05


class Manifest(_Table):
    """All that a submission states.

    Args:
        schema_: Version of this schema.
        kind: What is submitted.
        name: Name in tables.
        version: Raised with every change.
        authors, licence, paper: Whose it is; `paper` may be empty.
        dataset, protocol: What it is made for; an empty protocol is the data set's default one.
        training_data: Names of all data sets that anything in it was trained with; empty if nothing was trained.
        seeds: Seeds of the evaluation.
        files: Every file of the folder but this one.
        claims: Numbers to compare with.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")]
    kind: Literal["code", "weights", "data", "attacker", "scores"]
    name: Annotated[str, Field(pattern=f"^{_NAME}$", max_length=40)]
    version: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*[a-z0-9.]*$", max_length=20)]
    authors: Annotated[list[Text], Field(min_length=1)]
    licence: Text
    paper: Line = ""
    dataset: Text = "synthetic"
    protocol: Line = ""
    training_data: list[Text] = []
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=20)] = [0, 1, 2]
    code: Code | None = None
    weights: Weights | None = None
    data: Data | None = None
    scores: Scores | None = None
    files: Annotated[list[File], Field(max_length=MOST_FILES)] = []
    claims: list[Claim] = []

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice")
        return seeds

    @model_validator(mode="after")
    def _one_table(self) -> "Manifest":
        wanted = ("code", "weights") if self.kind == "attacker" else (self.kind,)
        given = [name for name in ("code", "weights", "data", "scores") if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in wanted:
            tables = " or ".join(f"[{name}]" for name in wanted)
            raise ValueError(f"kind {self.kind!r} needs the table {tables} and no other, got {given or 'none'}")
        return self

    @property
    def provider(self) -> str:
        """Who stands behind a number, as the registry writes it for installed packages."""
        return f"{self.name} {self.version}"

    @property
    def runs_code(self) -> bool:
        return self.code is not None


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks `submission.toml`.

    Raises:
        ManifestError: with everything that is wrong.
    """
    path = folder / FILE
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > 2**20:
            raise ManifestError([(FILE, "it is a link, no plain file, or larger than 1 MB", "write it as a plain file")])
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError([(FILE, f"it cannot be read: {error.strerror}", "`bench submit new DIR` writes one")]) from error
    except (ValueError, RecursionError) as error:
        raise ManifestError([(FILE, f"it is no TOML: {error}", "see https://toml.io")]) from error
    try:
        return Manifest.model_validate(found)
    except ValidationError as error:
        raise ManifestError([_told(one) for one in error.errors()]) from error


def _told(error: Any) -> tuple[str, str, str]:
    where = ".".join(map(str, error["loc"])) or FILE
    if error["type"] == "extra_forbidden":
        return where, "this name is unknown", "remove it, or see the template for how it is spelt"
    if error["type"] == "missing":
        return where, "it is missing", "add it; the template has an example"
    got = error.get("input")
    remedy = "see the template" if isinstance(got, dict) else f"got {str(got)[:80]!r}"  # the whole manifest, or a table of it
    return where, " ".join(str(error["msg"]).removeprefix("Value error, ").split()), remedy


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder but the manifest, by its name there, "/" between folders; links are not followed.

    What tools leave behind is none of the submission: caches, what pip builds, and a results folder of `bench`.
    """
    for root, folders, files in os.walk(folder):
        here = Path(root)
        linked = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in linked and not _left_behind(here / name, folder))
        for name in sorted([*files, *linked]):
            path = here / name
            if path != folder / FILE and not name.endswith((".pyc", ".swp")):
                yield path.relative_to(folder).as_posix(), path


def _left_behind(place: Path, folder: Path) -> bool:
    """Whether a folder is none of the submission in `folder`."""
    built = place.parent == folder and place.name == _BUILT
    return built or place.name in _IGNORED or place.suffix == ".egg-info" or is_results(place)


def check_files(folder: Path, manifest: Manifest) -> list[tuple[str, str, str]]:
    """What is wrong with the files: links, sizes, hashes, files that are not listed or not there.

    Returns:
        (file, what is wrong, what would be right); empty if all is well.
    """
    problems, stated, total = [], {file.path: file.sha256 for file in manifest.files}, 0
    tables = (manifest.code and manifest.code.source, manifest.weights and manifest.weights.folder)
    for name in (*filter(None, tables), *filter(None, (manifest.data and manifest.data.folder, *stated))):
        above = (folder / name, *(folder / name).parents)
        if any(_left_behind(place, folder) for place in above if folder in place.parents):
            problems.append((name, "it lies where tools leave what is no part of a submission", "move it to another folder"))
    for name, path in files_of(folder):
        mode = path.lstat().st_mode
        known = stated.pop(name, None)
        if not stat.S_ISREG(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "no plain file"
            problems.append((name, f"it is {what}", "put the file itself in the folder"))
            continue
        total += path.stat().st_size
        if total > LARGEST:  # nor are they read
            problems.append((name, f"the files have more than {LARGEST // 2**20} MB", "leave out what is not needed"))
            break
        if known is None:
            problems.append((name, "it is not listed in [[files]]", "`bench submit seal DIR` lists all files"))
        elif known != _sha256(path):
            problems.append((name, "it is not the file whose sha256 is stated", "`bench submit seal DIR` writes it anew"))
    problems += [(name, "it is listed but not there", "add it, or `bench submit seal DIR`") for name in stated]
    return problems


def check_size(folder: Path) -> None:
    """Counts before anything is copied.

    Raises:
        UserError: if a submission has too many files, or too large ones.
    """
    total = 0
    for count, (_, path) in enumerate(files_of(folder), 1):
        total += path.lstat().st_size
        if count > MOST_FILES or total > LARGEST:
            raise UserError(f"a submission has at most {MOST_FILES} files with {LARGEST // 2**20} MB together; leave out some")


def copy_files(folder: Path, to: Path) -> None:
    """Copies the manifest and the plain files of a submission, and nothing else: no links, no compiled modules."""
    to.mkdir(parents=True)
    shutil.copyfile(folder / FILE, to / FILE, follow_symlinks=False)
    for name, path in files_of(folder):
        if stat.S_ISREG(path.lstat().st_mode):  # the check tells of the others
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to / name, follow_symlinks=False)


def seal(folder: Path) -> int:
    """Writes the list of files with their sha256 into the manifest; everything else in it stays as it is.

    Returns:
        Number of files.

    Raises:
        UserError: if there is no manifest, or a file is a link.
    """
    path = folder / FILE
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UserError(f"{path} is no plain file")
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as TOML: {error}") from error
    tables = tomlkit.aot()
    for name, file in files_of(folder):
        if not stat.S_ISREG(file.lstat().st_mode):
            raise UserError(f"{name} is a link or no plain file; put the file itself in the folder")
        tables.append(tomlkit.item({"path": name, "sha256": _sha256(file)}))
    document.pop("files", None)
    document["files"] = tables
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    return len(tables)


def identity(folder: Path) -> str:
    """Digest of the manifest, which states the digest of every other file: equal submissions have equal ones."""
    return file_digest(folder / FILE)


def is_name(text: str) -> bool:
    """Whether a text may be the name of a submission."""
    return re.fullmatch(_NAME, text) is not None and len(text) <= 40


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
