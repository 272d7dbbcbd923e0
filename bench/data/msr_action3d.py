"""MSR Action3D: 10 people, 20 actions, up to 3 trials (Li, Zhang and Liu, CVPR workshops 2010).

One text file a clip, `a{A}_s{S}_e{E}_skeleton3D.txt` (metres) or `..._skeleton.txt` (pixels): a line a joint, 20 lines a frame,
`x y z confidence`. Frames in which the tracker lost the body are zero throughout.
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
from bench.specs import param

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_JOINTS = 20
_NAMES = {
    "real-world": re.compile(r"a(\d+)_s(\d+)_e(\d+)_skeleton3D\.txt"),
    "screen": re.compile(r"a(\d+)_s(\d+)_e(\d+)_skeleton\.txt"),
}
_OVERFLOW = 1e6  # pixels: a mark that a number did not fit
# Camera of the screen coordinates, by the same clips in metres: focal length and centre in pixels, units of depth in a metre.
_FOCAL, _CENTRE, _DEPTH = 285.6, (160.0, 120.0), 250.0
_ACTIONS = (
    *("high arm wave", "horizontal arm wave", "hammer", "hand catch", "forward punch", "high throw", "draw x", "draw tick"),
    *("draw circle", "hand clap", "two hand wave", "side boxing", "bend", "forward kick", "side kick", "jogging"),
    *("tennis swing", "tennis serve", "golf swing", "pickup and throw"),
)


@dataclass(frozen=True)
class MSRAction3D(Dataset):
    """MSR Action3D, skeletons: 567 clips of 10 people doing 20 actions up to 3 times each."""

    coordinates: str = param("real-world", "metres, or pixels and depth brought to metres", choices=tuple(_NAMES))

    layout: ClassVar[str] = "msr-action3d"
    frame_rate: ClassVar[float] = 15.0
    limits: ClassVar[str] = (
        "10 people, no session is labelled; no gender, age or height is published; joints without confidence are "
        "derived, not tracked"
    )
    licence: ClassVar[str] = "published by the authors for research; no formal licence text; do not redistribute"
    citation: ClassVar[str] = "W. Li, Z. Zhang, Z. Liu. Action Recognition Based on a Bag of 3D Points. CVPR4HB 2010."
    usual_source: ClassVar[str] = "MSRAction3D"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "trial": Protocol(
            "trial/1",
            {
                "action": Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True),
                "subject": Split(by="replication", train=(1, 2), unseen=False),
                "linkage": Split(by="subject", train=(1, 3, 5, 7, 9), unseen=True),
            },
        )
    }

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with the text files or their archives; clips without any body are left out; see `Dataset.read`."""
        name = _NAMES[self.coordinates]
        with open_source(Path(source), name.pattern, f"MSR Action3D clips ({name.pattern})", writer.skip) as files:
            for done, member in enumerate(files, 1):
                action, subject, trial = map(int, name.fullmatch(member.name).groups())
                clip = f"a{action:02d}_s{subject:02d}_e{trial:02d}"
                labels = {"clip": clip, "action": action, "subject": subject, "performance": clip, "replication": trial}
                writer.add_shown(read_clip(member, self.coordinates), labels)
                progress(done, len(files))

    def actions(self) -> Mapping[int, str]:
        return dict(enumerate(_ACTIONS, 1))


def read_clip(member: Member, coordinates: str = "real-world") -> np.ndarray:
    """The clip (3, T, 20, 1) of one file, in metres; joints without a place are zero.

    Raises:
        DataError: if the file is cut or a line holds no numbers.
    """
    table = read_numbers(member, 4)[:, :3]
    if len(table) % _JOINTS:
        raise member.error(f"{len(table)} lines are no whole number of frames of {_JOINTS} joints: it is cut short")
    joints = table.reshape(-1, _JOINTS, 3)
    if coordinates == "screen":
        lost = (np.abs(joints) > _OVERFLOW).any(axis=2) | (joints[..., 2] <= 0)
        joints = np.where(lost[..., None], 0.0, joints)
        depth = joints[..., 2] / _DEPTH
        across, down = ((joints[..., i] - _CENTRE[i]) * depth / _FOCAL for i in range(2))
        joints = np.where(lost[..., None], 0.0, np.stack([across, -down, depth], axis=2))
    return joint_clip(member, joints)
