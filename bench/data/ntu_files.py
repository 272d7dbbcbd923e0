"""The files of NTU RGB+D: `.skeleton` clips, their names, the owners' lists of missing ones, tables of gender.

A `.skeleton` file is text, one record a line:

    number of frames
    for each frame:  number of bodies
      for each body: 10 values: body id, 6 states of hands and edges, lean x and y, tracking state
                     number of joints (25)
        each joint:  12 values: x y z in metres, then depth, colour, orientation and tracking state

Bodies keep their slots by their order in the frame, as in the published readers; the ids (17 digits, more than a float holds)
are not used.
"""

import csv
import functools
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.dataset import DataError
from bench.data.sources import Member
from bench.data.tables import to_number

CLIP = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})\.skeleton")
TOGETHER = (*range(50, 61), *range(106, 121))  # actions of two people, of whom a name gives one
JOINTS = 25
SLOTS = 4  # bodies of a frame that the published readers look at
BODIES = 2  # bodies of a clip that they keep
_JOINT_VALUES, _BODY_VALUES = 12, 10
_MEANING = {
    1: "a count",
    _BODY_VALUES: "a body: id, 6 states, lean x and y, tracking state",
    _JOINT_VALUES: "a joint: x y z, depth, colour, orientation, tracking state",
}
_LONGEST = 100_000  # frames: an hour
_FARTHEST = 1e6  # metres; a coordinate beyond is damage
_COMMAS = bytes(ord(",") if chr(byte) in " \n" else byte for byte in range(256))
_MISSING_LISTS = "*missing_skeletons*.txt"
_LISTED = re.compile(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}")


class FormatError(Exception):
    """A line of a `.skeleton` file is not what it should be."""

    def __init__(self, line: int, problem: str):
        super().__init__(f"line {line}: {problem}")


def clip_labels(name: str) -> dict[str, Any]:
    """Labels that a file name `SsssCcccPpppRrrrAaaa.skeleton` states.

    The three cameras film a performance at once: its name is the clip's without the camera.
    """
    setup, camera, subject, replication, action = CLIP.fullmatch(name).groups()
    return {
        "clip": name.removesuffix(".skeleton"),
        "action": int(action),
        "subject": int(subject),
        "performance": f"S{setup}P{subject}R{replication}A{action}",
        "camera": int(camera),
        "setup": int(setup),
        "replication": int(replication),
        "actors": 2 if int(action) in TOGETHER else 1,
    }


def read_clip(member: Member) -> np.ndarray | None:
    """The clip (3, T, 25, M) of a `.skeleton` file in metres, M = 1 or 2; None if no frame holds a body.

    Raises:
        DataError: if the file is cut or has a line of another form; the message names the line.
    """
    try:
        return main_bodies(parse_skeleton(member.read()))
    except FormatError as error:
        raise member.error(str(error)) from None


def main_bodies(slots: np.ndarray) -> np.ndarray | None:
    """The two bodies with the largest motion energy, the largest first, as (3, T, V, M); None if there is none.

    The energy is std(x) + std(y) + std(z) over the joints of the frames in which the body is present. This leaves out what the
    sensor takes for a person beside those who move.

    Args:
        slots: (T, V, 3, slots), zero where a body is absent.
    """
    present = [slots[..., k].any(axis=(1, 2)) for k in range(slots.shape[3])]  # of each slot: (T,)
    kept = [k for k, there in enumerate(present) if there.any()]
    if len(kept) > 1:
        energy = [float(slots[present[k], ..., k].reshape(-1, 3).T.copy().std(axis=1).sum()) for k in kept]
        kept = [kept[i] for i in np.argsort(energy)[::-1][:BODIES]]
    return slots[..., kept].transpose(2, 0, 1, 3) if kept else None


def parse_skeleton(data: bytes) -> np.ndarray:
    """All coordinates of a `.skeleton` file: (T, 25, 3, slots) float64 in metres, zero where a frame has no such body.

    The text is tabulated by a fast parser; where that one stumbles, or what it gives has not the right form, the text is read
    again number by number, which finds the line, or that nothing is wrong.

    Raises:
        FormatError: if the text is cut or a line is not of the expected form.
    """
    table = _tabulate(data)
    if table is not None:
        try:
            return _coordinates(*table)
        except FormatError:
            pass
    return _coordinates(*_tabulate_carefully(data))


