"""Layers that the sample networks share. Channel counts are multiples of 16 so that INT8 kernels apply."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class ConvNorm(nn.Sequential):
    """3x3 convolution, batch norm (folded into the convolution at export), ReLU unless ``activate`` is off."""

    def __init__(self, inputs: int, outputs: int, stride: int | tuple[int, int] = 1, activate: bool = True) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False))
        self.add_module("norm", nn.BatchNorm2d(outputs))
        if activate:
            self.add_module("relu", nn.ReLU())


class Residual(nn.Module):
    """Two convolutions around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels)
        self.conv2 = ConvNorm(channels, channels, activate=False)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        return self.relu(features + self.conv2(self.conv1(features)))


class Encoder(nn.Module):
    """(N, 3, H, W) to features of a half, a quarter, an eighth and a sixteenth of the size."""

    CHANNELS = (16, 32, 32, 48)

    def __init__(self) -> None:
        super().__init__()
        stem, quarter, eighth, sixteenth = self.CHANNELS
        self.stem = ConvNorm(3, stem, stride=2)
        self.layer1 = nn.Sequential(ConvNorm(stem, quarter, stride=2), Residual(quarter))
        self.layer2 = nn.Sequential(ConvNorm(quarter, eighth, stride=2), Residual(eighth))
        self.layer3 = nn.Sequential(ConvNorm(eighth, sixteenth, stride=2), ConvNorm(sixteenth, sixteenth))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [self.stem(images)]
        for layer in (self.layer1, self.layer2, self.layer3):
            features.append(layer(features[-1]))
        return features


class Decoder(nn.Module):
    """Features of :class:`Encoder` to 32 channels each, from a sixteenth of the size up to a half."""

    WIDTH = 32

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, self.WIDTH, 1) for channels in Encoder.CHANNELS)
        self.smooth = nn.ModuleList(ConvNorm(self.WIDTH, self.WIDTH) for _ in Encoder.CHANNELS)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        merged: list[Tensor] = []
        for feature, lateral, smooth in list(zip(features, self.lateral, self.smooth, strict=True))[::-1]:
            side = lateral(feature)
            merged.append(smooth(side + twice(merged[-1]) if merged else side))
        return merged


def twice(features: Tensor) -> Tensor:
    """Every pixel four times."""
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")
