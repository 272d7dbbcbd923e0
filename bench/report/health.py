"""What `bench doctor` and `bench data info` print."""

import os
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from bench.data.dataset import Dataset
from bench.data.store import ClipStore
from bench.files import package_version
from bench.protocols import MEASURED_TARGETS, ProtocolError, instantiate
from bench.specs import Spec
from bench.submission.isolation import LEVELS, probe

_PACKAGES = (
    "skeleton-privacy-bench",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "matplotlib",
    "mlflow",
    "click",
    "skops",
)


def health(results: Path) -> list[tuple[str, str]]:
    """(name, value) lines about versions, devices, threads, memory and the results folder."""
    import psutil
    import torch

    import bench

    lines = [("python", platform.python_version()), ("platform", platform.platform())]
    lines += [(package, package_version(package) or "not installed") for package in _PACKAGES]
    lines.append(("bench is ours", _ownership(Path(bench.__file__))))
    lines.append(("cores", f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads"))
    memory = psutil.virtual_memory()
    lines.append(("memory", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free"))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines.append(("cuda", ", ".join(gpus) or "no GPU: computing on the CPU"))
    for level in LEVELS:
        problem = probe(level)
        lines.append((f"isolation {level}", f"no: {problem}" if problem else "yes"))
    counts = {
        "records": sum(1 for p in (results / "records").rglob("*.npz")),
        "stages": sum(1 for p in (results / "stages").glob("*/[!.]*/stage.json")),
        "data sets": sum(1 for p in (results / "data").glob("*/meta.json")),
    }
    lines.append(("results", f"{results} ({', '.join(f'{n} {what}' for what, n in counts.items())})"))
    nearest = next(p for p in (results.resolve(), *results.resolve().parents) if p.exists())
    problem = "is no folder" if not nearest.is_dir() else "" if os.access(nearest, os.W_OK) else "cannot be written"
    lines.append(("writable", f"no: {nearest} {problem}" if problem else "yes"))
    lines.append(("disk free", f"{psutil.disk_usage(str(nearest)).free / 2**30:.1f} GiB"))
    return lines


def _ownership(package: Path) -> str:
    try:
        name = distribution("skeleton-privacy-bench").metadata["Name"]
    except PackageNotFoundError:
        return f"not installed; imported from {package.parent}"
    return (
        f"yes: {name}, from {package.parent}"
        if (package.parent / "registry.py").exists()
        else f"NO: {package} belongs to another package"
    )


def describe_data(spec: Spec, store: ClipStore) -> list[tuple[str, str]]:
    """(name, value) lines about a prepared data set."""
    meta, labels = store.meta, store.labels
    dataset: Dataset = spec.value
    lengths = store.lengths
    lines = [
        ("data set", meta["dataset"]),
        *([("prepared as", meta["prepared_as"])] if meta.get("prepared_as", meta["dataset"]) != meta["dataset"] else []),
        ("layout", f"{store.layout.name}, {store.layout.num_joints} joints, up to {store.num_bodies} bodies"),
        ("clips", f"{len(store)}, {len(meta['skipped'])} left out"),
        *((f"  {reason}", f"{count} clips") for reason, count in Counter(s["reason"] for s in meta["skipped"]).most_common(5)),
        (
            "frames",
            f"{lengths.sum()}; a clip {lengths.min()} / {int(np.median(lengths))} / {lengths.max()} (least, median, most)",
        ),
        ("frame rate", f"{meta['frame_rate']:g} frames a second"),
    ]
    for column in labels:
        if column not in ("clip", "performance"):
            known = labels[column].dropna()
            missing = f", unknown for {len(labels) - len(known)} clips" if len(known) < len(labels) else ""
            lines.append((column, f"{known.nunique()} values{missing}"))
    for protocol in dataset.protocols.values():
        for target in (*protocol.splits, *(t for t in MEASURED_TARGETS if protocol.split(t))):
            try:
                part = instantiate(protocol, target, labels, spec.plugin.name)
            except ProtocolError as error:
                lines.append((f"{protocol.name} {target}", f"not possible: {error}"))
                continue
            sizes = f"{len(part.train)} train, {len(part.validation)} validation, {len(part.test)} test clips"
            priors = f"chance {part.chance:.3f}, prior {part.prior:.3f}"
            top5 = f", top-5 prior {part.prior_top5:.3f}" if len(part.classes) > 5 and not part.pairs else ""
            if part.pairs:
                sizes += f"; {len(part.pairs)} test pairs"
            lines.append((f"{protocol.name} {target}", f"{sizes}; {priors}{top5}"))
    lines += [
        ("licence", meta["licence"]),
        ("citation", meta["citation"]),
        *([("limits", dataset.limits)] if dataset.limits else []),
        ("fingerprint", store.fingerprint),
        ("store", str(store.path)),
    ]
    return lines
