"""Speed and memory of a backbone: clips per second, peak memory, and the equivalent share of the machine's matrix products.

The equivalent share is 2 * G * clips/s, three times that in training, over the float32 peak of the same process, where G is
the number of multiply-accumulates of one clip and the peak is the best of square products of 1024, 2048 and 4096. For the
published networks G is that of their definition: ours may reach the same numbers with fewer. Products and runs are interleaved
and the medians taken, because speed drifts. Peak memory is that of a process of its own; on a GPU, of torch there.

    python -m benchmarks.backbones --backbone shift-gcn --shape 16,3,64,25,1 --threads 2

    python -m benchmarks.backbones --device cuda --shape 64,3,64,25,1

Another implementation, a function without arguments that returns a module for the same clips, runs in alternation with ours:

    python -m benchmarks.backbones --backbone ms-g3d --against their.module:make

So does ours through `torch.compile`, with the backend that is named; compiling itself is not timed:

    python -m benchmarks.backbones --backbone shift-gcn --compile inductor
"""

import argparse
import importlib
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attackers.backbones import create
from bench.execution import make_deterministic
from bench.skeleton import get_layout, layout_names

_SQUARES = (1024, 2048, 4096)
_CLASSES = 60
# Multiply-accumulates of a clip of 64 frames, 25 joints and 1 body by the definition of each published network at width 1.
_DEFINED = {"ms-g3d": 3.50e9, "2s-agcn": 2.07e9, "aagcn": 2.07e9, "shift-gcn": 0.38e9}


def _model(backbone: str, shape: tuple[int, ...], width: float) -> nn.Module:
    layout = next(name for name in layout_names() if get_layout(name).num_joints == shape[3])
    return create(backbone, layout=layout, num_classes=_CLASSES, num_bodies=shape[4], width=width, in_channels=shape[1])


def _foreign(target: str) -> nn.Module:
    module, _, factory = target.partition(":")
    return getattr(importlib.import_module(module), factory)()


def _runs(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
    backend: str | None = None,
) -> dict[str, Callable[[], None]]:
    """Functions that train on one batch, and that predict one; compiled if a backend is named."""
    clips, labels = torch.randn(shape, device=device), torch.randint(_CLASSES, shape[:1], device=device)
    trained, evaluated = make().to(device).train(), make().to(device).eval()
    learn, read = (torch.compile(model, backend=backend) if backend else model for model in (trained, evaluated))
    groups = trained.parameter_groups(1e-4) if hasattr(trained, "parameter_groups") else trained.parameters()
    optimiser = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    mixed = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def train() -> None:
        optimiser.zero_grad()
        with mixed:
            loss = nn.functional.cross_entropy(learn(clips), labels)
        loss.backward()
        optimiser.step()

    def predict() -> None:
        with torch.no_grad(), mixed:
            read(clips)

    return {"training": train, "inference": predict}


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of a run until its device has done it."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def _peak_memory(
    device: torch.device, threads: int, backbone: str, shape: tuple[int, ...], width: float, dtype: torch.dtype, kind: str
) -> float:
    """Most memory, in MB, of a process that did three runs of this kind and nothing else: resident, or of torch on a GPU."""
    torch.set_num_threads(threads)
    make_deterministic(device)
    run = _runs(partial(_model, backbone, shape, width), shape, device, dtype)[kind]
    for _ in range(3):
        run()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _flops(backbone: str, shape: tuple[int, ...], width: float) -> tuple[float, str]:
    """2 G of one clip, and where it comes from."""
    _, channels, frames, joints, bodies = shape
    if backbone in _DEFINED and (channels, joints, width) == (3, 25, 1.0):
        return 2 * _DEFINED[backbone] * frames / 64 * bodies, "of the definition"
    model = _model(backbone, shape, width).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(shape))
    return counter.get_total_flops() / shape[0], "counted"


