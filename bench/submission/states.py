"""What became of each submission: received, checked, evaluating, and listed or not.

`submissions/NAME/VERSION/` below the results holds `files/`, a copy of what was received, and `state.json`; `submissions/.secret`
what submitted code must not know of the randomness of releases.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.files import UserError, atomic_folder, digest, read_json, write_json
from bench.submission.manifest import Manifest, check_files, check_size, copy_files, identity, printable, read_manifest

RECEIVED, CHECKED, EVALUATING = "received", "checked", "evaluating"
LISTED, FLAGGED, REJECTED, SUPERSEDED, WITHDRAWN = "listed", "listed-with-flags", "rejected", "superseded", "withdrawn"
SHOWN = (LISTED, FLAGGED)
_STATE = "state.json"
_SECRET = Path("submissions", ".secret")
_LONG_AGO = 24 * 3600.0  # seconds
_FROM = {  # which states may follow
    RECEIVED: (CHECKED, REJECTED, WITHDRAWN),
    CHECKED: (EVALUATING, CHECKED, REJECTED, WITHDRAWN),
    EVALUATING: (EVALUATING, LISTED, FLAGGED, REJECTED, SUPERSEDED, WITHDRAWN),
    LISTED: (EVALUATING, LISTED, FLAGGED, REJECTED, SUPERSEDED, WITHDRAWN),
    FLAGGED: (EVALUATING, LISTED, FLAGGED, REJECTED, SUPERSEDED, WITHDRAWN),
    REJECTED: (CHECKED, REJECTED),
    SUPERSEDED: (CHECKED, REJECTED, WITHDRAWN),
    WITHDRAWN: (),
}


@dataclass(frozen=True)
class Entry:
    """One version of a submission.

    Args:
        folder: `submissions/NAME/VERSION`.
        data: Content of `state.json`.
    """

    folder: Path
    data: Mapping[str, Any]

    @property
    def state(self) -> str:
        return self.data["history"][-1]["state"]

    @property
    def shown(self) -> bool:
        """Whether it is on the board: what is listed stays so while it is evaluated anew, and if that comes to no end."""
        settled = [step["state"] for step in self.data["history"] if step["state"] != EVALUATING]
        return settled[-1] in SHOWN

    @property
    def reason(self) -> str:
        return self.data["history"][-1]["why"]

    @property
    def provider(self) -> str:
        return self.data["provider"]

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def moved(self, state: str, why: str = "", **known: Any) -> "Entry":
        """The same entry in another state; written.

        Raises:
            UserError: if that state cannot follow, or something else became of it meanwhile.
        """
        if state not in _FROM[self.state]:
            raise UserError(f"{self.provider} is {self.state} and cannot become {state}")
        with FileLock(self.folder.parent / ".lock"):
            now = Entry(self.folder, read_json(self.folder / _STATE))
            if now.data["history"] != self.data["history"]:
                raise UserError(f"{self.provider} became {now.state} meanwhile, and so does not become {state}")
            step = {"state": state, "date": _now(), "why": printable(why)}
            data = {**self.data, **known, "history": [*self.data["history"], step]}
            write_json(self.folder / _STATE, data)
        return Entry(self.folder, data)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def receive(folder: Path, results: Path, *, supersedes: bool = False) -> Entry:
    """Takes a submission in: copies its plain files, so that what is evaluated later is what was received.

    Args:
        supersedes: Whether it may take the place of a listed one of the same name by other authors, or of a higher version.

    Raises:
        ManifestError: if its manifest does not hold.
        UserError: if this version was received before with other files, or would take a place that is not its own.
    """
    manifest = read_manifest(folder)
    path = results / "submissions" / manifest.name / manifest.version
    if (path / _STATE).exists():
        entry = Entry(path, read_json(path / _STATE))
        if entry.data["identity"] != identity(folder):
            raise UserError(f"{manifest.provider} was received before with other files; raise its version")
        if changed := check_files(folder, manifest):
            where, what, remedy = changed[0]
            told = f"{manifest.provider} was received before, and {where}: {what}; raise its version, and {remedy}"
            raise UserError(printable(told))
        if not supersedes:
            refuse_takeover(entry, results)
        return entry
    if not supersedes:
        _refuse_takeover(manifest, results)
    check_size(folder)
    for cut in path.parent.glob(f".{path.name}.????????.tmp"):
        if time.time() - cut.stat().st_mtime > _LONG_AGO:  # of an attempt that was killed
            shutil.rmtree(cut, ignore_errors=True)
    with atomic_folder(path) as temporary:
        copy_files(folder, temporary / "files")
        write_json(temporary / _STATE, _first(manifest, folder))
    return Entry(path, read_json(path / _STATE))


def refuse_takeover(entry: Entry, results: Path) -> None:
    """Makes sure that a submission takes no place that is not its own.

    Raises:
        UserError: if another of the same name is listed that is by other authors, or newer.
    """
    _refuse_takeover(read_manifest(entry.files), results)


def _refuse_takeover(manifest: Manifest, results: Path) -> None:
    for entry in entries(results):
        if entry.data["name"] != manifest.name or entry.data["version"] == manifest.version or not entry.shown:
            continue
        if sorted(read_manifest(entry.files).authors) != sorted(manifest.authors):
            raise UserError(f"{entry.provider} is listed by other authors; choose another name, or say --supersedes")
        if _order(entry.data["version"]) > _order(manifest.version):
            raise UserError(
                f"{entry.provider} is listed and newer than {manifest.version}; raise the version, or say --supersedes"
            )


def _order(version: str) -> tuple[tuple[int, ...], bool, str]:
    """By which versions are compared: numbers first; what has letters behind them comes before what has none."""
    numbers = re.match(r"[0-9]+(\.[0-9]+)*", version)[0]
    letters = version[len(numbers) :]
    return tuple(map(int, numbers.split("."))), not letters, letters


def _first(manifest: Manifest, folder: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": manifest.name,
        "version": manifest.version,
        "kind": manifest.kind,
        "provider": manifest.provider,
        "identity": identity(folder),
        "history": [{"state": RECEIVED, "date": _now(), "why": ""}],
    }


def entries(results: Path) -> list[Entry]:
    """All submissions that were received, by name and version, the newest last; not what a killed process left behind."""
    paths = (results / "submissions").glob(f"[!.]*/[!.]*/{_STATE}")
    found = [Entry(path.parent, read_json(path)) for path in paths]
    return sorted(found, key=lambda entry: (entry.data["name"], _order(entry.data["version"])))


def find(results: Path, name: str) -> Sequence[Entry]:
    """All versions of a submission.

    Raises:
        UserError: if there is none.
    """
    found = [entry for entry in entries(results) if name in (entry.data["name"], entry.provider)]
    if not found:
        known = ", ".join(dict.fromkeys(entry.data["name"] for entry in entries(results))) or "none"
        raise UserError(f"no submission {name!r} in {results}; there are {known}")
    return found


def supersede(entry: Entry, results: Path, *, newer: bool = False) -> None:
    """Takes older listed versions of the same submission off the board; newer ones as well if it is told to."""
    mine = _order(entry.data["version"])
    for other in find(results, entry.data["name"]):
        if other.folder != entry.folder and other.shown and (newer or _order(other.data["version"]) < mine):
            other.moved(SUPERSEDED, f"by version {entry.data['version']}")


def noted_flags(results: Path) -> dict[str, list[str]]:
    """Flags that an evaluation raised and no record shows, by what the records of a submission call it."""
    return {entry.data["identity"]: entry.data["noted"] for entry in entries(results) if entry.data.get("noted")}


def on_the_board(results: Path) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the data of a record are shown; why they are not tells `hidden_because`."""
    hidden = hidden_because(results)
    return lambda data: not hidden(data)


