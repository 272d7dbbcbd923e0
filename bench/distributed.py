"""One training on several GPUs: a process for each, started by torchrun, with the batch dealt out to them.

    BENCH_PROCESSES=4 bench run --device cuda ...    # each training on four GPUs; with eight there, two trainings at a time

Every process runs the same training loop and draws the same batches; each puts its own slice through the network, and the
gradients are added up before the step (data parallelism, as `DistributedDataParallel` does it, but at one go after the backward
pass: a process that runs out of memory takes its slice in smaller pieces, and the others do not notice). What is decided, such
as which epoch is kept, is decided from numbers of the first process, which alone writes. Batch normalisation sees a slice at a
time, as it does with small memory, so that results differ from those of one process by more than rounding; the record states
how many took part. It pays where a batch takes much longer than to add up the gradients: not for `quick`.

The stage stays with the process that started it: the others know neither store nor locks. This has been tested on CPUs by two
processes (gloo); on GPUs (NCCL) it has not been run yet.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from bench.data.clips import ClipSet, load_rows
from bench.execution import make_deterministic, processes

_PROGRESS = "progress: "  # begins a line that the first process writes for people


@dataclass(frozen=True)
class Group:
    """The processes that train one network together; of one alone, everything does nothing.

    Args:
        rank: Number of this process.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Group":
        """That of this process."""
        there = distributed.is_available() and distributed.is_initialized()
        return cls(distributed.get_rank(), distributed.get_world_size()) if there else cls()

    def own(self, batch: Tensor) -> Tensor:
        """This process's slice of what all have."""
        return batch.tensor_split(self.size)[self.rank]

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Puts the sum over all processes in the place of each tensor."""
        self._each(tensors, distributed.all_reduce)

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Puts what the first process has in the place of each tensor."""
        self._each(tensors, lambda flat: distributed.broadcast(flat, src=0))

    def _each(self, tensors: Iterable[Tensor], act: Callable[[Tensor], Any]) -> None:
        """Acts on all tensors of one type at a time, laid end to end."""
        if self.size == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for of_kind in kinds.values():
            flat = torch.cat([tensor.detach().flatten() for tensor in of_kind])
            act(flat)
            for tensor, part in zip(of_kind, flat.split([tensor.numel() for tensor in of_kind]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))


def wanted(clips: int, batch: int) -> int:
    """How many processes a training of so many clips is to be dealt out to; each needs two of a batch. Within one of them 1."""
    return 1 if Group.current().size > 1 else max(1, min(processes(), min(clips, batch) // 2))


def together(
    count: int,
    function: Callable[..., dict[str, Any]],
    clips: ClipSet,
    *,
    folder: Path,
    progress: Callable[[int, int, str], None] | None = None,
    **named: Any,
) -> dict[str, Any]:
    """What `function(clips=clips, folder=folder, progress=..., **named)` returns in the first of several processes that call it.

    Args:
        count: Number of processes; on GPUs, that of `clips` and those after it.
        function: Can be pickled, as everything that it is given; returns JSON values.
        folder: Where it writes. What the processes need lies there as well meanwhile: whoever clears up after a killed training
            removes it too.

    Raises:
        RuntimeError: if one of them fails; the message is its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="processes-", dir=folder) as name:  # for this user alone: unpickling it is safe
        place = Path(name).resolve()
        np.save(place / "rows.npy", clips.rows.cpu().numpy())
        index = {key: getattr(clips, key).cpu() for key in ("first", "lengths", "bodies")}
        nuisance = None if clips.nuisance is None else clips.nuisance.cpu()
        light = replace(clips, rows=torch.empty(0), nuisance=nuisance, **index)
        job = function, light, {**named, "folder": folder.resolve()}, (clips.device.type, clips.device.index or 0)
        (place / "job.pickle").write_bytes(pickle.dumps(job))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command += ["-m", "bench.distributed", str(place)]
        # They end when this process does, however that ends: the other end of their standard input is then closed.
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, **pipes) as torchrun:
            try:
                said = [line for line in torchrun.stdout if not _tell(line, progress)]
                status = torchrun.wait()
            finally:
                torchrun.stdin.close()
                torchrun.terminate()
        if status:
            raise _problem(place, said)
        return json.loads((place / "result.json").read_text())


def _tell(line: str, progress: Callable[[int, int, str], None] | None) -> bool:
    """Passes on a line that is meant for people; whether it was one."""
    if not line.startswith(_PROGRESS):
        return False
    if progress:
        progress(*json.loads(line.removeprefix(_PROGRESS)))
    return True


def _problem(folder: Path, said: list[str]) -> Exception:
    """What the first process to fail said of it."""
    for path in sorted(folder.glob("error-*")):
        return pickle.loads(path.read_bytes())  # of a process that we started, in a folder of this user alone
    return RuntimeError(f"the processes of a training ended: {' '.join(''.join(said[-5:]).split())}")


def _main(folder: Path) -> None:
    """One of the processes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # As multiprocessing does it; the folder is one of this user alone, and whoever can write there could as well start Python.
    function, clips, named, (kind, first) = pickle.loads((folder / "job.pickle").read_bytes())
    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device(kind, first + rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        make_deterministic(device)
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    index = {key: getattr(clips, key).to(device) for key in ("first", "lengths", "bodies")}
    nuisance = None if clips.nuisance is None else clips.nuisance.to(device)
    clips = replace(clips, rows=load_rows(folder / "rows.npy", device), nuisance=nuisance, **index)
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        result = function(clips=clips, progress=_report if rank == 0 else None, **named)
    except Exception as error:
        (folder / f"error-{rank}").write_bytes(_pickled(error))
        raise
    if rank == 0:
        (folder / "result.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


def _pickled(error: Exception) -> bytes:
    try:
        return pickle.dumps(error)
    except Exception:  # an error may hold what cannot be sent
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _report(done: int, total: int, text: str = "") -> None:
    print(_PROGRESS + json.dumps([done, total, text]), flush=True)


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not `sys.stdin`, whose lock Python asks for when it ends, and aborts if this thread holds it
        pass
    os._exit(1)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
