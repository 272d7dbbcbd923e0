"""Files that are either whole or absent, also after the power went off, and their digests."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend: one line that says what was wrong and what would be right (exit status 2)."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def whole_digest(content: bytes) -> str:
    """The SHA-256 of a file's bytes, all 64 hexadecimal digits, as other programs state it."""
    return hashlib.sha256(content).hexdigest()


def file_name(text: str) -> str:
    """The text with everything that a file name should not hold replaced by "_"."""
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in text)


def package_version(package: str) -> str | None:
    """Version of an installed distribution; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: if it is none, or nested more deeply than anything of ours is.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


@contextlib.contextmanager
def atomic_file(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it at the end: a reader sees the old file, the new file or none.

    Args:
        path: The file.
        lasting: Whether it is on the disk before it gets its name, or else a loss of power may leave the name with nothing behind
            it. That takes milliseconds, which files that are soon outdated, or that nobody misses, are not worth.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        if lasting:
            _sync(temporary)
        os.replace(temporary, path)
        if lasting:
            _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path` and renames it at the end; an existing folder of that name is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield temporary
        put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def resumable_folder(path: Path, key: str) -> Iterator[Path]:
    """As `atomic_folder`, but what was written stays for the next attempt of the same key if the work is interrupted.

    An error removes it; Ctrl-C or the end of the process does not. The caller must hold a lock on `path`.
    """
    temporary = path.parent / f".{path.name}.partial"
    mark = temporary / "key"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        mark.write_text(key, encoding="utf-8")
    try:
        yield temporary
        mark.unlink()
        put_in_place(temporary, path)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Renames a finished folder to its place, once all of it is on the disk; one that is there already is replaced."""
    temporary.chmod(0o777 & ~_umask())
    for part in (*temporary.rglob("*"), temporary):
        _sync(part)
    if path.exists():
        doomed = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
        os.rename(path, doomed / path.name)
        os.rename(temporary, path)
        shutil.rmtree(doomed)
    else:
        os.rename(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Returns once a file, or which names a folder holds, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Mapping[str, Any], *, lasting: bool = True) -> None:
    """Writes JSON atomically, as `atomic_file` does."""
    text = json_text(value)
    with atomic_file(path, lasting=lasting) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Mapping[str, Any]) -> str:
    """JSON for files that people may read. NaN is refused: an unknown number is absent."""
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
