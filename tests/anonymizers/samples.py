"""Batches for tests of single anonymizers."""

import torch

from bench.anonymizer import ClipBatch
from bench.data.clips import ClipSet
from bench.skeleton import get_layout


def batch_of(clips, lengths=None, layout="ntu", labels=None):
    """A batch of whole clips (N, 3, T, V, M); frames past a clip's end are put to zero."""
    clips = clips.clone()
    lengths = torch.tensor(lengths or [clips.shape[2]] * len(clips))
    for clip, length in zip(clips, lengths, strict=True):
        clip[:, length:] = 0
    return ClipBatch(clips, lengths, tuple(range(len(clips))), get_layout(layout), 30.0, labels or {})


def noise_clips(count=3, frames=40, bodies=1, layout="ntu", seed=0):
    """(N, 3, T, V, M) white noise: every frame and joint differs."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, 3, frames, get_layout(layout).num_joints, bodies), generator=generator)


def clip_set(clips, layout="ntu"):
    """A `ClipSet` of whole clips (N, 3, T, V, 1) of equal length."""
    import numpy as np

    n, _, t, _, m = clips.shape
    rows = clips.permute(0, 2, 4, 1, 3).flatten(0, 2).contiguous()
    counts = torch.full((n,), t), torch.full((n,), m)
    names = np.array([f"c{i}" for i in range(n)], dtype=object)
    return ClipSet(rows, torch.arange(n) * t * m, *counts, names, get_layout(layout), m, 30.0)