def _tabulate(data: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """All numbers (K,), and where those of each line start, with their end (L + 1,); None where this is not certain.

    With commas for spaces and line ends the text is one JSON array, for which there are parsers that read hundreds of megabytes
    a second and refuse whatever is not a number.
    """
    data = data.rstrip()
    commas = data.translate(_COMMAS)
    try:
        numbers = np.frombuffer(_json_parser().parse(b"[%b]" % commas).as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError):
        return None
    if not len(numbers):
        return None
    after = np.flatnonzero(np.frombuffer(commas, dtype=np.uint8) == ord(","))  # one comma after each number but the last
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8)[after] == ord("\n"))
    return numbers, np.concatenate([[0], ends + 1, [len(numbers)]])


@functools.cache
def _json_parser() -> Any:
    import simdjson

    return simdjson.Parser()


def _tabulate_carefully(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """As `_tabulate`, number by number; empty lines at the end mean nothing."""
    numbers, bounds = [], [0]
    for line, row in enumerate(data.rstrip().splitlines(), 1):
        for text in row.split():
            try:
                numbers.append(to_number(text))
            except ValueError:
                raise FormatError(line, f"{text.decode(errors='replace')!r} is not a number") from None
        bounds.append(len(numbers))
    return np.array(numbers, dtype=np.float64), np.array(bounds)


def _coordinates(numbers: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Checks the form of a tabulated file and picks the coordinates."""
    counts = np.diff(bounds)
    first = numbers[np.minimum(bounds[:-1], len(numbers) - 1)] if len(numbers) else np.zeros(len(counts))
    bodies = _regular_bodies(first, counts)
    frames, slots, firsts = _walked_bodies(first, counts) if bodies is None else bodies
    if first[0] > _LONGEST:
        raise FormatError(1, f"{first[0]:g} frames, expected at most {_LONGEST}")
    offsets = _JOINT_VALUES * np.arange(JOINTS)[:, None] + np.arange(3)  # of x y z within a body's joint lines
    values = numbers[bounds[firsts][:, None, None] + offsets]  # (bodies, 25, 3)
    far = ~(np.abs(values) < _FARTHEST)  # NaN is far, too
    if far.any():
        body, joint, axis = np.argwhere(far)[0]
        at, value = int(firsts[body] + joint) + 1, values[body, joint, axis]
        raise FormatError(at, f"{'xyz'[axis]} of joint {joint + 1} is {value:g}, expected a place in metres")
    out = np.zeros((SLOTS, int(first[0]), JOINTS, 3))
    seen = slots < SLOTS
    out[slots[seen], frames[seen]] = values[seen]
    return out.transpose(1, 2, 3, 0)


def _regular_bodies(first: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
    """What `_walked_bodies` finds, where the file has no fault; None where it has one."""
    if not len(counts) or not (0 <= first[0] < len(counts)):
        return None
    single = np.flatnonzero(counts == 1)
    before_joints = np.flatnonzero(counts == _BODY_VALUES) + 1
    heads = np.setdiff1d(single, before_joints, assume_unique=True)[1:]  # lines with a frame's number of bodies
    here = first[heads]
    if len(heads) != first[0] or not ((here >= 0) & (here < len(counts)) & (here % 1 == 0)).all():
        return None
    if 1 + len(heads) + (2 + JOINTS) * here.sum() != len(counts):  # before anything of that size is made
        return None
    frames = np.repeat(np.arange(len(heads)), here.astype(np.int64))
    starts = 1 + np.arange(len(heads)) + (2 + JOINTS) * (np.cumsum(here, dtype=np.int64) - here.astype(np.int64))
    slots = np.arange(len(frames)) - np.searchsorted(frames, frames)
    bodies = starts[frames] + 1 + slots * (2 + JOINTS)  # the line of each body's ten values
    expected = np.full(1 + len(heads) + (2 + JOINTS) * len(frames), _JOINT_VALUES)
    expected[0] = expected[starts] = 1
    expected[bodies], expected[bodies + 1] = _BODY_VALUES, 1
    if not np.array_equal(expected, counts) or (first[bodies + 1] != JOINTS).any():
        return None
    return np.stack([frames, slots, bodies + 2])


def _walked_bodies(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Checks the form line by line, by the first number of each line and how many it has.

    Returns:
        (3, bodies): of each body of each frame, its frame, slot and first joint line, all from 0.
    """
    lines = len(counts)
    expected = np.zeros(lines, dtype=np.int64)  # values that a line should have; 0 where the walk did not come
    late: FormatError | None = None
    try:
        bodies = _structure(first.tolist(), counts.tolist(), expected)
    except FormatError as error:
        late = error
    wrong = np.flatnonzero((expected > 0) & (counts != expected))
    if wrong.size:
        line = int(wrong[0])
        end = ", and the file ends: it is cut short" if line == lines - 1 else ""
        raise FormatError(line + 1, f"{counts[line]} values, expected {expected[line]} ({_MEANING[int(expected[line])]}){end}")
    if late:
        raise late
    return bodies


def _structure(first: list[float], counts: list[int], expected: np.ndarray) -> np.ndarray:
    """Walks from count to count, and notes in `expected` how many values each line should have.

    Args:
        first: First value of each line.
        counts: Number of values of each line.

    Returns:
        As `_walked_bodies`.
    """
    lines = len(first)
    bodies: list[tuple[int, int, int]] = []

    def count(line: int, what: str) -> int:
        if line >= lines:
            raise FormatError(line + 1, f"the file ends where the {what} should stand: it is cut short")
        expected[line] = 1
        value = first[line]
        if counts[line] != 1 or not (value >= 0 and value.is_integer()):
            raise FormatError(line + 1, f"the {what} is {value:g}, expected a whole number")
        return int(value)

    frames = count(0, "number of frames")
    line = 1
    for frame in range(frames):
        here = count(line, f"number of bodies in frame {frame + 1} of {frames}")
        line += 1
        for slot in range(here):
            if line < lines:
                expected[line] = _BODY_VALUES
            joints = count(line + 1, f"number of joints of body {slot + 1} in frame {frame + 1} of {frames}")
            if joints != JOINTS:
                raise FormatError(line + 2, f"body {slot + 1} in frame {frame + 1} has {joints} joints, expected {JOINTS}")
            bodies.append((frame, slot, line + 2))
            line += 2 + JOINTS
            expected[line - JOINTS : line] = _JOINT_VALUES
            if line > lines:
                raise FormatError(lines + 1, f"the file ends within frame {frame + 1} of {frames}: it is cut short")
    if line < lines:
        raise FormatError(line + 1, f"the file goes on after the last of its {frames} frames")
    return np.array(bodies, dtype=np.int64).reshape(-1, 3).T


def missing_clips(source: Path) -> set[str]:
    """Clips that the owners list as missing or broken.

    The lists (`*missing_skeletons*.txt`) are looked for within a folder and beside a folder or archive. Their prose is skipped.

    Raises:
        DataError: if a list cannot be read.
    """
    source = Path(os.path.abspath(source))  # "." has a parent, too
    paths = {*source.parent.glob(_MISSING_LISTS), *(source.rglob(_MISSING_LISTS) if source.is_dir() else ())}
    listed: set[str] = set()
    for path in sorted(paths):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); copy it again or delete it") from error
        listed |= {match[0] for match in map(_LISTED.match, lines) if match}
    return listed


def gender_table(path: Path) -> Mapping[int, str]:
    """Performer to "F" or "M", from a table with the columns `P` and `Gender`.

    Raises:
        DataError: if the table cannot be read or is empty, or a row gives something else, or a performer twice.
    """
    try:
        genders = dict(_gender_rows(path))
    except csv.Error as error:
        raise DataError(f"gender_csv={path} is not a table ({error}); it takes the columns P,Gender") from error
    if not genders:
        raise DataError(f"gender_csv={path} has no rows; it takes a number and F or M for each performer")
    return genders


def _gender_rows(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"gender_csv={path} cannot be read ({error}); it takes a table with the columns P,Gender") from error
    table = csv.DictReader(io.StringIO(text))
    if not {"P", "Gender"} <= set(table.fieldnames or ()):
        raise DataError(f"gender_csv={path} has the columns {table.fieldnames or []}, expected P,Gender")
    seen: set[int] = set()
    for row in table:
        number, gender = (row["P"] or "").strip(), (row["Gender"] or "").strip()
        if not re.fullmatch(r"[0-9]{1,9}", number) or gender not in ("F", "M"):
            raise DataError(
                f"{path}, line {table.line_num}: expected a number and F or M, got {number[:20]!r} and {gender[:20]!r}"
            )
        if int(number) in seen:
            raise DataError(f"{path}, line {table.line_num}: performer {int(number)} occurs twice")
        seen.add(int(number))
        yield int(number), gender
