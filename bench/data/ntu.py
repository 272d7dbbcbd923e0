"""NTU RGB+D 60 and 120: 40 and 106 people, Kinect v2, three cameras (Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020).

The clips are given by their owners on request; the reader takes the folder or archives that they hand out. What is kept of a
file is what the published readers keep: two bodies (see `ntu_files.main_bodies`) in raw camera space. Clips that the owners list
as missing are left out where their list lies with the data, and so are files in which nobody is seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.data.dataset import DataError, Dataset
from bench.data.ntu_converted import FORMS, Found, converted_clips
from bench.data.ntu_files import CLIP, clip_labels, gender_table, missing_clips, read_clip
from bench.data.parallel import read_each
from bench.data.sources import open_source
from bench.protocols import Protocol, Split
from bench.specs import param

if TYPE_CHECKING:
    from bench.data.store import ClipWriter

_EXPECTED = "NTU RGB+D clips (*.skeleton, named like S001C001P001R001A001.skeleton)"
_LICENCE = "for academic research only, on request from the ROSE Lab, Nanyang Technological University; do not redistribute"
_CITE_60 = "A. Shahroudy, J. Liu, T.-T. Ng, G. Wang. NTU RGB+D: A Large Scale Dataset for 3D Human Activity Analysis. CVPR 2016."
_CITE_120 = (
    "J. Liu, A. Shahroudy, M. Perez, G. Wang, L.-Y. Duan, A. C. Kot. NTU RGB+D 120: A Large-Scale Benchmark for 3D Human "
    "Activity Understanding. IEEE TPAMI 42(10), 2020."
)

# Training people of the owners' cross-subject split.
XSUB_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
# fmt: off
XSUB_120 = (
    *XSUB_60, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95,
    97, 98, 100, 103,
)
# fmt: on
# Numbered from 1; the first 60 are NTU RGB+D 60.
_ACTIONS = tuple(
    """drink water|eat meal|brush teeth|brush hair|drop|pick up|throw|sit down|stand up|clapping|reading|writing|tear up paper
put on jacket|take off jacket|put on a shoe|take off a shoe|put on glasses|take off glasses|put on a hat|take off a hat
cheer up|hand waving|kicking something|reach into pocket|hopping|jump up|phone call|play with phone|type on a keyboard
point to something|taking a selfie|check time (from watch)|rub two hands|nod head|shake head|wipe face|salute
put palms together|cross hands in front|sneeze or cough|staggering|falling down|touch head (headache)
touch chest (chest pain)|touch back (back pain)|touch neck (neck pain)|nausea or vomiting|fan self|punch or slap other person
kick other person|push other person|pat on back of other person|point finger at other person|hug other person
give something to other person|touch other person's pocket|shake hands|walk towards each other|walk apart from each other
put on headphone|take off headphone|shoot at the basket|bounce ball|tennis bat swing|juggle table tennis balls|hush|flick hair
thumb up|thumb down|make OK sign|make victory sign|staple book|count money|cut nails|cut paper|snap fingers|open bottle
sniff or smell|squat down|toss a coin|fold paper|ball up paper|play magic cube|apply cream on face|apply cream on hand
put on bag|take off bag|put something into a bag|take something out of a bag|open a box|move heavy objects|shake fist
throw up cap or hat|hands up (both hands)|cross arms|arm circles|arm swings|run on the spot|butt kicks|cross toe touch
side kick|yawn|stretch oneself|blow nose|hit other person with something|wield knife towards other person
knock over other person|grab other person's stuff|shoot at other person with a gun|step on foot|high-five|cheers and drink
carry something with other person|take a photo of other person|follow other person|whisper in other person's ear
exchange things with other person|support somebody with hand|rock-paper-scissors""".replace("\n", "|").split("|")
)


def _skeleton_files(source: Path, wanted: Callable[[str], bool], skip: Callable[[str, str], None]) -> Found:
    """The clips of `.skeleton` files; see `converted_clips`."""
    with open_source(source, CLIP.pattern, _EXPECTED, skip) as files:
        members = [member for member in files if wanted(member.name.removesuffix(".skeleton"))]
        clips = read_each(read_clip, members)
        for done, (member, clip) in enumerate(zip(members, clips, strict=True), len(files) - len(members) + 1):
            yield done, len(files), member.name.removesuffix(".skeleton"), clip


def _protocols(train_people: tuple[int, ...]) -> dict[str, Protocol]:
    """The splits of the field: people are re-identified in different ways, all else is asked of the owners' unseen people."""
    of_people = Split(by="subject", train=train_people, unseen=True, alone=True)
    unseen = {"action": replace(of_people, alone=False), "gender": of_people, "linkage": of_people}
    even = tuple(range(2, 33, 2))
    reid = {
        "xrep-parity": Split(by="parity", train=(1,), unseen=False, alone=True),
        "xrep": Split(by="replication", train=(1,), unseen=False, alone=True),
        "xaction": Split(by="action", train=tuple(range(1, 121, 2)), unseen=False, alone=True),
        "xsetup-reid": Split(by="session", train=(1,), unseen=False, alone=True),
        # With all clips, as in the literature.
        "xview": Split(by="camera", train=(2, 3), unseen=False, shares=True),
    }
    found = {name: Protocol(f"{name}/1", {**unseen, "subject": split}) for name, split in reid.items()}
    found["xsub"] = Protocol("xsub/1", unseen)
    across = {"action": Split(by="setup", train=even, unseen=False), "subject": reid["xsetup-reid"]}
    found["xsetup"] = Protocol("xsetup/1", {**unseen, **across})
    return found


