"""Speed of reading and normalising NTU RGB+D against the plain way of doing it: line by line, joint by joint.

    python -m benchmarks.data --clips path/to/folder-with-skeleton-files

The plain functions do what the published readers do (`read_xyz` and `pre_normalization` of the 2s-AGCN lineage), written from
their description. Runs are interleaved, one process, medians; the results are compared. `--clips` takes real files; without it
synthetic people are written as such files first.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.normalisation import normalise_clip
from bench.data.ntu_files import main_bodies, parse_skeleton
from bench.data.ntu_format import write_ntu_folder
from bench.data.synthetic import Synthetic
from bench.skeleton import get_layout

FRAMES = 300
JOINT_KEYS = (
    "x",
    "y",
    "z",
    "depthX",
    "depthY",
    "colorX",
    "colorY",
    "orientationW",
    "orientationX",
    "orientationY",
    "orientationZ",
)


def plain_read(path: Path) -> np.ndarray:
    """Two bodies (3, T, 25, 2) of a `.skeleton` file: every number of every line is parsed, and the liveliest bodies are kept."""
    with path.open() as file:
        frames = []
        for _ in range(int(file.readline())):
            bodies = []
            for _ in range(int(file.readline())):
                body = {"info": [float(value) for value in file.readline().split()], "joints": []}
                for _ in range(int(file.readline())):
                    body["joints"].append(dict(zip((*JOINT_KEYS, "state"), map(float, file.readline().split()), strict=True)))
                bodies.append(body)
            frames.append(bodies)
    data = np.zeros((4, len(frames), 25, 3))
    for t, bodies in enumerate(frames):
        for m, body in enumerate(bodies[:4]):
            for v, joint in enumerate(body["joints"][:25]):
                data[m, t, v] = [joint["x"], joint["y"], joint["z"]]
    energy = []
    for body in data:
        seen = body[body.sum(-1).sum(-1) != 0]
        energy.append(seen[:, :, 0].std() + seen[:, :, 1].std() + seen[:, :, 2].std() if len(seen) else 0)
    return data[np.argsort(energy)[::-1][:2]].transpose(3, 1, 2, 0)


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    if np.abs(axis).sum() < 1e-6 or abs(angle) < 1e-6:
        return np.eye(3)
    x, y, z = -axis / math.sqrt(axis @ axis) * math.sin(angle / 2)
    w = math.cos(angle / 2)
    return np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y + w * z), 2 * (x * z - w * y)],
            [2 * (x * y - w * z), w * w + y * y - x * x - z * z, 2 * (y * z + w * x)],
            [2 * (x * z + w * y), 2 * (y * z - w * x), w * w + z * z - x * x - y * y],
        ]
    )


def between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    if np.abs(start).sum() < 1e-6:
        return np.eye(3)
    return rotation(np.cross(start, end), math.acos(np.clip(start @ end / np.linalg.norm(start), -1, 1)))


def plain_normalise(clip: np.ndarray) -> np.ndarray:
    """The published normalisation of one clip (3, T, 25, 2) to 300 frames, by loops over bodies, frames and joints."""
    layout = get_layout("ntu")
    s = np.zeros((2, FRAMES, 25, 3))
    s[:, : clip.shape[1]] = clip.transpose(3, 1, 2, 0)
    for body in s:
        if body.sum() == 0:
            continue
        if body[0].sum() == 0:
            seen = body[body.sum(-1).sum(-1) != 0].copy()
            body[:] = 0
            body[: len(seen)] = seen
        for t, frame in enumerate(body):
            if frame.sum() == 0 and body[t:].sum() == 0:
                rest = FRAMES - t
                body[t:] = np.concatenate([body[:t]] * math.ceil(rest / t))[:rest]
                break
    centre = s[0, :, layout.centre : layout.centre + 1].copy()
    for body in s:
        if body.sum():
            body -= centre * (body.sum(-1) != 0)[..., None]
    for (low, high), axis in ((layout.spine, [0, 0, 1]), (layout.shoulders, [1, 0, 0])):
        turn = between(s[0, 0, high] - s[0, 0, low], np.array(axis, dtype=float))
        for body in s:
            if body.sum() == 0:
                continue
            for frame in body:
                if frame.sum() == 0:
                    continue
                for v, joint in enumerate(frame):
                    frame[v] = turn @ joint
    return s.transpose(3, 1, 2, 0)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--most", type=int, default=16, help="files to take")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.clips is None:
            write_ntu_folder(Synthetic(people=2, motions=4, replications=2, cameras=1), Path(folder))
        files = sorted((options.clips or Path(folder)).rglob("*.skeleton"))[: options.most]
        compare(files, options.rounds)


def compare(files: list[Path], rounds: int) -> None:
    plain = [plain_read(file) for file in files]
    ours = [main_bodies(parse_skeleton(file.read_bytes())) for file in files]
    worst = max(float(np.abs(a[..., : b.shape[3]] - b).max()) for a, b in zip(plain, ours, strict=True))
    print(f"{len(files)} files; reading agrees to {worst:.1e} m")
    layout = get_layout("ntu")
    clips = [clip.astype(np.float32) for clip in ours]
    padded = [np.concatenate([clip, np.zeros((*clip.shape[:3], 2 - clip.shape[3]), np.float32)], axis=3) for clip in clips]
    expected = [plain_normalise(clip) for clip in padded]
    found = [normalise_clip(clip, layout, FRAMES) for clip in clips]
    worst = max(float(np.abs(a[..., : b.shape[3]] - b).max()) for a, b in zip(expected, found, strict=True))
    print(f"normalising agrees to {worst:.1e} m")
    steps = {
        "read": (
            lambda: [plain_read(file) for file in files],
            lambda: [main_bodies(parse_skeleton(file.read_bytes())) for file in files],
        ),
        "normalise": (
            lambda: [plain_normalise(clip) for clip in padded],
            lambda: [normalise_clip(clip, layout, FRAMES) for clip in clips],
        ),
    }
    for name, (slow, fast) in steps.items():
        times = [(seconds(slow), seconds(fast)) for _ in range(rounds)]
        before, after = (1000 * statistics.median(column) / len(files) for column in zip(*times, strict=True))
        ratio = statistics.median(a / b for a, b in times)
        print(f"{name:<10} plain {before:8.2f} ms a clip, ours {after:7.3f} ms: {ratio:.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()
