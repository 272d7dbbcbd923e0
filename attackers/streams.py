"""Input streams of graph networks: the joints as they are, or the bones between them (2s-AGCN, Shi et al., CVPR 2019)."""

import torch
from torch import Tensor

from bench.data.clips import ClipSet
from bench.skeleton import Layout

STREAMS = ("joint", "bone", "joint+bone")


def streams_of(name: str) -> tuple[str, ...]:
    """The single streams of one of `STREAMS`."""
    return tuple(name.split("+"))


def bones(rows: Tensor, layout: Layout) -> Tensor:
    """Each joint less the one it hangs on in the layout's graph, (R, 3, V) metres; zero for the root and absent bodies."""
    parents = torch.arange(layout.num_joints, device=rows.device)
    child, parent = torch.tensor(layout.edges, device=rows.device).T
    parents[child] = parent
    return rows - rows[..., parents]


def stream(clips: ClipSet, name: str) -> ClipSet:
    """The clips as one stream, "joint" or "bone", shows them. Turning and stretching a clip does the same to its bones."""
    return clips.with_rows(bones(clips.rows, clips.layout)) if name == "bone" else clips
