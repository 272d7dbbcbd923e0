"""Skeletons drawn: clips beside each other, bones coloured by body part, as a moving GIF or as a strip of poses."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from bench.files import atomic_file
from bench.report.pareto import save_figure
from bench.skeleton import Layout

COLOURS = {  # safe for colour-blind readers
    "head": "#000000",
    "torso": "#777777",
    "left arm": "#0072B2",
    "right arm": "#D55E00",
    "left leg": "#56B4E9",
    "right leg": "#E69F00",
}
_TURN = np.deg2rad(25.0)  # the body is seen a little from the side, and a little from above
_TILT = np.deg2rad(10.0)
_FRAMES = 60  # most frames of an animation
_POSES = 8  # poses of a strip
_MARGIN = 0.1  # metres

Columns = Mapping[str, Sequence[np.ndarray]]


def project(clip: np.ndarray) -> np.ndarray:
    """Where the joints of a clip (3, T, V, M), third axis up, fall on the paper: (2, T, V, M)."""
    x, y, z = clip
    across = x * np.cos(_TURN) - y * np.sin(_TURN)
    away = x * np.sin(_TURN) + y * np.cos(_TURN)
    return np.stack([across, z * np.cos(_TILT) + away * np.sin(_TILT)])


def save_animation(columns: Columns, titles: Sequence[str], layout: Layout, frame_rate: float, path: Path) -> Path:
    """Writes a GIF.

    Args:
        columns: Method to its clips (3, T, V, M) in metres, one a row.
        titles: Names of the rows.
        layout: Layout of the joints.
        frame_rate: Frames per second; long clips are shown faster than they were.
        path: File to write.
    """
    figure, grid = _grid(columns, titles)
    longest = max(clip.shape[1] for clips in columns.values() for clip in clips)
    shown = min(longest, _FRAMES)
    drawn = [
        (grid[row][column], project(clip), clip.any(axis=(0, 2)))
        for column, clips in enumerate(columns.values())
        for row, clip in enumerate(clips)
    ]
    lines = [LineCollection([], linewidths=2.2, capstyle="round") for _ in drawn]
    for (axes, _, _), line in zip(drawn, lines, strict=True):
        axes.add_collection(line)

    def draw(step: int) -> list[LineCollection]:
        frame = round(step * (longest - 1) / max(shown - 1, 1))
        for (_, points, there), line in zip(drawn, lines, strict=True):
            _set_pose(line, points, there, min(frame, points.shape[1] - 1), layout)
        return lines

    FigureCanvasAgg(figure).draw()
    figure.set_layout_engine("none")  # laid out once, not for every frame
    animation = FuncAnimation(figure, draw, frames=shown, blit=False)
    with atomic_file(path) as temporary, TemporaryDirectory() as folder:
        picture = Path(folder, "clip.gif")  # the writer goes by the name
        animation.save(picture, writer=PillowWriter(fps=max(1, round(min(frame_rate, 20)))), dpi=70)
        shutil.copyfile(picture, temporary)
    return path


def save_strip(columns: Columns, titles: Sequence[str], layout: Layout, frame_rate: float, path: Path) -> Path:
    """Writes a PNG: for each clip and method, poses side by side through time (arguments as `save_animation`)."""
    rows = {
        f"{title}\n{method}": clip for i, title in enumerate(titles) for method, clip in ((m, columns[m][i]) for m in columns)
    }
    figure = Figure(figsize=(1.35 * _POSES + 1.6, 1.7 * len(rows) + 0.5), layout="constrained", dpi=90)
    grid = figure.subplots(len(rows), 1, squeeze=False)
    for axes, (name, clip) in zip(grid[:, 0], rows.items(), strict=True):
        points, there = project(clip), clip.any(axis=(0, 2))
        low, high = _limits(points, there)
        step = max(high[0] - low[0], 0.5) + 0.1
        for place, frame in enumerate(np.linspace(0, clip.shape[1] - 1, _POSES).round().astype(int)):
            line = LineCollection([], linewidths=1.8, capstyle="round")
            axes.add_collection(line)
            moved = points + np.array([place * step, 0.0])[:, None, None, None]
            _set_pose(line, moved, there, frame, layout)
            axes.text(
                place * step + (low[0] + high[0]) / 2, low[1] - 0.02, f"{frame / frame_rate:.1f} s", ha="center", va="top", size=7
            )
        axes.set(xlim=(low[0], high[0] + (_POSES - 1) * step), ylim=(low[1] - 0.2, high[1]), aspect="equal")
        axes.set_title(name, loc="left", fontsize=8)
        _bare(axes)
    _legend(figure)
    return save_figure(figure, path)


def _grid(columns: Columns, titles: Sequence[str]) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(2.5 * len(columns) + 0.8, 2.7 * len(titles) + 0.7), layout="constrained")
    grid = figure.subplots(len(titles), len(columns), squeeze=False)
    for row, title in enumerate(titles):
        for column, (method, clips) in enumerate(columns.items()):
            axes, clip = grid[row][column], clips[row]
            low, high = _limits(project(clip), clip.any(axis=(0, 2)))
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
            _bare(axes)
            if row == 0:
                axes.set_title(method, fontsize=9)
            if column == 0:
                axes.set_ylabel(title, fontsize=8)
    _legend(figure)
    return figure, grid


def _limits(points: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2,) lowest and highest coordinates of bodies that are there, with a margin; at least a metre apart."""
    found = points.transpose(1, 3, 2, 0)[there].reshape(-1, 2)
    found = found if len(found) else np.zeros((1, 2))
    low, high = found.min(axis=0), found.max(axis=0)
    spare = np.maximum(1.0 - (high - low), 0) / 2 + _MARGIN
    return low - spare, high + spare


def _set_pose(line: LineCollection, points: np.ndarray, there: np.ndarray, frame: int, layout: Layout) -> None:
    """Draws the bones of the bodies that are there in a frame of (2, T, V, M)."""
    part_of = {joint: part for part, joints in layout.parts.items() for joint in joints}
    segments, colours = [], []
    for body in np.flatnonzero(there[frame]):
        pose = points[:, frame, :, body]
        segments += [pose[:, [child, parent]].T for child, parent in layout.bones]
        colours += [COLOURS.get(part_of[child], "#CC79A7") for child, _ in layout.bones]
    line.set_segments(segments)
    line.set_color(colours)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color("#dddddd")


def _legend(figure: Figure) -> None:
    for part, colour in COLOURS.items():
        figure.axes[0].plot([], [], color=colour, linewidth=2, label=part)
    figure.legend(loc="outside lower center", ncols=len(COLOURS), fontsize=7, frameon=False)
