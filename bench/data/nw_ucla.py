"""Northwestern-UCLA Multiview Action3D: 10 people, 10 actions, three Kinects at once (Wang et al., CVPR 2014).

The form that skeleton networks are trained on: one JSON file a clip, `a01_s01_e00_v01.json` (action, person, execution, view),
whose `skeletons` are frames of 20 joints of Kinect v1, x y z. The files state no unit; metres, the sensor's, are assumed.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.data.dataset import Dataset
from bench.data.sources import Member, open_source
from bench.data.tables import joint_clip
from bench.protocols import Protocol, Split

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_CLIP = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)\.json")
_JOINTS = 20
_LONGEST = 100_000  # frames
_ACTIONS = {
    1: "pick up with one hand",
    2: "pick up with two hands",
    3: "drop trash",
    4: "walk around",
    5: "sit down",
    6: "stand up",
    8: "donning",
    9: "doffing",
    11: "throw",
    12: "carry",
}
_UNSEEN = Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True)


@dataclass(frozen=True)
class NWUCLA(Dataset):
    """NW-UCLA, skeletons: 1,494 clips of 10 people doing 10 actions, filmed by three cameras at once."""

    layout: ClassVar[str] = "kinect-v1"
    frame_rate: ClassVar[float] = 30.0
    limits: ClassVar[str] = (
        "10 people, no session is labelled; the files state neither unit nor frame rate: metres and 30 frames a second "
        "are assumed; no gender is published"
    )
    licence: ClassVar[str] = "released by the authors for research; no licence text; do not redistribute"
    citation: ClassVar[str] = (
        "J. Wang, X. Nie, Y. Xia, Y. Wu, S.-C. Zhu. Cross-view Action Modeling, Learning and Recognition. CVPR 2014."
    )
    usual_source: ClassVar[str] = "NW-UCLA"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "xsub": Protocol(
            "xsub/1",
            {"action": _UNSEEN, "subject": Split(by="occasions", train=(1,), unseen=False), "linkage": _UNSEEN},
        ),
        "xview": Protocol(
            "xview/1",
            {
                target: Split(by="camera", train=(1, 2), unseen=False, shares=True)  # the authors' split of actions
                for target in ("action", "subject")
            },
        ),
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with the JSON files, or their archive; see `Dataset.read`."""
        with open_source(Path(source), _CLIP.pattern, "NW-UCLA clips (a01_s01_e00_v01.json)", writer.skip) as files:
            for done, member in enumerate(files, 1):
                action, subject, execution, view = map(int, _CLIP.fullmatch(member.name).groups())
                performance = f"a{action:02d}_s{subject:02d}_e{execution:02d}"
                labels = {"clip": f"{performance}_v{view:02d}", "action": action, "subject": subject, "performance": performance}
                writer.add_shown(read_clip(member), {**labels, "camera": view, "replication": execution + 1})
                progress(done, len(files))

    def actions(self) -> Mapping[int, str]:
        return _ACTIONS


def read_clip(member: Member) -> np.ndarray:
    """The clip (3, T, 20, 1) of one file.

    Raises:
        DataError: if the file is no such JSON.
    """
    try:
        content = json.loads(member.read())
        joints = np.array(content["skeletons"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise member.error(f"no JSON with `skeletons` ({' '.join(str(error).split())[:80]})") from None
    if joints.dtype.kind not in "fi":
        raise member.error("`skeletons` holds other things than numbers")
    if joints.ndim != 3 or joints.shape[1:] != (_JOINTS, 3) or not 0 < len(joints) <= _LONGEST:
        raise member.error(f"`skeletons` has shape {joints.shape}, expected (frames, {_JOINTS}, 3)")
    return joint_clip(member, joints.astype(np.float64))
