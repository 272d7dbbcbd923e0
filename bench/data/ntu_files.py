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
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.dataset import DataError
from bench.data.sources import Member

CLIP = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})\.skeleton")
JOINTS = 25
SLOTS = 4  # bodies of a frame that the published readers look at
BODIES = 2  # bodies of a clip that they keep
_JOINT_VALUES, _BODY_VALUES = 12, 10
_MEANING = {
    1: "a count",
    _BODY_VALUES: "a body: id, 6 states, lean x and y, tracking state",
    _JOINT_VALUES: "a joint: x y z, depth, colour, orientation, tracking state",
}
_FARTHEST = 1e6  # metres; a coordinate beyond is damage
_NUMERIC = b"0123456789+-.eE \r\n"
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
    present = slots.any(axis=(1, 2))  # (T, slots)
    energy = [float(slots[there, :, :, k].std(axis=(0, 1)).sum()) if there.any() else -1.0 for k, there in enumerate(present.T)]
    kept = [k for k in np.argsort(energy)[::-1][:BODIES] if energy[k] >= 0]
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
    """The first three numbers of each line (L, 3), NaN beyond its last, and how many it has (L,); None where this is not certain.

    Joint lines, all of one form and nine tenths of the text, go through a fast parser, which reads of them what is used; it hands
    out the others one by one.
    """
    import pyarrow
    from pyarrow import csv

    if data.translate(None, _NUMERIC):
        return None
    others: list[tuple[int, int, str]] = []

    def other(row: csv.InvalidRow) -> str:
        others.append((row.number - 1, row.actual_columns, row.text))
        return "skip"

    names = [str(number) for number in range(_JOINT_VALUES)]
    try:
        found = csv.read_csv(
            pyarrow.BufferReader(data),
            csv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(data), 1)),
            csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False, invalid_row_handler=other),
            csv.ConvertOptions(include_columns=names[:3], column_types=dict.fromkeys(names[:3], pyarrow.float64())),
        )
    except (pyarrow.ArrowInvalid, OverflowError):
        return None
    joints = np.ones(found.num_rows + len(others), dtype=bool)
    counts = np.full(len(joints), _JOINT_VALUES)
    table = np.full((len(joints), 3), np.nan)
    for line, count, text in others:
        values = text.split()
        if line >= len(joints) or len(values) not in (0, count):  # two spaces in a row, or one at an end
            return None
        joints[line], counts[line] = False, len(values)
        try:
            table[line, 0] = float(values[0]) if values else np.nan
        except ValueError:
            return None
    table[joints] = np.stack([column.to_numpy() for column in found.columns], axis=1)
    return None if np.isnan(table[joints]).any() else (table, counts)


def _tabulate_carefully(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """As `_tabulate`, number by number, and all twelve of them."""
    rows = [line.split() for line in data.splitlines()]
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    table = np.full((len(rows), _JOINT_VALUES), np.nan)
    for line, row in enumerate(rows):
        for column, text in enumerate(row[:_JOINT_VALUES]):
            try:
                table[line, column] = float(text)
            except ValueError:
                raise FormatError(line + 1, f"{text.decode(errors='replace')!r} is not a number") from None
    return table, counts


def _coordinates(table: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Checks the form of a tabulated file line by line and picks the coordinates."""
    lines = len(counts)
    while lines and not counts[lines - 1]:
        lines -= 1  # empty lines at the end mean nothing
    expected = np.zeros(lines, dtype=np.int64)  # values that a line should have; 0 where the walk did not come
    late: FormatError | None = None
    try:
        frames, slots, firsts = _structure(table[:lines, 0].tolist(), counts.tolist(), expected)
    except FormatError as error:
        late = error
    wrong = np.flatnonzero((expected > 0) & (counts[:lines] != expected))
    if wrong.size:
        line = int(wrong[0])
        end = ", and the file ends: it is cut short" if line == lines - 1 else ""
        raise FormatError(line + 1, f"{counts[line]} values, expected {expected[line]} ({_MEANING[int(expected[line])]}){end}")
    if late:
        raise late
    joints = np.add.outer(firsts, np.arange(JOINTS))  # (bodies, 25): line of each joint
    values = table[joints, :3]  # (bodies, 25, 3)
    far = ~(np.abs(values) < _FARTHEST)  # NaN is far, too
    if far.any():
        body, joint, axis = np.argwhere(far)[0]
        at, value = int(joints[body, joint]) + 1, values[body, joint, axis]
        raise FormatError(at, f"{'xyz'[axis]} of joint {joint + 1} is {value:g}, expected a place in metres")
    out = np.zeros((int(table[0, 0]), JOINTS, 3, SLOTS))
    seen = slots < SLOTS
    out[frames[seen], :, :, slots[seen]] = values[seen]
    return out


def _structure(first: list[float], counts: list[int], expected: np.ndarray) -> np.ndarray:
    """Walks from count to count, and notes in `expected` how many values each line should have.

    Args:
        first: First value of each line.
        counts: Number of values of each line.

    Returns:
        (3, bodies): of each body of each frame, its frame, slot and first joint line, all from 0.
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
        if not number.isdecimal() or gender not in ("F", "M"):
            raise DataError(f"{path}, line {table.line_num}: expected a number and F or M, got {number!r} and {gender!r}")
        if int(number) in seen:
            raise DataError(f"{path}, line {table.line_num}: performer {int(number)} occurs twice")
        seen.add(int(number))
        yield int(number), gender
