"""The U-Net anonymizer of Moon et al. (AAAI 2023): the clip as an image of 3 channels, T rows and V * M columns.

The network is that of Ronneberger et al. (MICCAI 2015) with batch norm and same padding; modules carry the names of the published
weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from anonymizers.networks.base import AnonymizerNetwork
from bench.skeleton import Layout


class DoubleConvolution(nn.Module):
    """Twice [3 x 3 convolution without bias, batch norm, ReLU]."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Down(nn.Module):
    """Halves both axes by max pooling, then a double convolution."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConvolution(channels_in, channels_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class Up(nn.Module):
    """Doubles both axes by a transposed convolution, pads to the size of the skip, and joins the two."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(channels_in, channels_in // 2, 2, stride=2)
        self.conv = DoubleConvolution(channels_in, channels_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        x = functional.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.conv(torch.cat([skip, x], dim=1))


class OutConvolution(nn.Module):
    """1 x 1 convolution to coordinates."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class UNet(AnonymizerNetwork):
    """U-Net of five levels; its output is the released clip itself.

    Channels are 64, 128, 256, 512, 1024 (times base_width / 64). Columns are joints, with the bodies of a joint side by side.
    Four poolings need 16 frames or more and 16 columns or more.
    """

    def __init__(self, layout: Layout, num_bodies: int, base_width: int):
        super().__init__(layout, num_bodies, base_width)
        width = [base_width * 2**level for level in range(5)]
        self.inc = DoubleConvolution(3, width[0])
        self.down1, self.down2, self.down3, self.down4 = (Down(width[i], width[i + 1]) for i in range(4))
        self.up1, self.up2, self.up3, self.up4 = (Up(width[i + 1], width[i]) for i in reversed(range(4)))
        self.outc = OutConvolution(width[0], 3)

    def forward(self, clips: Tensor) -> Tensor:
        x = clips.flatten(3)  # (N, 3, T, V * M)
        skips = [self.inc(x)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in (self.up1, self.up2, self.up3, self.up4):
            x = up(x, skips.pop())
        return self.outc(x).view(clips.shape)

    def load_reference_state(self, state: Mapping[str, Tensor]) -> None:
        self.load_state_dict(state, strict=True)


class ResidualUNet(UNet):
    """x + U(x); starts as the identity."""

    def __init__(self, layout: Layout, num_bodies: int, base_width: int):
        super().__init__(layout, num_bodies, base_width)
        nn.init.zeros_(self.outc.conv.weight)
        nn.init.zeros_(self.outc.conv.bias)

    def forward(self, clips: Tensor) -> Tensor:
        return clips + super().forward(clips)

    def load_reference_state(self, state: Mapping[str, Tensor]) -> None:
        AnonymizerNetwork.load_reference_state(self, state)
