"""Depth and disparity maps: on the network's grid, on the source's, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.transforms.transform import Geometry


@dataclass(frozen=True)
class DepthMap:
    """One image's map.

    Attributes:
        values: (h, w) float32 on the network's grid: metres, inverse depth, or disparity in network pixels.
        geometry: how the (left) image lies on the network's canvas.
        disparity: values are pixels, and grow with the image's width.
    """

    values: NDArray[np.float32]
    geometry: Geometry
    disparity: bool = False

    def on_source(self) -> NDArray[np.float32]:
        """(H, W) float32 of the source's size, OpenCV bicubic; disparities in source pixels."""
        import cv2

        size = self.geometry.source_size
        values = self.values
        if values.shape != size[::-1]:
            values = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_CUBIC), np.float32)
        return values / np.float32(self.geometry.scale[0]) if self.disparity else values


def colorize(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map (H, W) as RGB (H, W, 3): least value to greatest over the turbo colours; what is not finite is black.

    A constant map has the last colour, or the first where it is 0.
    """
    import cv2

    finite = np.isfinite(values)
    known = np.where(finite, values, 0).astype(np.float64)
    low, high = (float(known[finite].min()), float(known[finite].max())) if finite.any() else (0.0, 0.0)
    if high > low:
        levels = (known - low) / (high - low) * 255
    else:
        levels = np.full(known.shape, 255.0 if high else 0.0)
    pixels = cv2.applyColorMap(np.clip(levels, 0, 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    rgb: NDArray[np.uint8] = np.array(pixels[..., ::-1], np.uint8)
    rgb[~finite] = 0
    return rgb
