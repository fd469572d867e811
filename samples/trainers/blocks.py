"""Layers that the sample networks share. Channel counts are multiples of 16 so that INT8 kernels apply."""

from __future__ import annotations

from torch import Tensor, nn


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
