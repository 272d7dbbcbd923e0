"""UTKinect-Action3D: 10 people, 10 actions, 2 takes, cut out of continuous recordings (Xia, Chen and Aggarwal, CVPR workshops
2012).

A take is one text file, `joints_s{S}_e{E}.txt`: a line a frame, its number and 20 joints in metres, Kinect v1. A label file
names the first and the last frame of each action.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.data.dataset import DataError, Dataset
from bench.data.sources import Member, open_source
from bench.data.tables import joint_clip, read_numbers
from bench.protocols import Protocol, Split
from bench.specs import param

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_TAKE = re.compile(r"joints_s(\d+)_e(\d+)\.txt")
_LABELS = {"corrected": "actionLabel_modified.txt", "original": "actionLabel.txt"}
_COLUMNS = 61
_ACTIONS = ("walk", "sitDown", "standUp", "pickUp", "carry", "throw", "push", "pull", "waveHands", "clapHands")


@dataclass(frozen=True)
class UTKinect(Dataset):
    """UTKinect-Action3D, skeletons: 199 clips of 10 people doing 10 actions twice each.

    Of frames that occur twice the first is taken; a last line that is cut is dropped.
    """

    labels: str = param("corrected", "label file: with seven corrected entries, or the original one", choices=tuple(_LABELS))

    layout: ClassVar[str] = "kinect-v1"
    frame_rate: ClassVar[float] = 15.0
    limits: ClassVar[str] = (
        "10 people, 2 takes, segments of 5 frames and more; the view differs between actions and takes; no gender is published"
    )
    licence: ClassVar[str] = "released by the authors for research with citation; no licence text; do not redistribute"
    citation: ClassVar[str] = (
        "L. Xia, C.-C. Chen, J. K. Aggarwal. View Invariant Human Action Recognition Using Histograms of 3D Joints. CVPRW 2012."
    )
    usual_source: ClassVar[str] = "UTKinect-Action3D"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "take": Protocol(
            "take/1",
            {
                "action": Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True),
                "subject": Split(by="replication", train=(1,), unseen=False),
                "linkage": Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True),
            },
        )
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with the recordings and their label file, or the archive of both; see `Dataset.read`."""
        wanted = f"{_TAKE.pattern}|{re.escape(_LABELS[self.labels])}"
        with open_source(Path(source), wanted, "UTKinect recordings (joints_s01_e01.txt, ...)", writer.skip) as files:
            members = {member.name: member for member in files}
            if _LABELS[self.labels] not in members:
                raise DataError(f"{source} lacks {_LABELS[self.labels]}, which says where actions begin and end")
            segments = read_segments(members.pop(_LABELS[self.labels]))
            for done, (name, member) in enumerate(members.items(), 1):
                subject, take = map(int, _TAKE.fullmatch(name).groups())
                numbers, joints = read_take(member)
                for action, first, last in segments.get((subject, take), []):
                    clip = f"s{subject:02d}_e{take:02d}_a{action:02d}"
                    inside = (numbers >= first) & (numbers <= last) if first is not None else np.zeros(len(numbers), bool)
                    if not inside.any():
                        writer.skip(clip, "the label file names no frame of this recording")
                        continue
                    labels = {"clip": clip, "action": action, "subject": subject, "performance": clip, "replication": take}
                    writer.add_shown(joint_clip(member, joints[inside]), labels)
                progress(done, len(members))

    def actions(self) -> Mapping[int, str]:
        return dict(enumerate(_ACTIONS, 1))


def read_take(member: Member) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers (T,) and joints (T, 20, 3) in metres of a recording.

    Raises:
        DataError: if a line other than the last is cut or holds no numbers.
    """
    lines = member.read().splitlines()
    while lines and len(lines[-1].split()) < _COLUMNS:
        lines.pop()
    whole = Member(member.name, member.place, member.remedy, lambda: b"\n".join(lines))
    table = read_numbers(whole, _COLUMNS)
    _, first = np.unique(table[:, 0], return_index=True)
    return table[first, 0], table[first, 1:].reshape(-1, 20, 3)


def read_segments(member: Member) -> dict[tuple[int, int], list[tuple[int, int | None, int | None]]]:
    """For each (person, take), its (action, first frame, last frame); None where the file says NaN.

    Raises:
        DataError: if a line is of another form.
    """
    found: dict[tuple[int, int], list[tuple[int, int | None, int | None]]] = {}
    take = None
    for number, text in _lines(member):
        if heading := re.fullmatch(r"s(\d+)_e(\d+)", text):
            take = (int(heading[1]), int(heading[2]))
            found[take] = []
            continue
        entry = re.fullmatch(r"(\w+):\s*(\d+|NaN)\s+(\d+|NaN)", text)
        if entry is None or take is None or entry[1] not in _ACTIONS:
            raise member.error(f"line {number}: {text!r} is neither a recording (s01_e01) nor `action: first last`")
        first, last = (None if value == "NaN" else int(value) for value in entry.groups()[1:])
        found[take].append((_ACTIONS.index(entry[1]) + 1, first, last))
    return found


def _lines(member: Member) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(member.read().decode("ascii", "replace").splitlines(), 1):
        if line.strip():
            yield number, line.strip()