def hidden_because(results: Path) -> Callable[[Mapping[str, Any]], str]:
    """Why the data of a record are not shown; "" if they are: of a submission that is listed, as it was last evaluated.

    Records of its code count at the level of that evaluation, with the secret that is there now; and while it is evaluated anew,
    those of evaluations that ended, its own or of what it met: what is half done would be missing to others, or tell less than
    the whole.
    """
    known = {entry.data["identity"]: entry for entry in entries(results)}
    secret = digest(found) if (found := _secret(results)) else ""

    def why(data: Mapping[str, Any]) -> str:
        here = [(of, known[of["submission"]]) for of in _parameters(data) if of.get("submission", "") in known]
        for stated, entry in here:
            level = stated.get("isolation")  # none without code
            if not entry.shown:
                return f"{entry.provider} is {entry.state}" + (f" ({entry.reason})" if entry.reason else "")
            if level and (level, stated.get("secret")) != (entry.data.get("isolation", ""), secret):
                return f"{entry.provider} was evaluated at another level of isolation, or with another secret, since"
            if entry.state == EVALUATING and not any(data["key"] in of.data.get("records", ()) for _, of in here):
                return f"{entry.provider} is being evaluated"
        return ""

    return why


def _parameters(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [data[side]["parameters"] for side in ("anonymizer", "attacker")]


def submitted_as(described: Mapping[str, Any]) -> str:
    """Digest of the submission that a record's anonymizer or attacker came from; "" if it is a plugin of the machine."""
    return described["parameters"].get("submission", "")


def secret_of(results: Path) -> str:
    """The secret of a results folder, drawn when it is first needed; readable by its owner alone."""
    if found := _secret(results):
        return found
    path = results / _SECRET
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".lock")):
        if not _secret(results):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(secrets.token_hex(16))
                file.flush()
                os.fsync(file.fileno())
        return _secret(results)


def _secret(results: Path) -> str:
    """The secret, if there is one; "" otherwise."""
    try:
        return (results / _SECRET).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