def measure(
    backbone: str,
    shape: tuple[int, ...],
    width: float,
    device: torch.device,
    threads: int,
    rounds: int,
    against: str | None,
    backend: str | None,
) -> list[dict]:
    """One row for each of training and inference in float32 and bfloat16.

    Args:
        backbone: Registered name.
        shape: (N, C, T, V, M).
        width: Factor on the channels.
        device: Where, with what `bench run` sets there.
        threads: Threads of one operation on a CPU.
        rounds: How often everything is timed.
        against: "module:factory" of another implementation.
        backend: Of `torch.compile`, to measure ours compiled as well.
    """
    kinds = [(kind, dtype) for dtype in (torch.float32, torch.bfloat16) for kind in ("training", "inference")]
    memory = {}
    for kind, dtype in kinds:  # first, because a process starts with the peak of the one that it was forked from
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            memory[kind, dtype] = pool.submit(_peak_memory, device, threads, backbone, shape, width, dtype, kind).result()
    torch.set_num_threads(threads)
    make_deterministic(device)
    flops, source = _flops(backbone, shape, width)
    ours = partial(_model, backbone, shape, width)
    makers = {"ours": partial(_runs, ours, shape, device)}
    if against:
        makers["theirs"] = partial(_runs, partial(_foreign, against), shape, device)
    if backend:
        makers["compiled"] = partial(_runs, ours, shape, device, backend=backend)
    squares = {size: torch.randn(size, size, device=device) for size in _SQUARES}
    runs = {
        (who, kind, dtype): run
        for dtype in (torch.float32, torch.bfloat16)
        for who, make in makers.items()
        for kind, run in make(dtype).items()
    }
    times: dict = {key: [] for key in (*squares, *runs)}
    for run in (*runs.values(), *runs.values()):
        run()
    for _ in range(rounds):
        for size, matrix in squares.items():
            times[size].append(_seconds(lambda matrix=matrix: matrix @ matrix, device))
        for key, run in runs.items():
            times[key].append(_seconds(run, device))
    peak = max(2 * size**3 / statistics.median(times[size]) for size in squares)
    rows = []
    for kind, dtype in kinds:
        ours = times["ours", kind, dtype]
        rate = shape[0] / statistics.median(ours)
        share = rate * flops * (3 if kind == "training" else 1) / peak
        rows.append(
            {
                "run": kind,
                "dtype": str(dtype)[6:],
                "clips_per_s": rate,
                "share": share,
                "memory_mb": memory[kind, dtype],
                "peak": peak,
                "flops": source,
                "ratios": {
                    who: [b / a for a, b in zip(ours, times[who, kind, dtype], strict=True)] for who in makers if who != "ours"
                },
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="shift-gcn")
    parser.add_argument("--shape", default="16,3,64,25,1", help="N,C,T,V,M; or N,T,V,M with 3 coordinates")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--against", metavar="MODULE:FACTORY", help="another implementation, run in alternation with ours")
    parser.add_argument("--compile", metavar="BACKEND", help="ours through torch.compile as well, in alternation")
    args = parser.parse_args()
    shape = tuple(int(size) for size in args.shape.split(","))
    shape = (shape[0], 3, *shape[1:]) if len(shape) == 4 else shape
    if len(shape) != 5 or shape[3] not in {get_layout(name).num_joints for name in layout_names()}:
        parser.error(f"--shape: expected N,C,T,V,M with the V of a layout ({', '.join(layout_names())}), got {args.shape}")
    rows = measure(args.backbone, shape, args.width, args.device, args.threads, args.rounds, args.against, args.compile)
    peak, source = rows[0]["peak"] / 1e9, rows[0]["flops"]
    where = f"{args.threads} threads" if args.device.type == "cpu" else torch.cuda.get_device_name(args.device)
    print(f"{args.backbone}, width {args.width:g}, clips {shape}, {where}; peak {peak:.0f} GFLOP/s; G {source}")
    for row in rows:
        print(
            f"{row['run']:>10} {row['dtype']:>9}: {row['clips_per_s']:8.1f} clips/s, equivalent share {row['share']:4.0%}, "
            f"peak memory {row['memory_mb']:6.0f} MB{_ratio(row['ratios'])}"
        )


def _ratio(ratios: dict[str, list[float]]) -> str:
    """How many times as fast ours is as each other, with the least and the most over the rounds."""
    return "".join(f", {statistics.median(of):.2f} x {who} ({min(of):.2f} to {max(of):.2f})" for who, of in ratios.items())


if __name__ == "__main__":
    main()
