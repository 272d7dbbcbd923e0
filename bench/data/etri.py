"""ETRI-Activity3D: 100 people, half of them elderly, 55 actions of daily life, Kinect v2 (Jang et al., IROS 2020).

The clips are given by their owners on request. One CSV file a clip, `A001_P001_G001_C001.csv` (action, person, repetition,
camera; underscores may be missing): a line for each body in each frame, with a header that names the columns.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.data.dataset import DataError, Dataset
from bench.data.ntu_files import JOINTS, main_bodies
from bench.data.parallel import read_each
from bench.data.sources import Member, open_source
from bench.data.tables import FARTHEST, read_numbers
from bench.protocols import Protocol, Split
from bench.specs import param

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_CLIP = re.compile(r"A(\d{3})_?P(\d{3})_?G(\d{3})_?C(\d{3})\.csv")
_PEOPLE = "gender_age.txt"
_FRAME, _BODY = "frameNum", "bodyindexID"
_COORDINATES = [f"joint{joint}_3d{axis}" for joint in range(1, JOINTS + 1) for axis in "XYZ"]
_LAST_ELDERLY = 50
_MOST_BODIES = 10  # the sensor tells six apart
_TOGETHER = range(44, 49)  # actions of two people
_UNSEEN = Split(by="subject", train=tuple(p for p in range(1, 101) if p % 3), unseen=True)
_UNSEEN_ALONE = replace(_UNSEEN, alone=True)


@dataclass(frozen=True)
class ETRIActivity3D(Dataset):
    """ETRI-Activity3D, skeletons: 112,620 clips of 100 people doing 55 actions; gender if its owners' table lies with the clips.

    People 1 to 50 are taken for the elderly ones, by the way the owners split their archives.
    """

    bodies: str = param(
        "one", "keep only clips of one body, as the published readers do, or the two liveliest bodies", choices=("one", "two")
    )

    layout: ClassVar[str] = "ntu"
    frame_rate: ClassVar[float] = 30.0
    limits: ClassVar[str] = (
        "the owners' gender table is not public; that people 1 to 50 are the elderly ones follows from the names of the "
        "archives; actions of two people are left out unless asked for"
    )
    licence: ClassVar[str] = "for academic research only, on request from ETRI; do not redistribute"
    citation: ClassVar[str] = (
        "J. Jang, D. Kim, C. Park, M. Jang, J. Lee, J. Kim. ETRI-Activity3D: A Large-Scale RGB-D Dataset for Robots to Recognize "
        "Daily Activities of the Elderly. IROS 2020."
    )
    usual_source: ClassVar[str] = "ETRI-Activity3D"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        name: Protocol(
            f"{name}/1",
            {"action": _UNSEEN, **dict.fromkeys(("gender", "age_group", "linkage"), _UNSEEN_ALONE), "subject": split},
        )
        for name, split in {
            "xsub": Split(by="occasions", train=(1,), unseen=False, alone=True),
            "xaction": Split(by="action", train=tuple(range(1, 56, 2)), unseen=False, alone=True),
            "xview": Split(by="camera", train=(2, 3, 5, 7), unseen=False, shares=True, alone=True),
        }.items()
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with the CSV files or their archives; see `Dataset.read`."""
        wanted = f"{_CLIP.pattern}|{re.escape(_PEOPLE)}"
        with open_source(Path(source), wanted, "ETRI-Activity3D clips (A001_P001_G001_C001.csv)", writer.skip) as files:
            people = {member.name: member for member in files}.get(_PEOPLE)
            genders = read_genders(people) if people else {}
            clips = [(member, clip_labels(member.name)) for member in files if member.name != _PEOPLE]
            left = []
            for member, labels in clips:
                if self.bodies == "one" and labels["actors"] == 2:
                    writer.skip(labels["clip"], "an action of two people")
                elif not writer.has(labels["clip"]):
                    left.append((member, labels))
            found = read_each(read_clip, [member for member, _ in left])
            for done, ((_, labels), slots) in enumerate(zip(left, found, strict=True), len(clips) - len(left) + 1):
                clip, reason = self._kept(slots)
                if clip is None:
                    writer.skip(labels["clip"], reason)
                else:
                    gender = {"gender": genders.get(labels["subject"], "")} if genders else {}
                    writer.add(clip, {**labels, **gender})
                progress(done, len(clips))

    def _kept(self, slots: np.ndarray | None) -> tuple[np.ndarray | None, str]:
        """The clip of a file's slots, or None and why it is left out."""
        if slots is None:
            return None, "has coordinates that are not numbers"
        clip = main_bodies(slots)
        if clip is None:
            return None, "has no skeleton"
        if self.bodies == "one" and slots.any(axis=(0, 1, 2)).sum() > 1:
            return None, "shows several bodies"
        return clip, ""


