"""Tables of numbers as text: the form in which most small data sets come. Every refusal names the line."""

import io
from collections.abc import Sequence

import numpy as np

from bench.data.sources import Member

FARTHEST = 1e6  # a coordinate beyond is damage
_LONGEST = 100_000  # lines of one file: an hour at 30 frames a second


def read_numbers(
    member: Member,
    columns: int | Sequence[int],
    separator: str | None = None,
    *,
    header: bool = False,
    unknown: bool = False,
) -> np.ndarray:
    """All numbers of a file, (lines, columns) float64; empty lines are left out.

    Args:
        member: The file.
        columns: Numbers that each line must have, or which of its columns, from 0, are wanted; more are ignored.
        separator: What stands between them; None for white space.
        header: Whether the first line is none of them.
        unknown: Whether a number may be NaN.

    Raises:
        DataError: if the file is empty, a line is too short or holds no number, or a number is absurd; the message names the
        line.
    """
    lines = [(number, line) for number, line in enumerate(member.read().splitlines(), 1) if line.strip()][header:]
    if not lines:
        raise member.error("the file is empty")
    if len(lines) > _LONGEST:
        raise member.error(f"{len(lines)} lines, expected at most {_LONGEST}")
    wanted = list(range(columns)) if isinstance(columns, int) else list(columns)
    table = _fast([line for _, line in lines], wanted, separator)
    if table is None:
        table = np.array([_line(member, number, line, wanted, separator) for number, line in lines])
    far = ~(np.abs(table) < 1e15)  # NaN is far, too; time stamps are large
    if unknown:
        far &= ~np.isnan(table)
    if far.any():
        row, column = np.argwhere(far)[0]
        raise member.error(f"line {lines[row][0]}: value {wanted[column] + 1} is {table[row, column]:g}")
    return table


def _fast(lines: list[bytes], columns: list[int], separator: str | None) -> np.ndarray | None:
    """The table if pandas' parser finds it as expected, else None."""
    import pandas as pd

    try:
        found = pd.read_csv(
            io.BytesIO(b"\n".join(lines)),
            sep=separator or r"\s+",
            header=None,
            usecols=sorted(columns),
            index_col=False,
            dtype="f8",
        )[columns].to_numpy()
    except (ValueError, OverflowError, KeyError):  # pandas' own errors are among these
        return None
    return found if found.shape == (len(lines), columns) and np.isfinite(found).all() else None


def _line(member: Member, number: int, line: bytes, columns: list[int], separator: str | None) -> list[float]:
    texts = line.split(separator.encode() if separator else None)
    last = max(columns)
    if len(texts) <= last or not texts[last].strip():
        raise member.error(f"line {number}: {len(texts)} values, expected {last + 1}")
    values = []
    for column in columns:
        text = texts[column]
        try:
            values.append(to_number(text))
        except ValueError:
            raise member.error(f"line {number}: {text.decode(errors='replace')!r} is not a number") from None
    return values


def to_number(text: bytes) -> float:
    """A number as data files write it; Python's own underscores within are none.

    Raises:
        ValueError: if the text is none.
    """
    if b"_" in text:
        raise ValueError(text)
    return float(text)


def joint_clip(member: Member, coordinates: np.ndarray) -> np.ndarray:
    """Coordinates (T, V, 3) in metres as a clip (3, T, V, 1) float32.

    Raises:
        DataError: if a coordinate is beyond all rooms.
    """
    far = np.argwhere(~(np.abs(coordinates) < FARTHEST))
    if far.size:
        frame, joint, axis = far[0]
        value = coordinates[frame, joint, axis]
        raise member.error(f"{'xyz'[axis]} of joint {joint + 1} in frame {frame + 1} is {value:g}, expected a place in metres")
    return coordinates.astype(np.float32).transpose(2, 0, 1)[..., None]
