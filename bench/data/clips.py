"""Clips in memory: ragged rows on a device, windowed there a batch at a time.

A `ClipSet` is to training what a clip store is to the disk: the same rows and index, as tensors. Where the rows fit, they
lie on the device once and every batch is a gather; there is no loader process and no padded copy. Where they do not, they stay
in the computer's memory, or on its disk, and the rows of each batch are gathered there and sent.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.store import ClipStore
from bench.files import digest
from bench.skeleton import Layout

NUISANCES = ("setup", "camera")  # label columns that tell of the recording, not of the body
SAMPLINGS = ("uniform", "window", "cyclic")
_SHARE = 0.4  # of the free memory of a GPU that one set of rows may take
STREAMS = ("joint", "bone", "joint-motion", "bone-motion")


@dataclass(frozen=True)
class ClipSet:
    """Ragged clips on one device.

    Args:
        rows: (R, 3, V) float32, metres, on the device or on the CPU; a clip of T frames and M bodies owns T * M consecutive rows
            (frame by frame).
        first, lengths, bodies: (N,) int64: first row, frames and bodies of each clip.
        names: (N,) clip names; what a clip's randomness hangs on.
        layout: Layout of the joints.
        num_bodies: Bodies of every batch; absent ones are exactly zero.
        frame_rate: Frames per second.
        nuisance: (N, F) float, what is known of each clip besides body and length, such as room and camera; NaN where unknown.
            None where nothing is.
        stream: What batches show (`STREAMS`): the joints; the bones, each joint less the one that it hangs on in the layout's
            graph, zero for the root (2s-AGCN, Shi et al., CVPR 2019); or how either moves from a frame to the clip's next one,
            zero at its end and where the body is absent in one of both (MS-AAGCN, Shi et al., TIP 2020). Turning or stretching a
            batch does the same to all of them.
    """

    rows: Tensor
    first: Tensor
    lengths: Tensor
    bodies: Tensor
    names: np.ndarray
    layout: Layout
    num_bodies: int
    frame_rate: float
    nuisance: Tensor | None = None
    stream: str = "joint"

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise ValueError(f"stream must be one of {', '.join(STREAMS)}, got {self.stream!r}")

    @classmethod
    def from_store(cls, store: ClipStore, device: torch.device | str = "cpu") -> "ClipSet":
        """All clips of a store; on a GPU the rows are copied there once, if they fit."""
        first, lengths, bodies = torch.from_numpy(np.ascontiguousarray(store.index.T)).to(device)
        rows = load_rows(store.path / "frames.npy", torch.device(device))
        names = store.labels["clip"].to_numpy(dtype=object)
        known = [column for column in NUISANCES if column in store.labels]
        nuisance = torch.from_numpy(store.labels[known].to_numpy(dtype=np.float64, na_value=np.nan)).to(device) if known else None
        frame_rate = float(store.meta["frame_rate"])
        return cls(rows, first, lengths, bodies, names, store.layout, store.num_bodies, frame_rate, nuisance)

    def sketch(self) -> str:
        """Digest of which clips these are and of some thousand of their rows: tells sets apart, at little cost for large ones."""
        some = self.rows[:: max(1, len(self.rows) // 4096)].cpu().numpy()
        index = torch.stack([self.first, self.lengths, self.bodies]).cpu().numpy()
        return digest([self.layout.name, self.stream, [hashlib.sha256(part.tobytes()).hexdigest() for part in (some, index)]])

    def __len__(self) -> int:
        return len(self.first)

    @property
    def device(self) -> torch.device:
        return self.first.device

    def subset(self, indices: np.ndarray) -> "ClipSet":
        """The clips at these indices; rows are shared, not copied."""
        at = torch.as_tensor(indices, device=self.device)
        return replace(
            self,
            first=self.first[at],
            lengths=self.lengths[at],
            bodies=self.bodies[at],
            names=self.names[indices],
            nuisance=None if self.nuisance is None else self.nuisance[at],
        )

    def with_rows(self, rows: Tensor) -> "ClipSet":
        """The same clips with other coordinates (R, 3, V)."""
        if rows.shape != self.rows.shape:
            raise ValueError(f"expected rows of shape {tuple(self.rows.shape)}, got {tuple(rows.shape)}")
        return replace(self, rows=rows)

    def gather(self, clips: Tensor, frames: Tensor, valid: Tensor | None = None) -> Tensor:
        """Picks frames of clips, and makes of them what the stream shows.

        Args:
            clips: (N,) int64 clip indices.
            frames: (N, T) int64 frame numbers, each below its clip's length.
            valid: (N, T) bool; frames that are False come out as zero.

        Returns:
            (N, 3, T, V, M) float32; bodies that a clip does not have are zero.
        """
        out = self._joints(clips, frames, valid)
        if self.stream.endswith("motion"):
            later = self._joints(clips, torch.minimum(frames + 1, self.lengths[clips, None] - 1), valid)
            out = (later - out) * (presence(out) & presence(later))
        return bones(out, self.layout) if self.stream.startswith("bone") else out

    def _joints(self, clips: Tensor, frames: Tensor, valid: Tensor | None) -> Tensor:
        """As `gather`, of the joints."""
        body = torch.arange(self.num_bodies, device=self.device)
        count = self.bodies[clips, None, None]  # (N, 1, 1)
        there = (body < count).expand(*frames.shape, -1)  # (N, T, M)
        if valid is not None:
            there = there & valid[..., None]
        rows = self.first[clips, None, None] + frames[..., None] * count + body  # (N, T, M)
        picked = self.rows.index_select(0, torch.where(there, rows, 0).flatten().to(self.rows.device)).to(self.device)
        out = picked.unflatten(0, there.shape)  # (N, T, M, 3, V)
        if valid is not None or self.num_bodies > 1:  # otherwise everything is there; asking the device would stall it
            out *= there[..., None, None]
        return out.permute(0, 3, 1, 4, 2)  # (N, 3, T, V, M)

    def whole(self, clips: Tensor) -> Tensor:
        """Whole clips, padded with zeros to the longest: (N, 3, T, V, M)."""
        lengths = self.lengths[clips]
        frames = torch.arange(int(lengths.max()), device=self.device).expand(len(clips), -1)
        valid = frames < lengths[:, None]
        return self.gather(clips, torch.where(valid, frames, 0), valid)

    def scatter(self, rows: Tensor, clips: Tensor, whole: Tensor) -> None:
        """Writes whole clips (N, 3, T, V, M) to their places among rows (R, 3, V); the inverse of `whole`."""
        for i, clip in zip(clips.tolist(), whole, strict=True):
            first, length, bodies = int(self.first[i]), int(self.lengths[i]), int(self.bodies[i])
            rows[first : first + length * bodies] = clip[:, :length, :, :bodies].permute(1, 3, 0, 2).flatten(0, 1).to(rows)

    def windows(self, clips: Tensor, size: int, sampling: str, generator: torch.Generator | None = None) -> Tensor:
        """Clips cut to `size` frames each, (N, 3, size, V, M); see `window_frames`."""
        return self.gather(clips, self.window_frames(clips, size, sampling, generator))

    def window_frames(self, clips: Tensor, size: int, sampling: str, generator: torch.Generator | None = None) -> Tensor:
        """Which frames a window of `size` frames takes of each clip: (N, size) int64.

        Args:
            clips: (N,) int64 clip indices.
            size: Frames of a window.
            sampling: "uniform": one frame from each of `size` equal segments of the whole clip; "window": `size` consecutive
                frames; "cyclic": from the first frame on, as the published pipelines do. Clips that are too short start again.
            generator: Draws the frame within each segment, or the window's start. Without it, the middle is taken.
        """
        lengths = self.lengths[clips, None]  # (N, 1)
        steps = torch.arange(size, device=self.device)
        if sampling == "uniform":
            at = torch.full((len(clips), size), 0.5, device=self.device)
            if generator is not None:
                at = torch.rand((len(clips), size), generator=generator, device=self.device)
            frames = ((steps + at) * (lengths / size)).long().clamp_max(lengths - 1)
        elif sampling == "window":
            spare = (lengths - size).clamp_min(0)
            start = spare // 2
            if generator is not None:
                draw = torch.rand((len(clips), 1), generator=generator, device=self.device)
                start = (draw * (spare + 1)).long()
            frames = (start + steps) % lengths
        elif sampling == "cyclic":
            frames = steps % lengths
        else:
            raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
        return frames

    def batches(self, size: int) -> Iterator[Tensor]:
        """Clip indices in order, `size` at a time."""
        return iter(torch.arange(len(self), device=self.device).split(size))


def load_rows(path: Path, device: torch.device) -> Tensor:
    """Rows (R, 3, V) of a file, on the device if they fit into what is free there."""
    # Copy on write: on a CPU the rows stay on disk until they are read, and are never copied.
    rows = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    return rows.to(device) if fits(rows.nbytes, device) else rows


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes leave a device enough memory for networks and their activations."""
    return device.type != "cuda" or size < _SHARE * torch.cuda.mem_get_info(device)[0]


