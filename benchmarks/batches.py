"""Clips a second that reach a network: from memory-mapped ragged frames, a batch at a time, against feeders clip by clip.

    python -m benchmarks.batches

The plain feeders do what the published ones do, written from their description, on arrays padded to 300 frames and memory-mapped:
that of the 2s-AGCN lineage hands out all 300 frames; that of CTR-GCN takes a random crop of the frames that hold a body, resizes
it to 64 and turns it at random. Both are collated into batches, in this process. Runs are interleaved; medians and ratios.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.data.clips import STREAMS, ClipSet, rotate_about_vertical
from bench.data.normalisation import pad_cyclic
from bench.data.store import ClipStore, ClipWriter
from bench.data.synthetic import Synthetic
from bench.skeleton import get_layout

PADDED, FRAMES, BATCH, BODIES = 300, 64, 64, 2


def plain_whole(clip: np.ndarray, draw: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(np.array(clip))


def plain_crop(clip: np.ndarray, draw: np.random.Generator) -> torch.Tensor:
    """A random crop of 50 to 100 % of the shown frames, resized to `FRAMES` and turned about all axes by up to 0.3 rad."""
    clip = np.array(clip)
    shown = int((clip.sum((0, 2, 3)) != 0).sum())
    size = min(max(int(np.floor(shown * draw.uniform(0.5, 1))), FRAMES), shown)
    start = draw.integers(0, shown - size + 1)
    channels, _, joints, bodies = clip.shape
    flat = torch.from_numpy(clip[:, start : start + size]).permute(0, 2, 3, 1).reshape(channels * joints * bodies, size)
    flat = nn.functional.interpolate(flat[None, None], size=(len(flat), FRAMES), mode="bilinear", align_corners=False)
    resized = flat.reshape(channels, joints, bodies, FRAMES).permute(0, 3, 1, 2)
    x, y, z = draw.uniform(-0.3, 0.3, 3)
    rx = np.array([[1, 0, 0], [0, np.cos(x), np.sin(x)], [0, -np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), np.sin(z), 0], [-np.sin(z), np.cos(z), 0], [0, 0, 1]])
    turn = torch.from_numpy(rz @ ry @ rx).float()
    return (turn @ resized.reshape(channels, -1)).reshape(resized.shape)


def clips_a_second(batch: Callable[[np.ndarray], torch.Tensor], order: np.ndarray) -> float:
    started = time.perf_counter()
    for first in range(0, len(order), BATCH):
        batch(order[first : first + BATCH])
    return len(order) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        with ClipWriter(Path(folder) / "store", get_layout("ntu"), {"frame_rate": 30.0}) as writer:
            for clip, labels in Synthetic(people=8, motions=8, replications=2).clips():
                writer.add(clip, labels)
        store = ClipStore.open(Path(folder) / "store")
        write_padded(store, Path(folder) / "padded.npy")
        compare(store, np.load(Path(folder) / "padded.npy", mmap_mode="r"), options.rounds, torch.device(options.device))


def write_padded(store: ClipStore, path: Path) -> None:
    """All clips as (N, 3, 300, V, 2), repeated cyclically."""
    out = np.lib.format.open_memmap(path, "w+", np.float32, (len(store), 3, PADDED, store.layout.num_joints, BODIES))
    for clip, padded in zip(store, out, strict=True):
        padded[..., : clip.shape[3]] = pad_cyclic(clip[None], np.array([clip.shape[1]]), PADDED)[0]
    out.flush()


def compare(store: ClipStore, padded: np.ndarray, rounds: int, device: torch.device) -> None:
    clips = replace(ClipSet.from_store(store, device), num_bodies=BODIES)
    print(f"{len(clips)} clips of {store.lengths.min()} to {store.lengths.max()} frames, batches of {BATCH}, {device}")
    generator = torch.Generator(device).manual_seed(0)

    def ours(size: int, sampling: str, stream: str, turn: bool) -> Callable[[np.ndarray], torch.Tensor]:
        seen = replace(clips, stream=stream)

        def batch(indices: np.ndarray) -> torch.Tensor:
            out = seen.windows(torch.as_tensor(indices, device=device), size, sampling, generator)
            return rotate_about_vertical(out, 17, generator) if turn else out

        return batch

    def plain(feed: Callable[[np.ndarray, np.random.Generator], torch.Tensor]) -> Callable[[np.ndarray], torch.Tensor]:
        draw = np.random.default_rng(0)
        return lambda indices: torch.stack([feed(padded[i], draw) for i in indices]).to(device)

    pairs = {
        f"{PADDED} frames, as they are": (plain(plain_whole), ours(PADDED, "cyclic", "joint", False)),
        f"{FRAMES} frames, cropped and turned": (plain(plain_crop), ours(FRAMES, "uniform", "joint", True)),
        **{f"{FRAMES} frames, {name}": (plain(plain_crop), ours(FRAMES, "uniform", name, True)) for name in STREAMS[1:]},
    }
    for name, (slow, fast) in pairs.items():
        speeds = []
        for number in range(rounds):
            order = np.random.default_rng(number).permutation(len(clips))
            speeds.append((clips_a_second(slow, order), clips_a_second(fast, order)))
        before, after = (statistics.median(column) for column in zip(*speeds, strict=True))
        ratio = statistics.median(b / a for a, b in speeds)
        print(f"{name:<32} plain {before:8.0f} clips/s, ours {after:8.0f}: {ratio:.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()
