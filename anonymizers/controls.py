"""Reference points of every table: what leaks if nothing is done, and if nothing is released."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anonymizers.kinematics import hold
from anonymizers.temporal import mean_pose
from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.data.clips import presence
from bench.files import UserError
from bench.specs import param


@dataclass(frozen=True)
class Identity(Anonymizer):
    """Releases clips as they are: the upper bound of utility and of leakage; attackers must succeed here."""

    causal: ClassVar[bool] = True

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return batch.clips


@dataclass(frozen=True)
class Null(Anonymizer):
    """Replaces every pose by one mean pose: the lower bound; every attacker must fall to chance here.

    The pose is the mean over the training clips' frames and bodies that are present. Which bodies are present and how long a
    clip lasts stay as they are.
    """

    learns: ClassVar[bool] = True
    causal: ClassVar[bool] = True

    def fit(self, examples: Examples) -> Fitted:
        return Fitted({"pose": mean_pose(examples)})

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        pose = state["pose"].to(batch.clips.device)[None, :, None, :, None]  # (1, 3, 1, V, 1)
        return pose * batch.present


@dataclass(frozen=True)
class LabelOracle(Anonymizer):
    """Releases another person's clip of the same action instead: what privacy costs if the action is known.

    Donors are training clips, drawn for each clip among those of its action by other people, and stretched to its length. Nothing
    of the source's motion is left but when its bodies are there. A clip never gets a donor of its own person: an attacker who
    knows the donor knows one of K people whom it was not.
    """

    donors: int = param(32, "most training clips of one action that are kept as donors", minimum=1)

    learns: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    uses: ClassVar[tuple[str, ...]] = ("action", "subject")

    def fit(self, examples: Examples) -> Fitted:
        clips, labels = examples.clips, examples.release_labels()
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(examples.seed)).to(clips.device)
        kept = []
        for action in labels["action"].unique().tolist():
            own = order[labels["action"][order] == action]
            kept.append(own[: self.donors] if action >= 0 else own[:0])
        which = torch.cat(kept)
        if not len(which):
            raise UserError("label-oracle needs clips with action labels to learn from")
        whole = clips.whole(which)
        present = presence(whole)
        held = hold(whole, present)
        held = torch.where(present.any(dim=2, keepdim=True), held, held[..., :1])  # who is alone stands in for a second body
        rows = [clip[:, :length].transpose(0, 1) for clip, length in zip(held, clips.lengths[which].tolist(), strict=True)]
        return Fitted(
            {
                "frames": torch.cat(rows),  # (R, 3, V, M)
                "lengths": clips.lengths[which],
                "action": labels["action"][which],
                "subject": labels["subject"][which],
            }
        )

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        frames, lengths, action, subject = (state[name].cpu() for name in ("frames", "lengths", "action", "subject"))
        first = lengths.cumsum(0) - lengths
        out = torch.zeros(batch.clips.shape)
        own = {name: batch.labels[name].cpu() for name in self.uses}
        for i, generator in enumerate(batch.generators()):
            other = subject != own["subject"][i]
            fitting = (other & (action == own["action"][i])).nonzero()[:, 0]
            if not len(fitting):  # an action that nobody else shows, or an unknown one
                fitting = other.nonzero()[:, 0] if bool(other.any()) else torch.arange(len(subject))
            donor = int(fitting[torch.randint(len(fitting), (1,), generator=generator)])
            length = int(batch.lengths[i])
            place = torch.arange(length) * (int(lengths[donor]) - 1) / max(length - 1, 1)
            taken = frames[first[donor] + place.round().long()]  # (T, 3, V, M')
            bodies = [min(body, taken.shape[3] - 1) for body in range(batch.clips.shape[4])]
            out[i, :, :length] = taken[..., bodies].transpose(0, 1)
        return out.to(batch.clips.device) * batch.present
