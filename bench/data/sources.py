"""Where the files of a data set come from: a folder, or an archive, or a folder of archives, always in the same order."""

import itertools
import lzma
import re
import shutil
import struct
import tarfile
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from bench.data.dataset import DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")
_STEP = 2**20  # bytes unpacked at a time
LARGEST = 2**28  # bytes of one file: a clip of an hour has a third of it; what unpacks to more is no clip
# What the readers of archives, arrays and MATLAB files in Python's library, numpy and scipy raise on damage, as fuzzing shows.
DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Member:
    """One file of a source.

    Args:
        name: Name without folders, e.g. `a1_s1_t1_skeleton.mat`.
        place: Where it lies, for messages: a path, or "member of archive".
        remedy: What to do if it is damaged.
        content: Reads it.
        size: Bytes that it has, as far as its archive tells.
    """

    name: str
    place: str
    remedy: str
    content: Callable[[], bytes]
    size: int = 0

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            DataError: if it cannot be read, or is larger than any clip (`LARGEST`).
        """
        if self.size > LARGEST:
            raise self.error(f"{self.size} bytes, expected at most {LARGEST}")
        try:
            return self.content()
        except DAMAGED as error:
            raise DataError(f"{self.place} cannot be read ({short(error)}); {self.remedy}") from error

    def error(self, problem: str) -> DataError:
        """An error that names the file, what is wrong with it and the remedy."""
        return DataError(f"{self.place}: {problem}; {self.remedy}")


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


@contextmanager
def open_source(source: Path, pattern: str, expected: str, skip: Callable[[str, str], None]) -> Iterator[list[Member]]:
    """Finds the files of a folder (with its subfolders) or an archive whose names match, by name and then by place.

    A folder with no such file is searched for archives. Archives beside unpacked files are not opened: the files win.

    Args:
        source: Folder or archive.
        pattern: Regular expression for a whole file name.
        expected: What was looked for, e.g. "*.skeleton files", for messages.
        skip: Is told of each archive that is not opened, and why.

    Raises:
        DataError: if there is no such file, an archive is damaged, or two files have the same name.
    """
    with ExitStack() as stack:
        archives: list[Path] = []
        if source.is_dir():
            paths = sorted(path for path in source.rglob("*") if not path.name.startswith("."))
            archives = [path for path in paths if is_archive(path) and path.is_file()]
            members = [
                Member(
                    path.name,
                    str(path),
                    "copy it again, or delete it to leave the clip out",
                    path.read_bytes,
                    path.stat().st_size,
                )
                for path in paths
                if re.fullmatch(pattern, path.name) and path.is_file()
            ]
        elif is_archive(source):
            members = _members(source, pattern, stack)
        else:
            raise DataError(f"{source} is neither a folder nor an archive ({', '.join(ARCHIVES)}); expected {expected}")
        if members:
            for path in archives:
                skip(path.name, "not opened: unpacked clips lie beside it")
        else:
            members = [member for path in archives for member in _members(path, pattern, stack)]
        if not members:
            raise DataError(f"no {expected} in {source}, nor in an archive there")
        members.sort(key=lambda member: (member.name, member.place))
        for one, other in itertools.pairwise(members):
            if one.name == other.name:
                raise DataError(f"{one.name} occurs twice: {one.place} and {other.place}; remove one of them")
        yield members


def _members(archive: Path, pattern: str, stack: ExitStack) -> list[Member]:
    try:
        found = (_zip if archive.name.lower().endswith(".zip") else _tar)(archive, pattern, stack)
    except DAMAGED as error:
        raise DataError(f"{archive} is damaged or cut short ({short(error)}); copy it again") from error
    remedy = f"copy {archive.name} again, or unpack it, delete that file and name the folder"
    return [Member(PurePosixPath(name).name, f"{name} of {archive}", remedy, content, size) for name, content, size in found]


def _wanted(name: str, pattern: str) -> bool:
    return re.fullmatch(pattern, PurePosixPath(name).name) is not None


def _zip(archive: Path, pattern: str, stack: ExitStack) -> list[tuple[str, Callable[[], bytes], int]]:
    file = stack.enter_context(zipfile.ZipFile(archive))
    entries = [entry for entry in file.infolist() if _wanted(entry.filename, pattern)]
    return [(entry.filename, lambda entry=entry: read_entry(file, entry), entry.file_size) for entry in entries]


def read_entry(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A member of a zip archive, unpacked step by step, so that no more is unpacked than the size that the archive states.

    Raises:
        zipfile.BadZipFile: if it is damaged, its size is not the one stated, or it is packed by another method than the usual,
            whose steps cannot be bounded.
    """
    with open_entry(file, entry) as content:
        return b"".join(iter(lambda: content.read(_STEP), b""))


def open_entry(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    """As `ZipFile.open`, for members whose unpacking can be bounded; read at most a few MB of it at a time."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"it is packed by method {entry.compress_type}, expected deflate")
    return file.open(entry)


class _BoundedInfo(tarfile.TarInfo):
    """A member of a tape archive whose long names and other heads, which tarfile holds in memory, have bounds."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        heads = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if self.type in heads and self.size > _STEP:
            raise tarfile.ReadError(f"a head of {self.size} bytes")
        return super()._proc_member(archive)


def _tar(archive: Path, pattern: str, stack: ExitStack) -> list[tuple[str, Callable[[], bytes], int]]:
    """Members of a tape archive. It can only be read from end to end, so what is wanted is unpacked to a temporary folder."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    found = []
    # Not as a stream ("r|*"): that unpacks whole compressed blocks, however large, and copies the rest at every read.
    with tarfile.open(archive, "r:*", tarinfo=_BoundedInfo) as file:
        for entry in file:
            if entry.isfile() and _wanted(entry.name, pattern):
                path = folder / f"{len(found)}"  # not the member's own name, which could lead out of the folder
                if entry.size > shutil.disk_usage(folder).free / 2:
                    raise OSError(f"{entry.name} has {entry.size} bytes, which would fill {folder.parent}; unpack it elsewhere")
                if entry.size <= LARGEST:  # a larger one is refused when it is read
                    with file.extractfile(entry) as content:
                        path.write_bytes(content.read())
                found.append((entry.name, path.read_bytes, entry.size))
    return found


def short(error: BaseException) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