def bones(clips: Tensor, layout: Layout) -> Tensor:
    """Each joint of (N, 3, T, V, M) less the one it hangs on in the layout's graph; zero for the root and for absent bodies."""
    return clips - clips.index_select(3, _hangs_on(layout.num_joints, layout.edges, clips.device))


@cache
def _hangs_on(joints: int, edges: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """(V,) int64 the joint that each one hangs on; made once, since numbers sent to a GPU for every batch would stall it."""
    parents = torch.arange(joints)
    child, parent = torch.tensor(edges).T
    parents[child] = parent
    return parents.to(device)


def presence(clips: Tensor) -> Tensor:
    """(N, 1, T, 1, M) bool: where clips (N, 3, T, V, M) show a body; an absent one is zero throughout a frame."""
    return (clips != 0).any(dim=3, keepdim=True).any(dim=1, keepdim=True)


def stretch(clips: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Scales each axis of each clip (N, 3, T, V, M) by a factor drawn uniformly from 1 ± `share`: another person's build."""
    draw = torch.rand((len(clips), 3, 1, 1, 1), generator=generator, device=clips.device)
    return clips * (1 + share * (2 * draw - 1))


def rotate_about_vertical(clips: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Turns each clip (N, 3, T, V, M) about its third axis by an angle drawn uniformly from ±`degrees`.

    In normalised clips the third axis points along the spine, so this is a change of the camera's bearing.
    """
    angle = (torch.rand(len(clips), generator=generator, device=clips.device) * 2 - 1) * (degrees * torch.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], dim=1).view(-1, 3, 3)
    return torch.einsum("nij,njtvm->nitvm", turn, clips)
