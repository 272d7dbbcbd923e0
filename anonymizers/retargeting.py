"""Classical retargeting: other people's bones in the same directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from anonymizers.kinematics import bone_directions, bone_vectors, hold, median_lengths, put_together
from anonymizers.noise import laplace
from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.data.clips import presence
from bench.files import UserError
from bench.skeleton import Layout
from bench.specs import param

_SHORTEST_LEG = 0.05  # metres


def subject_lengths(examples: Examples) -> Tensor:
    """(S, V) metres: for each person of the examples, in the order of their codes, the median over clips of median bone lengths.

    Of clips that show several bodies the first is taken: it is the one that the labels mean.
    """
    clips, found = examples.clips, []
    for indices in clips.batches(256):
        whole = clips.whole(indices)[..., :1]
        present = presence(whole)
        found.append(median_lengths(bone_vectors(whole, clips.layout), present)[..., 0])
    lengths = torch.cat(found)  # (N, V)
    subjects = examples.release_labels()["subject"]
    return torch.stack([lengths[subjects == code].median(dim=0).values for code in subjects.unique()])


def rebuilt(batch: ClipBatch, lengths: Tensor, path: str) -> Tensor:
    """The clips' bone directions with other lengths.

    Args:
        batch: Clips.
        lengths: (N, V, M) metres.
        path: "scaled": the layout's centre joint keeps its path, scaled by the ratio of the legs' lengths; "removed": it stays at
            the origin.

    Returns:
        (N, 3, T, V, M). Nothing in it depends on the source's bone lengths but the scale of that path; in normalised clips the
        first body's centre is the origin, and nothing is left.
    """
    layout = batch.layout
    vectors = bone_vectors(hold(batch.clips, batch.present), layout)
    moved = put_together(torch.zeros_like(vectors[:, :, :, 0]), bone_directions(vectors) * lengths[:, None, None], layout)
    moved = moved - moved[:, :, :, layout.centre : layout.centre + 1]
    if path == "scaled":
        old, new = (_leg(each, layout) for each in (median_lengths(vectors, batch.present), lengths))
        ratio = new / old.clamp_min(_SHORTEST_LEG)  # (N, M)
        moved = moved + batch.clips[:, :, :, layout.centre : layout.centre + 1] * ratio[:, None, None, None]
    return moved * batch.present


def _leg(lengths: Tensor, layout: Layout) -> Tensor:
    """(N, M) metres from hip to ankle along the bones, the mean of both legs."""
    return lengths[:, [layout.index(f"{side} {joint}") for side in ("left", "right") for joint in ("knee", "ankle")]].sum(1) / 2


@dataclass(frozen=True)
class MeanSkeleton(Anonymizer):
    """Gives everybody the same bones, or those of somebody else: classical retargeting.

    Takes all evidence of body size; posture and movement stay. Templates come from the training people: their mean, one of them
    for all clips, or one drawn for each clip. Compare the classical retargeting in Carr, Lu and Xu (CIKM 2023); the details are
    our own.
    """

    template: str = param("mean", "whose bones", choices=("mean", "constant", "random"))
    path: str = param("scaled", "what becomes of the path through the room", choices=("scaled", "removed"))

    learns: ClassVar[bool] = True

    @property
    def stochastic(self) -> bool:
        return self.template == "random"

    def fit(self, examples: Examples) -> Fitted:
        people = subject_lengths(examples)
        if self.template == "mean":
            people = people.mean(dim=0, keepdim=True)
        elif self.template == "constant":
            people = people[torch.randint(len(people), (1,), generator=torch.Generator().manual_seed(examples.seed))]
        return Fitted({"lengths": people})

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        people = state["lengths"].to(batch.clips.device)
        bodies = batch.clips.shape[4]
        drawn = (batch.per_clip(torch.rand, bodies) * len(people)).long().clamp_max(len(people) - 1)  # (N, M)
        return rebuilt(batch, people[drawn].transpose(1, 2), self.path)


@dataclass(frozen=True)
class QuantiseBones(Anonymizer):
    """Gives each body the bones of the nearest of k typical people: k-means centres of the training people (`quantise-bones`)."""

    k: int = param(2, "number of typical people; at most the training people", minimum=1, strength=True)
    path: str = param("scaled", "what becomes of the path through the room", choices=("scaled", "removed"))

    learns: ClassVar[bool] = True

    def strength_range(self, examples: Examples) -> tuple[float, float]:
        return 1, len(examples.release_labels()["subject"].unique())

    def fit(self, examples: Examples) -> Fitted:
        from sklearn.cluster import KMeans

        people = subject_lengths(examples).cpu().double().numpy()
        if self.k > len(people):
            raise UserError(f"quantise-bones: k is {self.k}, but there are only {len(people)} people to learn from")
        centres = KMeans(self.k, n_init=10, random_state=examples.seed).fit(people).cluster_centers_
        return Fitted({"centres": torch.from_numpy(centres.astype(np.float32))})

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        centres = state["centres"].to(batch.clips.device)  # (k, V)
        own = median_lengths(bone_vectors(batch.clips, batch.layout), batch.present).transpose(1, 2)  # (N, M, V)
        nearest = (own[:, :, None] - centres).square().sum(-1).argmin(dim=2)  # (N, M)
        return rebuilt(batch, centres[nearest].transpose(1, 2), self.path)


@dataclass(frozen=True)
class ParameterDP(Anonymizer):
    """Local differential privacy of the body's build: bone lengths get Laplace noise, once a clip (`param-dp`).

    The idea of MetaGuard (Nair et al., UIST 2023). The build of a body is a vector of P bone lengths, left and right taken
    together. Each is clipped to the range of the training people, widened by a fifth on either side, gets Laplace noise of scale
    P * range / epsilon, and is clipped again, which costs nothing. So one clip is protected by `epsilon`, and a person with n
    clips by n * epsilon only: the record states both. Posture and movement are not protected at
    all, and the path of a second body that is scaled by the ratio of legs tells of its build: `path=removed` releases none.
    """

    epsilon: float = param(3.0, "privacy budget of one clip", minimum=1e-6, strength=True)
    path: str = param("scaled", "what becomes of the path through the room", choices=("scaled", "removed"))

    learns: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def fit(self, examples: Examples) -> Fitted:
        groups = _mirrored(examples.clips.layout)
        people = torch.stack([subject_lengths(examples)[:, group].mean(dim=1) for group in groups], dim=1)  # (S, P)
        low, high = people.amin(dim=0), people.amax(dim=0)
        margin = 0.2 * (high - low)
        clips = max(examples.release_clips, int(torch.bincount(examples.release_labels()["subject"]).max()))
        info = {"epsilon_per_clip": self.epsilon, "epsilon_of_person_with_most_clips": self.epsilon * clips}
        return Fitted({"low": (low - margin).clamp_min(0.0), "high": high + margin}, info)

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        low, high = (state[name].to(batch.clips.device)[:, None] for name in ("low", "high"))  # (P, 1)
        groups = _mirrored(batch.layout)
        own = median_lengths(bone_vectors(batch.clips, batch.layout), batch.present)  # (N, V, M)
        build = torch.stack([own[:, group].mean(dim=1) for group in groups], dim=1)  # (N, P, M)
        noise = laplace(batch.per_clip(torch.rand, len(groups), batch.clips.shape[4]))
        build = torch.minimum(build.clamp_min(low), high) + len(groups) * (high - low) / self.epsilon * noise
        build = torch.minimum(build.clamp_min(low), high)
        lengths = torch.zeros_like(own)
        for place, group in enumerate(groups):
            lengths[:, group] = build[:, place, None]
        return rebuilt(batch, lengths, self.path)


def _mirrored(layout: Layout) -> list[list[int]]:
    """Bones (by their child joints) whose lengths are one parameter of the build: a left and a right one, or a middle one."""
    right = dict(layout.mirror)
    taken = set(right.values())
    return [[child, right[child]] if child in right else [child] for child, _ in layout.bones if child not in taken]
