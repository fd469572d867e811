"""The arithmetic between grey levels and network input: (x * scale - mean) / std, per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import SpecError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
CAFFE_MEAN_GREY = (117.3786,)
CAFFE_MEAN_GREY_16 = (30048.9216,)


@dataclass(frozen=True)
class Normalization:
    """Constants of (x * scale - mean) / std, in the channel order of the network's input.

    A scale whose inverse is a whole number, such as 1/255, is applied as a division, as the trainers do. Steps
    that change nothing (scale 1, mean 0, std 1) are not computed.

    Attributes:
        scale: factor on the decoded grey levels.
        mean: one value per channel, or one for all.
        std: one value per channel, or one for all.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def for_channels(self, channels: int) -> Normalization:
        """The same constants, one per channel.

        Raises:
            SpecError: the number of means or stds fits neither 1 nor ``channels``, or a std is 0.
        """
        mean, std = (_per_channel(name, getattr(self, name), channels) for name in ("mean", "std"))
        if not all(std):
            raise SpecError(f"std {list(self.std)} holds a zero", remedy="Standard deviations must not be 0.")
        return Normalization(self.scale, mean, std)

    @property
    def scaling(self) -> tuple[int, float]:
        """0: none; 1: divide by the number; 2: multiply by it."""
        if self.scale == 1.0:
            return 0, 1.0
        divisor = 1.0 / self.scale
        whole = round(divisor * 2) / 2  # 127.5 counts as whole here
        return (1, whole) if abs(divisor - whole) < 1e-9 * divisor else (2, self.scale)

    def apply_in_place(self, plane: NDArray[Any], channel: int) -> None:
        """Normalize one channel's floating-point plane, three separately rounded steps in the plane's dtype."""
        number = plane.dtype.type
        how, factor = self.scaling
        if how == 1:
            np.divide(plane, number(factor), out=plane)
        elif how == 2:
            np.multiply(plane, number(factor), out=plane)
        if self.mean[channel]:
            np.subtract(plane, number(self.mean[channel]), out=plane)
        if self.std[channel] != 1.0:
            np.divide(plane, number(self.std[channel]), out=plane)


def _per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return tuple(map(float, values))
    if len(set(values)) == 1:
        return (float(values[0]),) * channels
    raise SpecError(
        f"{name} has {len(values)} values {list(values)}, the network's input has {channels} channels",
        remedy=f"Give one {name} per channel.",
    )
