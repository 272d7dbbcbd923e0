"""What is wrong with a data set, or odd about it: looked for in the clips and labels of a store, before
anything is measured on it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.data.store import ClipStore
from bench.protocols import Protocol, ProtocolError, instantiate
from bench.skeleton import Layout

JUMP = 1.0  # metres between two frames: no joint moves so fast (30 m/s at 30 frames a second)
SWAP = 0.3  # metres that a left and a right joint move together before a swap is suspected
UNSTABLE = 0.15  # coefficient of variation of a bone's length within a clip
ABSENT = 0.2  # share of frames without a body
NEVER_SEEN = 0.99  # share of its frames at the origin from which on a joint is no joint of the data


@dataclass(frozen=True)
class ClipQuality:
    """What was found in one clip.

    Args:
        absent: Share of frames in which the first body is not there.
        jumps: Joint moves of more than a metre between two frames.
        unstable: Median over bones of the coefficient of variation of their length; not a number for a single pose.
        swaps: Frames from which on left and right seem to have changed places.
        unseen: (V,) share of the first body's frames in which each joint is at the origin, so not seen; nan without a body.
        digest: Equal for clips of equal coordinates.
    """

    absent: float
    jumps: int
    unstable: float
    swaps: int
    unseen: np.ndarray
    digest: str


def clip_quality(clip: np.ndarray, layout: Layout) -> ClipQuality:
    """Looks at one clip (3, T, V, M) in metres; bones, jumps and swaps are those of all bodies."""
    there = clip.any(axis=(0, 2))  # (T, M)
    jumps, swaps, variations = 0, 0, []
    unseen = np.full(clip.shape[2], np.nan)
    for body in range(clip.shape[3]):
        poses = clip[..., body][:, there[:, body]].astype(np.float64)  # (3, T', V)
        moved = np.linalg.norm(np.diff(poses, axis=1), axis=0)  # (T' - 1, V)
        seen = (poses != 0).any(axis=0)  # a joint at the origin is absent
        if body == 0 and len(seen):
            unseen = 1 - seen.mean(axis=0)
        jumps += int((moved[seen[1:] & seen[:-1]] > JUMP).sum())
        swaps += _swaps(poses, layout)
        bones = np.array(layout.bones)
        lengths = np.linalg.norm(poses[:, :, bones[:, 0]] - poses[:, :, bones[:, 1]], axis=0)  # (T', B)
        if len(lengths) > 1:
            mean = lengths.mean(axis=0)
            variations.append(np.median(lengths.std(axis=0)[mean > 0] / mean[mean > 0]) if (mean > 0).any() else 0.0)
    digest = hashlib.sha256(np.ascontiguousarray(clip)).hexdigest()
    unstable = float(np.mean(variations)) if variations else np.nan
    return ClipQuality(float(1 - there[:, 0].mean()), jumps, unstable, swaps, unseen, digest)


def _swaps(poses: np.ndarray, layout: Layout) -> int:
    """Frames at which left and right joints (hips, knees, shoulders, elbows, ...) move far, but hardly if they changed names."""
    if not layout.mirror or poses.shape[1] < 2:
        return 0
    left, right = np.array(layout.mirror).T
    before, after = poses[:, :-1], poses[:, 1:]

    def way(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(a - b, axis=0).sum(axis=1)  # (T' - 1,) metres over all pairs

    kept = way(before[:, :, left], after[:, :, left]) + way(before[:, :, right], after[:, :, right])
    crossed = way(before[:, :, left], after[:, :, right]) + way(before[:, :, right], after[:, :, left])
    return int(((kept > SWAP * len(left)) & (crossed < 0.5 * kept)).sum())


@dataclass(frozen=True)
class Quality:
    """What was found in a data set.

    Args:
        joints: Their names.
        names: Of the clips.
        clips: One entry a clip.
        duplicates: Groups of clips (their names) with equal coordinates.
        across: For each target of the protocol, the names of the first copies that stand on both sides of its split, and how many
            groups do; empty where none.
        counts: For each label column with few values, clips of each value.
        alone: People seen in one set-up only, of all people; None without set-ups.
        room_guess: Share of clips whose person is named by the commonest one of their set-up; None without set-ups.
    """

    joints: Sequence[str]
    names: Sequence[str]
    clips: Sequence[ClipQuality]
    lengths: np.ndarray
    duplicates: Sequence[tuple[str, ...]]
    across: Mapping[str, tuple[tuple[str, ...], int]]
    counts: Mapping[str, Mapping[Any, int]]
    alone: tuple[int, int] | None
    room_guess: float | None

    def lines(self) -> list[tuple[str, str]]:
        """What to tell people: label and finding."""
        absent, unstable, jumps, swaps = (
            np.array([getattr(clip, name) for clip in self.clips]) for name in ("absent", "unstable", "jumps", "swaps")
        )
        lengths = self.lengths
        found = [
            ("clips", f"{len(lengths)}, {lengths.min()} to {lengths.max()} frames, median {np.median(lengths):.0f}"),
            ("absent frames", f"{absent.mean():.1%}; more than {ABSENT:.0%} in {self._some(absent > ABSENT)}"),
            ("joints not seen", self._unseen()),
            ("jumps", f"{jumps.sum()} of a joint by over {JUMP:g} m between two frames, in {self._some(jumps > 0)}"),
            (
                "bone lengths",
                f"vary by {np.nanmedian(unstable):.1%} within the median clip; "
                f"by more than {UNSTABLE:.0%} in {self._some(unstable > UNSTABLE)}",
            ),
            ("left and right", f"{swaps.sum()} swaps suspected, in {self._some(swaps > 0)}"),
            ("copies", "; ".join(" = ".join(group) for group in self.duplicates[:5]) or "none"),
        ]
        if len(self.duplicates) > 5:
            found[-1] = ("copies", f"{found[-1][1]}; and {len(self.duplicates) - 5} groups more")
        for target, (names, groups) in self.across.items():
            found.append(("copies on both sides", f"of the split of {target}: {groups} groups ({' = '.join(names)}, ...)"))
        for column, counts in self.counts.items():
            least, most = min(counts.values()), max(counts.values())
            found.append((f"clips per {column}", f"{least} to {most}; the largest is {most / sum(counts.values()):.1%} of all"))
        if self.alone is not None:
            alone = f"{self.alone[0]} of {self.alone[1]} people were seen in one only"
            found.append(
                ("set-ups", f"{alone}; naming the commonest person of a set-up is right for {self.room_guess:.1%} of clips")
            )
        return found

    def _unseen(self) -> str:
        """How often joints are at the origin, and which of them always are."""
        unseen = np.array([clip.unseen for clip in self.clips if np.isfinite(clip.unseen).all()])  # (N', V)
        if not len(unseen):
            return "no clip has a body"
        share = unseen.mean(axis=0)
        if not share.any():
            return "none"
        told = f"{share.mean():.1%} of all; most often {self.joints[share.argmax()]}, {share.max():.1%}"
        never = [self.joints[i] for i in np.flatnonzero(share > NEVER_SEEN)]
        if never:
            told += f". At the origin, so not seen: {', '.join(never)}; of clips that were centred on it, hand in the originals"
        return told

    def _some(self, which: np.ndarray) -> str:
        """How many clips, and the names of the first."""
        where = np.flatnonzero(which)
        names = ", ".join(self.names[i] for i in where[:3])
        return f"{len(where)} clips" + (f" ({names}{', ...' if len(where) > 3 else ''})" if len(where) else "")


def check(
    store: ClipStore, protocol: Protocol | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Quality:
    """Looks through a whole store, one clip in memory at a time; for copies also across the splits of a protocol."""
    clips = []
    for done, clip in enumerate(store, 1):
        clips.append(clip_quality(clip, store.layout))
        progress(done, len(store))
    labels, names = store.labels, store.labels["clip"].tolist()
    groups: dict[str, list[str]] = {}
    for name, clip in zip(names, clips, strict=True):
        groups.setdefault(clip.digest, []).append(name)
    counted = [c for c in ("subject", "action", "gender", "setup", "camera", "age_group", "correct") if c in labels]
    counts = {c: labels[c].dropna().value_counts().to_dict() for c in counted}
    alone = guess = None
    if counts.get("setup"):
        known = labels.dropna(subset=["setup", "subject"])
        setups = known.groupby("subject")["setup"].nunique()
        alone = int((setups == 1).sum()), len(setups)
        guess = float(known.groupby("setup")["subject"].agg(lambda people: people.value_counts().iloc[0]).sum() / len(known))
    duplicates = [tuple(group) for group in groups.values() if len(group) > 1]
    across = _across(duplicates, store, protocol) if protocol and duplicates else {}
    return Quality(
        store.layout.joints, names, clips, store.lengths, duplicates, across, {c: v for c, v in counts.items() if v}, alone, guess
    )


def _across(
    duplicates: Sequence[tuple[str, ...]], store: ClipStore, protocol: Protocol
) -> dict[str, tuple[tuple[str, ...], int]]:
    """For each target that the data can be asked for: the first group of copies on both sides, and how many there are."""
    place = {name: i for i, name in enumerate(store.labels["clip"])}
    found = {}
    for target in protocol.splits:
        try:
            part = instantiate(protocol, target, store.labels, "")
        except ProtocolError:
            continue
        learnt, tested = {*part.train.tolist(), *part.validation.tolist()}, set(part.test.tolist())
        both = [g for g in duplicates if {place[n] for n in g} & learnt and {place[n] for n in g} & tested]
        if both:
            found[target] = both[0], len(both)
    return found
