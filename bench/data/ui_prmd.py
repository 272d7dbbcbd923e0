"""UI-PRMD: 10 people, 10 rehabilitation movements, 10 repetitions, Kinect v2 (Vakanski et al., Data 3(1):2, 2018).

Two text files a clip: positions and angles, a line a frame, 22 joints. Positions are local: the root is absolute in centimetres,
every other joint an offset in its parent's frame. Here they become global joints in metres; otherwise the bone lengths could be
read off directly.
"""

import itertools
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

_NAME = re.compile(r"m(\d+)_s(\d+)_e(\d+)_(positions|angles)(_inc)?\.txt")
_JOINTS = 22
# Chains from a joint whose angles start them; each next joint is an offset in the frame so far.
_CHAINS = ((0, 1, 2, 3, 4, 5), (2, 6, 7, 8, 9), (2, 10, 11, 12, 13), (0, 14, 15, 16, 17), (0, 18, 19, 20, 21))
_TO_CAMERA_SPACE = np.array([-0.01, 0.01, -0.01])  # centimetres, x and z the other way round
_ACTIONS = (
    *("deep squat", "hurdle step", "inline lunge", "side lunge", "sit to stand", "standing active straight leg raise"),
    *("standing shoulder abduction", "standing shoulder extension", "standing shoulder internal-external rotation"),
    "standing shoulder scapular elevation",
)


@dataclass(frozen=True)
class UIPRMD(Dataset):
    """UI-PRMD, Kinect: 10 people doing 10 movements 10 times each, correctly and, if those files are there, incorrectly."""

    layout: ClassVar[str] = "ui-prmd"
    frame_rate: ClassVar[float] = 30.0
    limits: ClassVar[str] = (
        "10 people, no session is labelled; the length of the least stable bone varies by 13 to 39 % between a person's "
        "movements; no gender is published with the clips"
    )
    licence: ClassVar[str] = "Open Data Commons Public Domain Dedication and License (PDDL) 1.0"
    citation: ClassVar[str] = (
        "A. Vakanski, H. Jun, D. Paul, R. Baker. A Data Set of Human Body Movements for Physical Rehabilitation Exercises. "
        "Data 3(1):2, 2018."
    )
    usual_source: ClassVar[str] = "UI-PRMD"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "episode": Protocol(
            "episode/1",
            {
                "action": Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True),
                "subject": Split(by="replication", train=(1, 2, 3, 4, 5), unseen=False),
                "correct": Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True),
                "linkage": Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True),
            },
        ),
        "xaction": Protocol(
            "xaction/1",
            {
                "action": Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True),
                "subject": Split(by="action", train=(1, 3, 5, 7, 9), unseen=False),
            },
        ),
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with positions and angles, or the archive of both; see `Dataset.read`.

        Raises:
            DataError: also if a clip has positions but no angles, or the other way round.
        """
        with open_source(
            Path(source), _NAME.pattern, "UI-PRMD clips (m01_s01_e01_positions.txt, ..._angles.txt)", writer.skip
        ) as files:
            pairs: dict[tuple[int, int, int, bool], dict[str, Member]] = {}
            for member in files:
                movement, subject, repetition, what, wrong = _NAME.fullmatch(member.name).groups()
                pairs.setdefault((int(movement), int(subject), int(repetition), bool(wrong)), {})[what] = member
            for done, (numbers, pair) in enumerate(sorted(pairs.items()), 1):
                if len(pair) < 2:
                    only = next(iter(pair.values()))
                    raise only.error("it has no counterpart: a clip needs its positions and its angles")
                movement, subject, repetition, wrong = numbers
                clip = f"m{movement:02d}_s{subject:02d}_e{repetition:02d}{'_inc' if wrong else ''}"
                labels = {"clip": clip, "action": movement, "subject": subject, "performance": clip, "replication": repetition}
                writer.add_shown(read_clip(pair["positions"], pair["angles"]), {**labels, "correct": "no" if wrong else "yes"})
                progress(done, len(pairs))

    def actions(self) -> Mapping[int, str]:
        return dict(enumerate(_ACTIONS, 1))


def read_clip(positions: Member, angles: Member) -> np.ndarray:
    """The clip (3, T, 22, 1) of a pair of files, global joints in metres.

    The room is turned half about the vertical, so that z grows away from the camera and x to the person's right, as in camera
    space of the Kinect.

    Raises:
        DataError: if a file is cut or holds no numbers, or the two have different lengths.
    """
    local, turns = (read_numbers(member, 3 * _JOINTS, ",").reshape(-1, _JOINTS, 3) for member in (positions, angles))
    if len(local) != len(turns):
        raise positions.error(f"{len(local)} frames, but {angles.name} has {len(turns)}")
    return joint_clip(positions, global_joints(local, turns) * _TO_CAMERA_SPACE)


def global_joints(local: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(T, 22, 3) positions in the room from offsets (T, 22, 3) and Euler angles (T, 22, 3) in degrees, z then y then x.

    As the public converters of this data set: arms start from the chest's own angles alone, legs from the root's.
    """
    turn = _rotations(angles)
    out = np.zeros_like(local)
    out[:, 0] = local[:, 0]
    for chain in _CHAINS:
        frame = turn[:, chain[0]]
        for before, joint in itertools.pairwise(chain):
            out[:, joint] = np.einsum("tij,tj->ti", frame, local[:, joint]) + out[:, before]
            frame = frame @ turn[:, joint]
    return out


def _rotations(degrees: np.ndarray) -> np.ndarray:
    """(..., 3, 3) matrices Rz Ry Rx of angles (..., 3) about x, y and z."""
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(f(np.deg2rad(degrees)), -1, 0) for f in (np.cos, np.sin))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
