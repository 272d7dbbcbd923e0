"""What a data set is: how its files become a clip store, and what its owners state about it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.data.store import ClipWriter
from bench.files import UserError
from bench.protocols import Protocol
from bench.specs import Parameters


class DataError(UserError):
    """Source files are missing, damaged or of an unexpected form; the message names the file and the remedy.

    What of it comes from a file, such as a name in an archive, cannot break the line or steer a terminal.
    """

    def __init__(self, message: str):
        super().__init__("".join(character if character.isprintable() else "?" for character in message))


@dataclass(frozen=True)
class Dataset(Parameters, ABC):
    """A data set that can be read into a clip store.

    Class attributes state what is constant, so that listing data sets reads no file:

    * `layout`: name of the skeleton layout; `frame_rate` in frames per second;
    * `licence`, `citation`: as the owners state them;
    * `limits`: what these data cannot show, and what about them may mislead;
    * `needs_source`: whether the user must supply files; `usual_source`: where they lie in a collection of data sets
      (a path relative to the folder named by `BENCH_DATA`), or "" if there is no usual place;
    * `reader_version`: raised whenever the same files would give another store;
    * `protocols`: the splits it supports, by name; the first is the default.
    """

    layout: ClassVar[str]
    frame_rate: ClassVar[float]
    licence: ClassVar[str]
    citation: ClassVar[str]
    limits: ClassVar[str] = ""
    needs_source: ClassVar[bool] = True
    usual_source: ClassVar[str] = ""
    reader_version: ClassVar[int] = 1
    protocols: ClassVar[Mapping[str, Protocol]]

    @property
    def code_version(self) -> int:
        return self.reader_version

    @abstractmethod
    def read(self, source: Path | None, writer: ClipWriter, progress: Callable[[int, int], None]) -> None:
        """Reads every clip from `source` into `writer`, in an order that does not depend on the file system.

        Args:
            source: Folder or archive; None for a data set that needs none.
            writer: Takes clips and the names of those that are left out by a rule.
            progress: Called with (done, total) clips.

        Raises:
            DataError: if the source is missing, holds no clips, or a file is damaged; nothing is left behind.
        """

    def actions(self) -> Mapping[int, str]:
        """Names of the action labels; empty where the owners give none."""
        return {}