@dataclass(frozen=True)
class NTU120(Dataset):
    """NTU RGB+D 120, skeletons: 113,945 clips of 106 people doing 120 actions, after the owners' list of missing ones."""

    gender_csv: str = param(
        "", "table of the people's gender that you supply (columns P,Gender; F or M): the owners publish none"
    )

    form: str = param(
        "skeleton",
        "files of the owners, or what another project made of them: arrays of 2s-AGCN or CTR-GCN, annotations of PYSKL",
        choices=("skeleton", *FORMS),
    )

    layout: ClassVar[str] = "ntu"
    frame_rate: ClassVar[float] = 30.0
    limits: ClassVar[str] = (
        "19 of the 40 people of NTU RGB+D 60, and 50 of 106, were recorded in a single set-up, so the room names them; "
        "the owners publish no gender; replications follow each other within minutes; clips of two people name one of them and "
        "do not say which: they count for actions, and with the others only under xview"
    )
    licence: ClassVar[str] = _LICENCE
    citation: ClassVar[str] = f"{_CITE_60} {_CITE_120}"
    usual_source: ClassVar[str] = "NTU-RGBD"
    reader_version: ClassVar[int] = 2
    protocols: ClassVar[Mapping[str, Protocol]] = {
        **_protocols(XSUB_120),
        # Across data sets (Carr et al., CIKM 2023): learnt on NTU RGB+D 60, asked of the people and actions that came later.
        "linkage": Protocol(
            "linkage/1",
            {
                "action": Split(by="subject", train=XSUB_120, unseen=True),
                "linkage": Split(by="newcomers", train=(1,), unseen=True, alone=True),
            },
        ),
    }
    last: ClassVar[Mapping[str, int]] = {}  # label to its largest value; clips beyond belong to another data set

    def read(self, source: Path | None, writer: "ClipWriter", progress: Callable[[int, int], None]) -> None:
        """Reads a folder with the `.skeleton` files or with their `.zip` archives, or one archive, or what `form` names.

        See `Dataset.read`.
        """
        source = Path(source)
        genders = gender_table(Path(self.gender_csv)) if self.gender_csv else {}
        missing = missing_clips(source)

        def wanted(name: str) -> bool:
            """Whether a clip is to be read; one that belongs elsewhere or is listed as missing is noted."""
            reason = self._outside(name) or ("on the owners' list of missing skeletons" if name in missing else "")
            if reason:
                writer.skip(name, reason)
            return not reason and not writer.has(name)

        if self.form == "skeleton":
            found = _skeleton_files(source, wanted, writer.skip)
        else:
            found = converted_clips(self.form, source, wanted)
        for done, total, name, clip in found:
            labels = clip_labels(f"{name}.skeleton")
            if clip is None:
                writer.skip(name, "has no skeleton")
            else:
                if self.gender_csv:
                    labels["gender"] = genders.get(labels["subject"], "")
                writer.add(clip, labels)
            progress(done, total)
        if not len(writer):
            raise DataError(f"every clip in {source} is left out: of another data set, listed as missing, or without a body")

    def _outside(self, name: str) -> str:
        """Why a clip is not part of this data set; "" if it is."""
        labels = clip_labels(f"{name}.skeleton")
        return next(
            (f"not part of this data set: {label} > {last}" for label, last in self.last.items() if labels[label] > last), ""
        )

    def actions(self) -> Mapping[int, str]:
        return dict(enumerate(_ACTIONS[: self.last.get("action")], 1))


@dataclass(frozen=True)
class NTU60(NTU120):
    """NTU RGB+D 60, skeletons: 56,578 clips of 40 people doing 60 actions, after the owners' list of missing ones."""

    citation: ClassVar[str] = _CITE_60
    protocols: ClassVar[Mapping[str, Protocol]] = _protocols(XSUB_60)
    last: ClassVar[Mapping[str, int]] = {"setup": 17, "subject": 40, "action": 60}