def clip_labels(name: str) -> dict[str, Any]:
    """Labels that a file name states; the cameras film a performance at once."""
    action, person, repetition, camera = map(int, _CLIP.fullmatch(name).groups())
    performance = f"A{action:03d}_P{person:03d}_G{repetition:03d}"
    return {
        "clip": f"{performance}_C{camera:03d}",
        "action": action,
        "subject": person,
        "performance": performance,
        "camera": camera,
        "replication": repetition,
        "actors": 2 if action in _TOGETHER else 1,
        "age_group": "elderly" if person <= _LAST_ELDERLY else "young",
    }


def read_clip(member: Member) -> np.ndarray | None:
    """All bodies of a file: (T, 25, 3, bodies) in metres, zero where a body is absent; None if a coordinate is not a number.

    Raises:
        DataError: if the header lacks a column, or a line is cut or holds no numbers.
    """
    header = member.read().partition(b"\n")[0].decode("utf-8-sig", "replace").strip().split(",")
    at = {name.strip(): column for column, name in enumerate(header)}
    missing = [name for name in (_FRAME, _BODY, *_COORDINATES) if name not in at]
    if missing:
        raise member.error(f"the header lacks {missing[0]} ({len(missing)} columns in all)")
    table = read_numbers(member, [at[name] for name in (_FRAME, _BODY, *_COORDINATES)], ",", header=True, unknown=True)
    if np.isnan(table[:, :2]).any():
        raise member.error("a line names no frame or body")
    if np.isnan(table).any():
        return None
    joints = table[:, 2:].reshape(-1, JOINTS, 3)
    if not (np.abs(joints) < FARTHEST).all():
        raise member.error("a coordinate is not a place in metres")
    frames, frame = np.unique(table[:, 0], return_inverse=True)
    bodies, body = np.unique(table[:, 1], return_inverse=True)
    if len(bodies) > _MOST_BODIES:
        raise member.error(f"{len(bodies)} bodies, expected at most {_MOST_BODIES}")
    if len(np.unique(frame * len(bodies) + body)) < len(table):
        raise member.error("a body occurs twice in a frame")
    out = np.zeros((len(frames), JOINTS, 3, len(bodies)))
    out[frame, :, :, body] = joints
    return out


def read_genders(member: Member) -> dict[int, str]:
    """Person to "F" or "M", from the owners' table: a line a person in the order of their numbers, separated by tabs.

    Raises:
        DataError: if the table has no column `Gender`.
    """
    rows = [line.split("\t") for line in member.read().decode("utf-8-sig", "replace").splitlines() if line.strip()]
    names = [name.strip() for name in rows[0]] if rows else []
    if "Gender" not in names or any(len(row) != len(names) for row in rows):
        raise DataError(f"{member.place}: expected a line a person, separated by tabs, with a column Gender; {member.remedy}")
    column = names.index("Gender")
    return {person: "M" if row[column].strip().lower().startswith("m") else "F" for person, row in enumerate(rows[1:], 1)}
