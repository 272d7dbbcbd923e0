"""UTD-MHAD: 8 people, 27 actions, up to 4 trials, Kinect v1 (Chen, Jafari and Kehtarnavaz, ICIP 2015).

Each clip is a MATLAB file `a{A}_s{S}_t{T}_skeleton.mat` with one variable `d_skel` (20 joints, 3, frames) in metres.
The owners publish no table of the subjects' gender, so there is no such label.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.data.dataset import Dataset
from bench.data.matlab import MatlabError, read_matlab
from bench.data.sources import Member, open_source
from bench.protocols import Protocol, Split
from bench.skeleton import get_layout

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_skeleton\.mat")
_EXPECTED = "UTD-MHAD clips (a1_s1_t1_skeleton.mat, ...)"
_VARIABLE = "d_skel"
_FARTHEST = 1e6  # metres; a coordinate beyond is damage
_ACTIONS = (
    "right arm swipe to the left",
    "right arm swipe to the right",
    "right hand wave",
    "two hand front clap",
    "right arm throw",
    "cross arms in the chest",
    "basketball shoot",
    "right hand draw x",
    "right hand draw circle (clockwise)",
    "right hand draw circle (counter-clockwise)",
    "draw triangle",
    "bowling (right hand)",
    "front boxing",
    "baseball swing from right",
    "tennis right hand forehand swing",
    "arm curl (two arms)",
    "tennis serve",
    "two hand push",
    "right hand knock on door",
    "right hand catch an object",
    "right hand pick up and throw",
    "jogging in place",
    "walking in place",
    "sit to stand",
    "stand to sit",
    "forward lunge (left foot forward)",
    "squat (two arms stretch out)",
)


@dataclass(frozen=True)
class UTDMHAD(Dataset):
    """UTD-MHAD, skeletons: 861 clips of 8 people doing 27 actions up to 4 times each."""

    layout: ClassVar[str] = "utd-mhad"
    frame_rate: ClassVar[float] = 30.0
    limits: ClassVar[str] = (
        "8 people, no session or room is labelled, so re-identification across sessions cannot be measured; the authors "
        "publish no gender of single people; thigh lengths vary by up to 23 % within a clip"
    )
    licence: ClassVar[str] = (
        "offered by the authors freely for research, with a request for citation; no formal licence text; do not redistribute"
    )
    citation: ClassVar[str] = (
        "C. Chen, R. Jafari, N. Kehtarnavaz. UTD-MHAD: A Multimodal Dataset for Human Action Recognition Utilizing a Depth "
        "Camera and a Wearable Inertial Sensor. ICIP 2015."
    )
    usual_source: ClassVar[str] = "UTD-MHAD"
    reader_version: ClassVar[int] = 1
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "trial/1": Protocol(
            "trial/1",
            {
                "action": Split(by="subject", train=(1, 3, 5, 7), unseen=True),
                "subject": Split(by="replication", train=(1, 2), unseen=False),
                "linkage": Split(by="subject", train=(1, 3, 5, 7), unseen=True),
            },
        )
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with the `.mat` files (or with their archive), or the archive itself; see `Dataset.read`."""
        with open_source(Path(source), _NAME.pattern, _EXPECTED, writer.skip) as files:
            numbered = [(tuple(map(int, _NAME.fullmatch(member.name).groups())), member) for member in files]
            numbered.sort(key=lambda item: item[0])
            for done, (numbers, member) in enumerate(numbered, 1):
                writer.add(read_clip(member), _labels(*numbers))
                progress(done, len(numbered))

    def actions(self) -> Mapping[int, str]:
        return dict(enumerate(_ACTIONS, 1))


def _labels(action: int, subject: int, trial: int) -> dict[str, Any]:
    clip = f"a{action:02d}_s{subject:02d}_t{trial:02d}"
    return {"clip": clip, "action": action, "subject": subject, "performance": clip, "replication": trial}


def read_clip(member: Member) -> np.ndarray:
    """The clip (3, T, 20, 1) of one file, in metres.

    Raises:
        DataError: if the file is cut, lacks `d_skel`, or holds an array of another shape or with values that are not numbers.
    """
    try:
        array = read_matlab(member.read(), _VARIABLE)
    except MatlabError as error:
        raise member.error(f"not a whole MATLAB v5 file ({error})") from error
    if array is None:
        raise member.error(f"no variable {_VARIABLE!r}")
    joints = get_layout(UTDMHAD.layout).num_joints
    if array.dtype.kind not in "fiu" or array.ndim != 3 or array.shape[:2] != (joints, 3) or not array.shape[2]:
        raise member.error(f"{_VARIABLE} has shape {array.shape} of {array.dtype}, expected ({joints}, 3, frames) of numbers")
    far = np.argwhere(~(np.abs(array) < _FARTHEST))  # NaN is far, too
    if far.size:
        joint, axis, frame = far[0]
        place = f"{'xyz'[axis]} of joint {joint + 1} in frame {frame + 1}"
        raise member.error(f"{place} is {array[joint, axis, frame]:g}, expected a place in metres ({len(far)} such values)")
    if not array.any():
        raise member.error("all coordinates are zero: no body")
    return array.astype(np.float32).transpose(1, 2, 0)[..., None]  # (3, T, V, 1)
