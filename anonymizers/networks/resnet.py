"""The frame-wise residual anonymizer of Moon et al. (AAAI 2023), as published and with branches of either sign."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from anonymizers.networks.base import AnonymizerNetwork, from_frames, per_frame
from bench.skeleton import Layout

_BLOCKS = 10


class ResidualBlock(nn.Module):
    """z + ReLU(W2 ReLU(W1 z + b1) + b2); without the outer ReLU if `signed`."""

    def __init__(self, features: int, hidden: int, signed: bool):
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, features)
        self.signed = signed

    def forward(self, z: Tensor) -> Tensor:
        branch = self.fc2(functional.relu(self.fc1(z)))
        return z + (branch if self.signed else functional.relu(branch))


class ResNet(AnonymizerNetwork):
    """Ten residual blocks on each frame as one vector of 3 * V * M coordinates; no temporal context.

    As published, every branch ends in a ReLU: coordinates can only grow.

    | shape | what |
    | --- | --- |
    | (N, 3, T, V, M) | clips |
    | (N, T, 3 V M) | frames as vectors, ten blocks of two linear layers |
    | (N, 3, T, V, M) | clips |
    """

    frame_wise: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    def __init__(self, layout: Layout, num_bodies: int, base_width: int):
        super().__init__(layout, num_bodies, base_width)
        hidden = max(1, round(self.features * base_width / 64))
        self.res_blocks = nn.ModuleList(ResidualBlock(self.features, hidden, self.signed) for _ in range(_BLOCKS))

    def forward(self, clips: Tensor) -> Tensor:
        z = per_frame(clips)
        for block in self.res_blocks:
            z = block(z)
        return from_frames(z, clips.shape)

    def load_reference_state(self, state: Mapping[str, Tensor]) -> None:
        self.load_state_dict(state, strict=True)


class SignedResNet(ResNet):
    """The same with branches that may also lower coordinates; starts as the identity."""

    signed: ClassVar[bool] = True

    def __init__(self, layout: Layout, num_bodies: int, base_width: int):
        super().__init__(layout, num_bodies, base_width)
        for block in self.res_blocks:
            nn.init.zeros_(block.fc2.weight)
            nn.init.zeros_(block.fc2.bias)

    def load_reference_state(self, state: Mapping[str, Tensor]) -> None:
        AnonymizerNetwork.load_reference_state(self, state)
