"""Kinder-Gator: children and adults doing 58 movements once each, Kinect v1 (Aloba et al., Eurographics 2018).

One file a clip, `POSE-p{ID}_{NN}-{Action}-{time}.csv`: a header, then a line a frame. A table of the participants,
`participants.csv`, gives group, sex and age as the authors state them.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.data.dataset import DataError, Dataset
from bench.data.sources import Member, open_source
from bench.data.tables import joint_clip, read_numbers
from bench.protocols import Protocol, Split

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_NAME = re.compile(r"POSE-p(\d+)_(\d+)-(.+)-(\d+)\.csv")
_TABLE = "participants.csv"
_PEOPLE = ("age_group", "age", "sex", "gender")
_COLUMNS = 61  # the time stamp and 20 joints
# People who train where others are tested: two women, a man, two girls and two boys of the part that is easy to have, and of the
# others every second one.
_TRAIN = (565, 921, 888, 976, 103, 474, 106, 595)
# Spelt as in the file names; an action's number is its place here, from 1.
_ACTIONS = (
    "Bend-your-knee-while-raising-your-leg",
    "Bend-your-other-knee-while-raising-your-leg",
    "Bow",
    "Climb-and-imaginary-ladder",
    "Do-a-forward-lunge",
    "Do-two-jumping-jacks",
    "Draw-a-circle",
    "Draw-a-square",
    "Draw-a-triangle",
    "Draw-the-letter-A",
    "Draw-the-letter-C",
    "Draw-the-letter-K",
    "Draw-the-letter-M",
    "Draw-the-letter-X",
    "Fly-like-a-bird",
    "Fly-like-an-airplane",
    "Jump",
    "Jump-as-high-as-you-can",
    "Kick-a-ball",
    "Kick-a-ball-as-far-as-you-can",
    "Kick-a-ball-as-far-as-you-can-with-the-other-leg",
    "Kick-a-ball-with-the-other-leg",
    "Lift-your-leg-to-one-side",
    "Lift-your-leg-to-the-other-side",
    "Make-the-letter-A",
    "Make-the-letter-C",
    "Make-the-letter-K",
    "Make-the-letter-M",
    "Make-the-letter-P",
    "Make-the-letter-T",
    "Make-the-letter-X",
    "Make-the-letter-Y",
    "Point-at-the-camera",
    "Punch",
    "Push-an-imaginary-button-in-front-of-you",
    "Put-your-hands-on-your-hips-and-lean-to-the-other-side",
    "Put-your-hands-on-your-hips-and-lean-to-the-side",
    "Put-your-hands-on-your-hips-and-twist",
    "Raise-your-arm-to-one-side",
    "Raise-your-arm-to-the-other-side",
    "Raise-your-hand",
    "Raise-your-other-hand",
    "Run-in-place",
    "Run-in-place-as-fast-as-you-can",
    "Signal-someone-to-come-here",
    "Signal-someone-to-stop",
    "Swim",
    "Swipe-across-an-imaginary-screen-in-front-of-you-from-left-to-right",
    "Swipe-across-an-imaginary-screen-in-front-of-you-from-right-to-left",
    "Throw-a-ball-",
    "Throw-a-ball-as-far-as-you-can",
    "Throw-a-ball-as-far-as-you-can-with-the-other-arm",
    "Throw-a-ball-with-your-other-arm",
    "Touch-your-toes",
    "Walk-in-place",
    "Walk-in-place-as-fast-as-you-can",
    "Wave-your-hand",
    "Wave-your-other-hand",
)


@dataclass(frozen=True)
class KinderGator(Dataset):
    """Kinder-Gator: 58 movements of adults and of children aged 5 to 9, one clip of each.

    `gender` is that of adults only: among children size follows age, and who tells them apart has learnt ages; `sex` is
    everybody's. Publish no results of single children.
    """

    layout: ClassVar[str] = "kinect-v1"
    frame_rate: ClassVar[float] = 30.0
    limits: ClassVar[str] = (
        "one clip of a person in an action: re-identification is across actions only; 12 adults at most carry a gender; "
        "children's size follows their age"
    )
    licence: ClassVar[str] = (
        "offered for use in animation and recognition, no licence text; contains children; do not redistribute"
    )
    citation: ClassVar[str] = (
        "A. Aloba et al. Kinder-Gator: The UF Kinect Database of Child and Adult Motion. Eurographics 2018 (short papers)."
    )
    usual_source: ClassVar[str] = "Kinder-Gator"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "xaction": Protocol(
            "xaction/1",
            {
                "action": Split(by="subject", train=_TRAIN, unseen=True),
                "subject": Split(by="action", train=tuple(range(1, 59, 2)), unseen=False),
                "gender": Split(by="subject", train=_TRAIN, unseen=True),
                "age_group": Split(by="subject", train=_TRAIN, unseen=True),
                "linkage": Split(by="subject", train=_TRAIN, unseen=True),
            },
        )
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with the clips (or their archive) and the table of participants; see `Dataset.read`."""
        participants = read_participants(Path(source))
        with open_source(
            Path(source), _NAME.pattern, "Kinder-Gator clips (POSE-p565_01-Wave-your-hand-....csv)", writer.skip
        ) as files:
            for done, member in enumerate(files, 1):
                subject, _, name, _ = _NAME.fullmatch(member.name).groups()
                if name not in _ACTIONS:
                    raise member.error(f"{name!r} is no action of this data set")
                action = _ACTIONS.index(name) + 1
                clip = f"p{int(subject):03d}_a{action:02d}"
                labels = {"clip": clip, "action": action, "subject": int(subject), "performance": clip}
                writer.add_shown(read_clip(member), {**labels, **participants.get(int(subject), dict.fromkeys(_PEOPLE, ""))})
                progress(done, len(files))

    def actions(self) -> Mapping[int, str]:
        return {number: name.strip("-").replace("-", " ").lower() for number, name in enumerate(_ACTIONS, 1)}


def read_clip(member: Member) -> np.ndarray:
    """The clip (3, T, 20, 1) of one file, in metres.

    Raises:
        DataError: if the file is cut or a line holds no numbers.
    """
    table = read_numbers(member, _COLUMNS, ",", header=True)
    return joint_clip(member, table[:, 1:].reshape(-1, 20, 3))


def read_participants(source: Path) -> dict[int, dict[str, Any]]:
    """For each person, group, age, sex, and for adults gender; empty if there is no table beside the clips.

    Raises:
        DataError: if the table is empty, lacks a column, or a value is not one of those known.
    """
    path = (source if source.is_dir() else source.parent) / _TABLE
    if not path.is_file():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        if not rows:
            raise ValueError("no person")
        people = {}
        for row in rows:
            group, sex, age = row["group"], row["sex"], int(row["age"])
            if group not in ("adult", "child") or sex not in ("F", "M"):
                raise ValueError(f"group {group!r}, sex {sex!r}")
            gender = sex if group == "adult" else ""
            people[int(row["id"])] = {"age_group": group, "age": age, "sex": sex, "gender": gender}
        return people
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is no table with id, group (adult, child), sex (F, M) and age ({error})") from error
