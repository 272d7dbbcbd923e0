"""MSRC-12: 30 people, 12 gestures, Kinect v1, cut at tagged action points (Fothergill et al., CHI 2012).

A stream is one gesture done about ten times: `P{I}_{K}_{G}[A]_p{S}.csv`, a line a frame with a time stamp in microseconds and 20
joints of four numbers. `.tagstream` beside it marks the action point of each repetition.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.data.dataset import Dataset
from bench.data.sources import Member, open_source
from bench.data.tables import joint_clip, read_numbers
from bench.protocols import Protocol, Split

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_NAME = re.compile(r"P(\d+)_(\d+)_(\d+)(A?)_p(\d+)\.(csv|tagstream)", re.IGNORECASE)
_COLUMNS = 81
_HALF = 1_000_000  # microseconds on either side of an action point
_TICKS = 49875  # ticks * 1000 of the tag clock in a microsecond
_ACTIONS = (
    *("lift outstretched arms", "duck", "push right", "goggles", "wind it up", "shoot", "bow", "throw", "had enough"),
    *("change weapon", "beat both", "kick"),
)
_ODD, _EVEN = tuple(range(1, 31, 2)), tuple(range(2, 31, 2))


@dataclass(frozen=True)
class MSRC12(Dataset):
    """MSRC-12, gestures: each tagged repetition is a clip of up to two seconds about its action point.

    Windows end half-way to the next action point if that is nearer. Frames before the tracker found the body are dropped. What
    a person was told (`instruction`) goes with the person: it is a label, not a target.
    """

    layout: ClassVar[str] = "kinect-v1"
    frame_rate: ClassVar[float] = 30.0
    limits: ClassVar[str] = (
        "gestures are cut at their tagged action points, so a clip holds what the tag's author took for the gesture; no "
        "session is labelled; no gender is published"
    )
    licence: ClassVar[str] = "Microsoft Research, for research with citation; do not redistribute"
    citation: ClassVar[str] = (
        "S. Fothergill, H. Mentis, P. Kohli, S. Nowozin. Instructing People for Training Gestural Interactive Systems. CHI 2012."
    )
    usual_source: ClassVar[str] = "MSRC-12"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "repetition": Protocol(
            "repetition/1",
            {
                "action": Split(by="subject", train=_ODD, unseen=True),
                "subject": Split(by="replication", train=(1, 2, 3, 4, 5), unseen=False),
                "linkage": Split(by="subject", train=_ODD, unseen=True),
            },
        ),
        "xaction": Protocol(
            "xaction/1",
            {
                "action": Split(by="subject", train=_ODD, unseen=True),
                "subject": Split(by="action", train=(2, 4, 6, 8, 10), unseen=False),
            },
        ),
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with streams and tags, or the archive of both; see `Dataset.read`."""
        with open_source(Path(source), f"(?i:{_NAME.pattern})", "MSRC-12 streams (P1_1_1_p06.csv, ...)", writer.skip) as files:
            streams: dict[tuple, dict[str, Member]] = {}
            for member in files:
                *numbers, kind = _NAME.fullmatch(member.name).groups()
                key = tuple(int(n) if n.isdigit() else n.upper() for n in numbers)
                streams.setdefault(key, {})[kind.lower()] = member
            for done, (key, pair) in enumerate(sorted(streams.items()), 1):
                instruction, kind, gesture, again, subject = key
                stream = f"P{instruction}_{kind}_{gesture:02d}{again}_p{subject:02d}"
                if len(pair) < 2:
                    writer.skip(stream, "a stream needs its csv and its tagstream")
                    continue
                times, joints = read_stream(pair["csv"])
                for number, window in enumerate(windows(times, read_tags(pair["tagstream"])), 1):
                    clip = f"{stream}_n{number:02d}"
                    seen = joints[window][joints[window].any(axis=(1, 2))]
                    if not len(seen):
                        writer.skip(clip, "no body in the window about its action point")
                        continue
                    labels = {"clip": clip, "action": gesture, "subject": subject, "performance": clip, "replication": number}
                    writer.add_shown(joint_clip(pair["csv"], seen), {**labels, "instruction": instruction})
                progress(done, len(streams))

    def actions(self) -> Mapping[int, str]:
        return dict(enumerate(_ACTIONS, 1))


def read_stream(member: Member) -> tuple[np.ndarray, np.ndarray]:
    """Time stamps (T,) in microseconds, and joints (T, 20, 3) in metres, zero where there is no body.

    Raises:
        DataError: if the file is cut or a line holds no numbers.
    """
    table = read_numbers(member, _COLUMNS)
    return table[:, 0], table[:, 1:].reshape(-1, 20, 4)[..., :3]


def read_tags(member: Member) -> np.ndarray:
    """(n,) action points in microseconds, in order.

    Raises:
        DataError: if a line is not `tick;name`.
    """
    lines = member.read().decode("ascii", "replace").splitlines()[1:]
    ticks = []
    for number, line in enumerate(lines, 2):
        if line.strip():
            tick, separator, _ = line.partition(";")
            if not separator or not re.fullmatch(r"[ \t]*[0-9]{1,19}[ \t]*", tick):
                raise member.error(f"line {number}: {line[:80]!r} is not of the form tick;gesture")
            ticks.append(int(tick))
    return np.sort((np.array(ticks, dtype=np.float64) * 1000 + _TICKS / 2) / _TICKS)


def windows(times: np.ndarray, points: np.ndarray) -> list[np.ndarray]:
    """Frames (indices) of each repetition: a second on either side of its action point, or half-way to the next one."""
    between = (points[1:] + points[:-1]) / 2
    starts = np.maximum(points - _HALF, np.concatenate([[-np.inf], between]))[: len(points)]
    ends = np.minimum(points + _HALF, np.concatenate([between, [np.inf]]))[: len(points)]
    return [np.flatnonzero((times >= start) & (times < end)) for start, end in zip(starts, ends, strict=True)]
