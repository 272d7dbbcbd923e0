"""Explanation-guided masking: the joints by which a network names people are hidden (Carr et al., PAKDD 2025)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench import classifiers
from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.files import UserError
from bench.presets import Preset, TrainingConfig
from bench.protocols import ACTION
from bench.specs import param

_BATCH = 32


@dataclass(frozen=True)
class ExplainMask(Anonymizer):
    """Masks the joints that tell most of the person and least of the action (after Carr et al., PAKDD 2025, in our own detail).

    A network of each kind is trained on raw clips. A joint's sensitivity is the mean over clips of |gradient x input| of the
    right class's logit, as a share of that of all joints; what counts is the privacy network's minus `spare` times the action
    network's. The k joints highest by it are put at the origin, or get noise whose variance is proportional to it.
    """

    k: int = param(5, "joints to mask", minimum=1, strength=True)
    how: str = param("zero", "put at the origin, or covered by noise", choices=("zero", "noise"))
    std: float = param(0.2, "standard deviation of the noise on the most telling joint", unit="m", minimum=0)
    private: str = param("subject", "label that is to be hidden")
    spare: float = param(1.0, "weight of what a joint tells of the action", minimum=0)
    backbone: str = param("shift-gcn", "network that explains")

    learns: ClassVar[bool] = True

    @property
    def stochastic(self) -> bool:
        return self.how == "noise"

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        configs = {"action": preset.utility, "private": preset.attack}
        return {
            "backbone": classifiers.describe(self.backbone),
            **{name: asdict(classifiers.config_for(self.backbone, config)) for name, config in configs.items()},
        }

    def strength_range(self, examples: Examples) -> tuple[float, float]:
        return 1, examples.clips.layout.num_joints

    def fit(self, examples: Examples) -> Fitted:
        joints = examples.clips.layout.num_joints
        if self.k > joints:
            raise UserError(f"explain-mask: k is {self.k}, but there are only {joints} joints")
        preset = examples.preset
        private, *of_private = self._sensitivity(examples, self.private, preset.attack, 0)
        action, *of_action = self._sensitivity(examples, ACTION, preset.utility, 1)
        weight = private - self.spare * action
        chosen = weight.topk(self.k).indices
        scale = torch.zeros(joints, device=weight.device)
        scale[chosen] = (weight[chosen].clamp_min(0) / weight[chosen[0]].clamp_min(1e-9)).sqrt()
        names = examples.clips.layout.joints
        told = {"masked": [names[j] for j in chosen.tolist()], "private": private.tolist(), "action": action.tolist()}
        if sizes := [size for size in (*of_private, *of_action) if size]:
            told["micro_batch"] = min(sizes)
        return Fitted({"joints": chosen, "scale": scale}, told)

    def _sensitivity(self, examples: Examples, target: str, budget: TrainingConfig, place: int) -> tuple[Tensor, int]:
        """(V,) share of each joint in |gradient x input| of a network trained on raw clips, and the `micro_batch` of that."""
        if target not in examples.parts:
            raise UserError(f"explain-mask needs labels of {target!r}; the data has them for {', '.join(examples.parts)}")
        part, clips = examples.parts[target].of_trained_classes(), examples.clips
        config = classifiers.config_for(self.backbone, budget)
        model = classifiers.build(self.backbone, clips, len(part.classes), config, examples.seed)

        def report(done: int, total: int, text: str = "") -> None:
            examples.progress(place * total + done, 2 * total, f"{target}: {text}")

        how = {"seed": examples.seed, "progress": report, "checkpoint": examples.checkpoint(target)}
        history = classifiers.train(model, clips, part, config, **how)
        labels = torch.from_numpy(part.labels).to(clips.device)
        total = torch.zeros(clips.layout.num_joints, device=clips.device)
        for indices in torch.from_numpy(part.train).to(clips.device).split(_BATCH):
            total += attribution(model, clips.windows(indices, config.frames, config.sampling), labels[indices])
        return total / total.sum().clamp_min(1e-12), history.micro_batch

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        device = batch.clips.device
        if self.how == "noise":
            scale = self.std * state["scale"].to(device)[:, None]  # (V, 1)
            return batch.clips + scale * batch.per_frame(torch.randn) * batch.present
        out = batch.clips.clone()
        out[:, :, :, state["joints"].to(device)] = 0
        return out


def attribution(model: nn.Module, clips: Tensor, labels: Tensor) -> Tensor:
    """(V,) sum over clips of |gradient x input| of the logits (N, K) of the right classes, per joint."""
    clips = clips.clone().requires_grad_()
    right = model(clips).gather(1, labels[:, None]).sum()
    gradient = torch.autograd.grad(right, clips)[0]
    return (gradient * clips).abs().sum(dim=(0, 1, 2, 4)).detach()
