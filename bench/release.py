"""Release files: a fitted anonymizer on disk, and the clips that it releases, in the formats of the field.

A fitted anonymizer is a folder with `anonymizer.json` (what it is, what it was fitted to) and `state.safetensors` (what it
learnt).
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.anonymizer import RELEASE_LABELS, released
from bench.data.clips import ClipSet
from bench.data.ntu_format import write_skeleton
from bench.data.store import ClipStore, ClipWriter
from bench.files import UserError, atomic_file, atomic_folder, digest, read_json, write_json
from bench.registry import ANONYMIZERS
from bench.specs import Spec, parse_spec

SCHEMA = 1
_DISTANCE = 3.0  # metres from the camera at which `.skeleton` files show a body
_BATCH = 64


@dataclass(frozen=True)
class FittedAnonymizer:
    """An anonymizer with all that it learnt.

    Args:
        spec: The method.
        state: What it learnt.
        layout: Name of the layout of the clips that it was fitted to.
        normalisation: How these were normalised.
        classes: For each of `RELEASE_LABELS`, the values that its codes stand for.
        info: What else is known of the fit: data set, protocol, preset, seed.
    """

    spec: Spec
    state: Mapping[str, Tensor]
    layout: str
    normalisation: Mapping[str, Any]
    classes: Mapping[str, tuple[str, ...]]
    info: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Writes the folder; it appears whole or not at all.

        Raises:
            UserError: if something is there already.
        """
        _refuse_existing(folder)
        with atomic_folder(folder) as temporary:
            save_file({name: tensor.contiguous().cpu() for name, tensor in self.state.items()}, temporary / "state.safetensors")
            found = {
                "schema": SCHEMA,
                "anonymizer": str(self.spec),
                "description": self.spec.describe(),
                "layout": self.layout,
                "normalisation": dict(self.normalisation),
                "classes": {name: list(values) for name, values in self.classes.items()},
                **self.info,
            }
            write_json(temporary / "anonymizer.json", found)

    @classmethod
    def load(cls, folder: Path) -> "FittedAnonymizer":
        """Reads such a folder.

        Raises:
            UserError: if it is not whole, or was written by another schema, or its method is not what it was.
        """
        try:
            found = read_json(folder / "anonymizer.json")
            state = load_file(folder / "state.safetensors")
            schema, text, layout = found["schema"], found["anonymizer"], found["layout"]
            normalisation, classes = found["normalisation"], {name: tuple(found["classes"][name]) for name in RELEASE_LABELS}
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(f"{folder} holds no fitted anonymizer ({type(error).__name__}: {error})") from error
        if schema != SCHEMA:
            raise UserError(f"{folder} has schema {schema}, this version reads {SCHEMA}; fit the anonymizer again")
        spec = parse_spec(text, ANONYMIZERS)
        if digest(found["description"]) != spec.digest:
            raise UserError(f"{folder} was fitted by another version of {text}; fit it again")
        info = {
            name: value for name, value in found.items() if name in ("dataset", "data", "protocol", "preset", "seed", "fitting")
        }
        return cls(spec, state, layout, normalisation, classes, info)

    def labels(self, table: Any) -> dict[str, Tensor]:
        """Codes (N,) of each of `RELEASE_LABELS` for a table of labels; -1 for values that were not there at the fit."""
        found = {}
        for name in RELEASE_LABELS:
            codes = {value: code for code, value in enumerate(self.classes[name])}
            found[name] = torch.tensor([codes.get(str(value), -1) for value in table[name]])
        return found

    def release(self, clips: ClipSet, table: Any, *, seed: int) -> Iterator[np.ndarray]:
        """Anonymized clips (3, T, V, M), in order, a batch in memory at a time.

        Args:
            clips: What to release, normalised as at the fit.
            table: Their labels.
            seed: Seed of all randomness. Whoever knows it can undo noise.

        Raises:
            UserError: if the clips are of another layout, or nothing is left of one.
        """
        if clips.layout.name != self.layout:
            raise UserError(f"{self.spec} was fitted to clips of layout {self.layout}, these are {clips.layout.name}")
        state = {name: tensor.to(clips.device) for name, tensor in self.state.items()}
        order = torch.arange(len(clips), device=clips.device)
        common = {"seed": seed, "draw": "holder/0", "labels": self.labels(table), "batch_size": _BATCH}
        for indices, out in released(self.spec.value, state, clips, order, **common):
            for i, clip in zip(indices.tolist(), out.cpu().numpy(), strict=True):
                clip = clip[:, : int(clips.lengths[i]), :, : int(clips.bodies[i])]
                if not clip.any():
                    raise UserError(f"{self.spec} leaves nothing of clip {clips.names[i]}: all its coordinates are zero")
                yield clip


