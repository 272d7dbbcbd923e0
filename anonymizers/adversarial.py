"""Adversarial anonymization (Moon et al., AAAI 2023): a network that learns to mislead a privacy classifier."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from anonymizers.minimax import Game, Terms
from anonymizers.networks import NETWORKS
from anonymizers.networks.state import run_network, to_state
from bench import classifiers
from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.presets import Preset
from bench.protocols import SUBJECT
from bench.registry import BACKBONES
from bench.specs import param

_ATTRIBUTES = {SUBJECT: (SUBJECT,), "gender": ("gender",), "both": (SUBJECT, "gender")}
# alpha, beta and learning rate as published for each network (code of Moon et al., AAAI 2023, and of
# "Exposing and Erasing Identity in Skeleton Motion", 2025).
_PUBLISHED = {"resnet": (1.0, 10.0, 0.01), "unet": (3.0, 10.0, 0.001), "transformer": (1.0, 1.0, 0.002)}
_PUBLISHED |= {"resnet-signed": _PUBLISHED["resnet"], "unet-residual": _PUBLISHED["unet"]}
# With the published weight of the error, joints move by decimetres and only the very action classifier that took part still reads
# them; with this one, by centimetres, and others do as well.
_BETA = 500.0


@dataclass(frozen=True)
class Adversarial(Anonymizer):
    """Misleads a privacy classifier that learns alongside, and keeps what an action classifier sees (Moon et al., AAAI 2023).

    With preset `paper` all is as published: alpha, beta, SGD, 300 frames, the error over absent bodies too, a privacy classifier
    that never leaves training mode, `resnet` by default. Otherwise the known defects are mended: `resnet-signed` by default, the
    error counts where a body is and weighs enough to keep clips readable, f learns against the privacy classifier as it is in
    use, and of all epochs that is kept in which classifiers of raw clips do best with actions and worst with people, on
    held-out clips. What is released is always masked and made in eval mode.
    """

    network: str = param("auto", "network; auto is resnet in preset paper, else resnet-signed", choices=("auto", *NETWORKS))
    private: str = param(SUBJECT, "attribute to hide", choices=tuple(_ATTRIBUTES))
    action_backbone: str = param("shift-gcn", "action classifier that it keeps right")
    privacy_backbone: str = param("shift-gcn", "privacy classifier that it misleads")
    alpha: float | None = param(None, "weight of the entropy; by default as published for the network", minimum=0)
    beta: float | None = param(
        None, f"weight of the squared error; by default {_BETA:g}, in preset paper as published", unit="1/m^2", minimum=0
    )
    gamma: float = param(0.0, "weight of the discriminator of bone directions; 0 is without", minimum=0)
    minimization_steps: int = param(1, "steps of the anonymizer to one of the privacy classifier", minimum=1)
    action_weights: str = param("", "file of published weights for the action classifier, instead of training it", file=True)

    learns: ClassVar[bool] = True

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        budgets = {"action": (self.action_backbone, preset.utility), "privacy": (self.privacy_backbone, preset.attack)}
        return {
            "network": self._network(preset),
            "training": asdict(preset.attack),
            # Its dropout in the game was not seeded before: fits of then are not those of now.
            **({"dropout": "seeded"} if getattr(BACKBONES[self.privacy_backbone].load(), "drops_out", False) else {}),
            **{
                name: {**classifiers.describe(backbone), "training": asdict(classifiers.config_for(backbone, config))}
                for name, (backbone, config) in budgets.items()
            },
        }

    def _network(self, preset: Preset) -> str:
        return self.network if self.network != "auto" else "resnet" if preset.attack.published else "resnet-signed"

    def fit(self, examples: Examples) -> Fitted:
        name = self._network(examples.preset)
        alpha, beta, rate = _PUBLISHED[name]
        if not examples.preset.attack.published:
            beta = _BETA
        terms = Terms(
            alpha=alpha if self.alpha is None else self.alpha,
            beta=beta if self.beta is None else self.beta,
            gamma=self.gamma,
        )
        game = Game(
            examples,
            name,
            terms,
            action=(self.action_backbone, self.action_weights),
            privacy=self.privacy_backbone,
            private=_ATTRIBUTES[self.private],
            lr=rate,
            minimization_steps=self.minimization_steps,
        )
        curves = game.play()
        return Fitted(
            to_state(name, game.anonymizer, examples.clips.num_bodies, game.least),
            {"network": name, "seed": examples.seed, **curves},
        )

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        return run_network(state, batch)
