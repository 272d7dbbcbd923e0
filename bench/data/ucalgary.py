"""UCalgary normal and abnormal gait: people walking towards a Kinect v2 (Kozlow, Abid and Yanushkevich, IEEE SSCI 2017).

One file a run, `subject{S}_Seq_{R}_Gen_{M|F}_GeometricPositions_{N|AR|AL}.csv`: a header, then a line a frame, 18 joints and
eight distances. Rules that the data needs are stated in `UCalgaryGait`; each clip left out is recorded.
"""

import hashlib
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
from bench.skeleton import get_layout
from bench.specs import param

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_NAME = re.compile(r"subject(\d+)_Seq_(\d+)_Gen_([MF])_GeometricPositions_(\w+)\.csv")
_KINDS = {"N": 1, "AR": 2, "AL": 3}
_COPY, _UNCLEAR, _IGNORED_RUN = 10, 8, 7
_NEAREST_JOINT = 0.3  # metres from the camera: nearer is a mistake of the tracker
_TRAIN = (1, 9, 26, 2, 6, 15, 20, 22, 24)


@dataclass(frozen=True)
class UCalgaryGait(Dataset):
    """UCalgary gait: normal walking and acted limping of either leg, two runs each.

    Subject 10 is left out (a copy of 4), as are run 7 (as its authors say), empty files and copies of an earlier run. Subject 8
    has no gender: the file names disagree. Joints at the origin or within 0.3 m of the camera are put on the line between the
    frames beside them. Frames in which the body is so near that its feet leave the picture are cut.
    """

    nearest: float = param(1.6, "frames with the base of the spine nearer to the camera are cut", unit="m", minimum=0)

    layout: ClassVar[str] = "ucalgary-gait"
    frame_rate: ClassVar[float] = 30.0
    limits: ClassVar[str] = (
        "people with a clear label are few (26 in all, up to 7 walks each), so intervals over people are wide; no "
        "session is labelled; the action is one of three ways of walking"
    )
    licence: ClassVar[str] = "for research and scientific purposes only, as the authors state; do not redistribute"
    citation: ClassVar[str] = (
        "P. Kozlow, N. Abid, S. Yanushkevich. Utilizing Gait Traits to Improve e-Border Watchlist Performance. IEEE SSCI 2017."
    )
    usual_source: ClassVar[str] = "UCalgary-gait"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "run": Protocol(
            "run/1",
            {
                "action": Split(by="subject", train=_TRAIN, unseen=True),
                "subject": Split(by="replication", train=(1, 3, 5), unseen=False),
                "gender": Split(by="subject", train=_TRAIN, unseen=True),
            },
        )
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with the runs, or their archive; see `Dataset.read`."""
        seen: dict[tuple[int, str], str] = {}
        with open_source(
            Path(source), _NAME.pattern, "UCalgary runs (subject1_Seq_1_Gen_F_GeometricPositions_N.csv)", writer.skip
        ) as files:
            numbered = [(_NAME.fullmatch(member.name).groups(), member) for member in files]
            numbered.sort(key=lambda item: (int(item[0][0]), int(item[0][1])))
            for done, ((subject, run, gender, kind), member) in enumerate(numbered, 1):
                clip, data = f"s{int(subject):02d}_r{run}", member.read()
                progress(done, len(numbered))
                content = (int(subject), hashlib.sha256(data).hexdigest())
                reason = _left_out(int(subject), int(run), kind, data, seen.get(content))
                if reason:
                    writer.skip(clip, reason)
                    continue
                seen[content] = clip
                labels = {
                    "clip": clip,
                    "action": _KINDS[kind],
                    "subject": int(subject),
                    "performance": clip,
                    "replication": int(run),
                }
                writer.add_shown(
                    read_clip(member, self.nearest), {**labels, "gender": "" if int(subject) == _UNCLEAR else gender}
                )

    def actions(self) -> Mapping[int, str]:
        return {1: "walk", 2: "walk with an abnormal right leg", 3: "walk with an abnormal left leg"}


def _left_out(subject: int, run: int, kind: str, data: bytes, copied: str | None) -> str:
    """Why a run is left out, or ""."""
    if subject == _COPY:
        return "subject 10 is a copy of subject 4"
    if run == _IGNORED_RUN or kind not in _KINDS:
        return "run 7 is to be ignored, say the authors"
    if not data.strip():
        return "the file is empty"
    return f"the same bytes as {copied}" if copied else ""


def read_clip(member: Member, nearest: float = 1.6) -> np.ndarray:
    """The clip (3, T, 18, 1) of one file, in metres.

    Raises:
        DataError: if the file is cut, a line holds no numbers, or the whole walk is nearer than `nearest`.
    """
    layout = get_layout(UCalgaryGait.layout)
    table = read_numbers(member, 3 * layout.num_joints, ",", header=True)
    joints = mended(table.reshape(-1, layout.num_joints, 3))
    joints = joints[joints[:, layout.root, 2] >= nearest]
    if not len(joints):
        raise member.error(f"the whole walk is nearer than {nearest} m")
    return joint_clip(member, joints)


def mended(joints: np.ndarray) -> np.ndarray:
    """Joints (T, V, 3) with those at the origin or too near put between the frames beside them; held at the clip's ends."""
    out, frames = joints.copy(), np.arange(len(joints))
    bad = joints[..., 2] < _NEAREST_JOINT
    for joint in np.flatnonzero(bad.any(axis=0)):
        good = ~bad[:, joint]
        if good.any():
            for axis in range(3):
                out[:, joint, axis] = np.interp(frames, frames[good], joints[good, joint, axis])
    return out