def write_release(
    kind: str,
    path: Path,
    clips: Iterator[np.ndarray],
    source: ClipStore,
    meta: Mapping[str, Any],
    train: np.ndarray,
    progress: Callable[[int, int], None],
) -> None:
    """Writes anonymized clips.

    Args:
        kind: "store": a clip store, as `bench data prepare` makes them. "skeleton": a folder with one NTU `.skeleton` file a
        clip,
            the body upright, three metres before the camera. "npz": the file of the CTR-GCN family.
        path: Folder, or for npz file, to write.
        clips: Clips (3, T, V, M) in the order of `source`.
        source: Store of the source clips: their labels and layout are kept.
        meta: What the store's `meta.json` says beside that.
        train: Clip indices of the training part (npz).
        progress: Called with (done, total).

    Raises:
        UserError: if something is there already, or the layout does not fit the format.
    """
    _refuse_existing(path)
    if kind == "store":
        with ClipWriter(path, source.layout, meta) as writer:
            for done, (clip, labels) in enumerate(zip(clips, source.label_rows(), strict=True), 1):
                writer.add(clip, labels)
                progress(done, len(source))
    elif kind == "skeleton":
        if source.layout.name != "ntu":
            raise UserError(f"NTU .skeleton files hold the 25 joints of layout ntu, not those of {source.layout.name}")
        with atomic_folder(path) as folder:
            for i, clip in enumerate(clips):
                write_skeleton(folder / f"{source.labels['clip'][i]}.skeleton", before_camera(clip))
                progress(i + 1, len(source))
    else:
        _write_npz(path, clips, source, train, progress)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} is there already; choose another place or delete it")


def before_camera(clip: np.ndarray) -> np.ndarray:
    """A clip (3, T, V, M) whose third axis points up, turned so that the second does and moved before the camera."""
    x, y, z = clip
    turned = np.stack([x, z, -y])
    there = clip.any(axis=(0, 2))[:, None]  # (T, 1, M)
    nearest = float(np.where(there, turned[2], np.inf).min())
    turned[2] += max(_DISTANCE, 0.5 - nearest)
    return (turned * there).astype(np.float32)


def _write_npz(
    path: Path, clips: Iterator[np.ndarray], source: ClipStore, train: np.ndarray, progress: Callable[[int, int], None]
) -> None:
    """Writes `x_train`, `x_test` (N, T, M * V * 3) float32, padded with zeros, and `y_train`, `y_test` (N, K) one-hot actions.

    Per frame body, joint, axis, and always two bodies at least: clips of layout ntu are as the CTR-GCN family reads them.
    Streams: the arrays are never whole in memory.
    """
    bodies, joints = max(2, source.num_bodies), source.layout.num_joints
    frames = int(source.lengths.max())
    actions = sorted(source.labels["action"].dropna().unique())
    code = {value: k for k, value in enumerate(actions)}
    learnt = np.isin(np.arange(len(source)), train)
    parts = ("train", "test")
    with atomic_file(path) as temporary:
        parked = {name: temporary.with_name(f"{temporary.name}.{name}") for name in parts}
        files = {name: file.open("wb") for name, file in parked.items()}
        answers: dict[str, list[np.ndarray]] = {name: [] for name in parts}
        try:
            for i, clip in enumerate(clips):
                name = "train" if learnt[i] else "test"
                row = np.zeros((frames, bodies, joints, 3), np.float32)
                row[: clip.shape[1], : clip.shape[3]] = clip.transpose(1, 3, 2, 0)
                files[name].write(row.tobytes())
                answers[name].append(np.eye(len(actions), dtype=np.float32)[code[source.labels["action"][i]]])
                progress(i + 1, len(source))
            for file in files.values():
                file.close()
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name in parts:
                    shape = (len(answers[name]), frames, bodies * joints * 3)
                    with archive.open(f"x_{name}.npy", "w", force_zip64=True) as member, parked[name].open("rb") as data:
                        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
                        while block := data.read(2**22):
                            member.write(block)
                    with archive.open(f"y_{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.array(answers[name]).reshape(-1, len(actions)))
        finally:
            for file in files.values():
                file.close()
            for file in parked.values():
                file.unlink(missing_ok=True)
