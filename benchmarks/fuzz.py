"""Coverage-guided fuzzing of the readers of data sets: whatever a file holds, it is read or refused with one message.

    pip install -c constraints.txt -e '.[fuzz]'
    python -m benchmarks.fuzz etri --seconds 600

Each target takes a file's bytes. It may raise `DataError` and nothing else, and what it returns must be finite numbers. An
input that breaks this, takes more than ten seconds or more than 2 GB is written beside the corpus.
"""

import argparse
import io
import json
import pickle
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Check = Callable[[bytes, Path], None]
PARTS = b"\n====\n"  # stands between the files of a target that reads several


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        check: Reads bytes, using a folder for what must lie on the disk; raises what the reader raises, and `AssertionError` if
            what it gives is not finite.
        seeds: Whole files to start from.
    """

    check: Check
    seeds: Sequence[bytes]


def _member(data: bytes, name: str = "clip"):
    from bench.data.sources import Member

    return Member(name, name, "copy it again", lambda: data, len(data))


def _finite(*arrays: np.ndarray | None) -> None:
    assert all(array is None or np.isfinite(array).all() for array in arrays)


class _Sink:
    """Takes clips as a writer does and keeps none."""

    resumed = 0

    def __init__(self) -> None:
        self.clips = 0

    def __len__(self) -> int:
        return self.clips

    def has(self, name: str) -> bool:
        return False

    def skip(self, name: str, reason: str) -> None:
        pass

    def add_shown(self, clip: np.ndarray, labels: dict) -> None:
        self.add(clip, labels)

    def add(self, clip: np.ndarray, labels: dict) -> None:
        _finite(clip)
        self.clips += 1


def _write(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def _parts(data: bytes, count: int) -> list[bytes]:
    found = data.split(PARTS, count - 1)
    return [*found, *[b""] * (count - len(found))]


def _single(module: str, function: str, *arguments: object) -> Check:
    """A reader of one file, by name: it is imported when it is used."""

    def check(data: bytes, folder: Path) -> None:
        import importlib

        found = getattr(importlib.import_module(f"bench.data.{module}"), function)(_member(data), *arguments)
        _finite(*(found if isinstance(found, tuple) else (found,)))

    return check


def _utkinect(data: bytes, folder: Path) -> None:
    from bench.data import utkinect

    take, labels = _parts(data, 2)
    utkinect.read_segments(_member(labels))
    _finite(*utkinect.read_take(_member(take)))


def _ui_prmd(data: bytes, folder: Path) -> None:
    from bench.data import ui_prmd

    _finite(ui_prmd.read_clip(*map(_member, _parts(data, 2))))


def _msrc12(data: bytes, folder: Path) -> None:
    from bench.data import msrc12

    stream, tags = _parts(data, 2)
    points = msrc12.read_tags(_member(tags))
    times, joints = msrc12.read_stream(_member(stream))
    msrc12.windows(times, points)
    _finite(joints)


def _etri(data: bytes, folder: Path) -> None:
    from bench.data import etri

    clip, people = _parts(data, 2)
    _finite(etri.read_clip(_member(clip)))
    etri.read_genders(_member(people))


def _read(dataset: str, files: Sequence[str], source: str = "") -> Check:
    """A reader of a folder, or of one file of it."""

    def check(data: bytes, folder: Path) -> None:
        from bench.registry import DATASETS
        from bench.specs import parse_spec

        _write(folder, **dict(zip(files, _parts(data, len(files)), strict=True)))
        where = folder / source if source else folder
        parse_spec(dataset, DATASETS).value.read(where, _Sink(), lambda done, total: None)

    return check


def _archive(ending: str) -> Check:
    def check(data: bytes, folder: Path) -> None:
        from bench.data.sources import open_source

        path = folder / f"archive.{ending}"
        path.write_bytes(data)
        with open_source(path, r"\w+\.txt", "text files", lambda name, reason: None) as members:
            for member in members:
                member.read()

    return check


def _numbers(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).round(3) * 0.2 + 1.5


def _lines(table: np.ndarray, separator: str) -> bytes:
    return "\n".join(separator.join(f"{value:.4f}" for value in row) for row in table).encode()


def _skeleton() -> list[bytes]:
    from bench.data.ntu_format import skeleton_text

    clips = [np.float32(_numbers((3, 2, 25, bodies))) for bodies in (1, 2)]
    return [skeleton_text(clip).encode() for clip in clips]


def _etri_seed() -> bytes:
    axes = ["3dX", "3dY", "3dZ", "trackingState"]
    header = ["frameNum", "bodyindexID", "trackingID", *(f"joint{j}_{axis}" for j in range(1, 26) for axis in axes)]
    rows = [f"{t},0,7205759403793," + _lines(_numbers((1, 100)), ",").decode() for t in range(2)]
    return "\n".join([",".join(header), *rows]).encode() + PARTS + b"Number\tGender\tAge\n1\tm\t70\n"


def _matlab() -> bytes:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, {"d_skel": _numbers((20, 3, 4))})
    return file.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name in ("a.txt", "../b.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 5
            archive.addfile(entry, io.BytesIO(b"12345"))
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "1 2 3" * 10)
        archive.writestr("../b.txt", "4 5 6")
    return file.getvalue()


def targets() -> dict[str, Target]:
    """All targets by name, one a reader and form."""
    clip = "S001C001P001R001A001"
    skel = np.float32(_numbers((1, 3, 6, 25, 2)))
    flat = np.float32(_numbers((1, 4, 150)))
    annotation = {"frame_dir": clip, "label": 0, "keypoint": np.float32(_numbers((1, 3, 25, 3)))}
    pickles = [pickle.dumps({"annotations": [annotation]}, protocol) for protocol in (2, 4, 5)]
    order = "\n".join([clip, clip.replace("P001", "P003")]).encode()
    sides = {"x_train": flat, "y_train": np.eye(60)[:1], "x_test": flat, "y_test": np.eye(60)[:1]}
    ucla = json.dumps({"file_name": "x", "skeletons": _numbers((2, 20, 3)).tolist(), "label": 1}).encode()
    own = b"clip,action,subject,gender\na,1,1,F\nb,2,2,\n" + PARTS + _npz(a=_numbers((3, 25, 3)), b=_numbers((2, 2, 25, 3)))
    msr = _lines(_numbers((40, 4)), " ")
    return {
        "ntu": Target(_read("ntu60", [f"{clip}__skeleton"]), _skeleton()),
        "ntu-2s-agcn": Target(
            _read("ntu60:form=2s-agcn", ["a_label__pkl", "a_data_joint__npy"]),
            [pickle.dumps(([f"{clip}.skeleton"], [0]), 2) + PARTS + _npy(skel)],
        ),
        "ntu-ctr-gcn": Target(
            _read("ntu60:form=ctr-gcn", ["skes_available_name__txt", "NTU60_CS__npz"]), [order + PARTS + _npz(**sides)]
        ),
        "ntu-pyskl": Target(_read("ntu60:form=pyskl", ["a__pkl"]), pickles),
        "ntu-genders": Target(_genders, [b"P,Gender\n1,F\n2,M\n"]),
        "etri": Target(_etri, [_etri_seed()]),
        "nw-ucla": Target(_single("nw_ucla", "read_clip"), [ucla]),
        "utd-mhad": Target(_single("utd_mhad", "read_clip"), [_matlab()]),
        "msr-action3d": Target(_single("msr_action3d", "read_clip"), [msr]),
        "msr-action3d-screen": Target(_single("msr_action3d", "read_clip", "screen"), [msr]),
        "utkinect": Target(_utkinect, [_lines(_numbers((2, 61)), "  ") + PARTS + b"s01_e01\nwalk: 1 2\nsitDown: NaN NaN\n"]),
        "ui-prmd": Target(_ui_prmd, [_lines(_numbers((2, 66)), ",") + PARTS + _lines(_numbers((2, 66)), ",")]),
        "msrc-12": Target(_msrc12, [_lines(_numbers((2, 81)), " ") + PARTS + b"Tick;Gesture\n1234;G1\n99999999;G1\n"]),
        "kinder-gator": Target(_single("kinder_gator", "read_clip"), [b"header\n" + _lines(_numbers((2, 61)), ",")]),
        "kinder-gator-people": Target(
            lambda data, folder: _people(_write(folder, participants__csv=data)),
            [b"id,group,sex,age\n1,adult,F,20\n2,child,M,6\n"],
        ),
        "ucalgary-gait": Target(_single("ucalgary", "read_clip"), [b"header\n" + _lines(_numbers((2, 54)) + 2, ",")]),
        "own": Target(_read("own", ["labels__csv", "clips__npz"]), [own]),
        "zip": Target(_archive("zip"), [_zip()]),
        "tar": Target(_archive("tar"), [_tar("w")]),
        "tar.xz": Target(_archive("tar.xz"), [_tar("w:xz")]),
    }


def _genders(data: bytes, folder: Path) -> None:
    from bench.data.ntu_files import gender_table

    gender_table(_write(folder, genders__csv=data) / "genders.csv")


def _people(folder: Path) -> None:
    from bench.data.kinder_gator import read_participants

    read_participants(folder)


def try_out(target: Target, data: bytes, folder: Path) -> bool:
    """Whether bytes are read; False if they are refused as they should be.

    Raises:
        Exception: whatever else happens: a fault of the reader.
    """
    from bench.data.dataset import DataError

    try:
        target.check(data, folder)
    except DataError as error:
        message = str(error)
    else:
        return True
    assert message
    assert "\n" not in message, f"a message of several lines: {message}"
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=sorted(targets()))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz"), help="folder for inputs that reach new code")
    options = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["bench", "pickle", "json", "zipfile", "tarfile", "csv"]):
        import bench.registry  # noqa: F401  (what it names is imported, and instrumented, at first use)
    target = targets()[options.target]
    corpus = options.corpus / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:

        def once(data: bytes) -> None:
            try_out(target, data, Path(folder))

        with atheris.instrument_imports(include=["bench"]):
            for seed in target.seeds:
                assert try_out(target, seed, Path(folder)), f"the seed of {options.target} is refused"
        limits = ["-rss_limit_mb=2048", "-timeout=10", "-max_len=20000", f"-artifact_prefix={corpus}-"]
        atheris.Setup([sys.argv[0], f"-max_total_time={options.seconds}", "-print_final_stats=1", *limits, str(corpus)], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
