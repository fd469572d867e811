"""The shape of a transform, and the geometry it leaves behind for decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample


@dataclass(frozen=True)
class Geometry:
    """How a source image was placed on the network's canvas.

    A source pixel (x, y) lies at (x * scale_x + left, y * scale_y + top) on the canvas.

    Attributes:
        source_size: (width, height) of the decoded image, pixels.
        network_size: (width, height) of the network input, pixels.
        scale: (scale_x, scale_y), network pixels per source pixel.
        offset: (left, top) of the image on the canvas, network pixels.
    """

    source_size: tuple[int, int]
    network_size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    def to_source(self, boxes_xyxy: NDArray[Any]) -> NDArray[np.float64]:
        """Map boxes (N, 4) from network pixels to source pixels; not clipped."""
        scale = np.array([*self.scale, *self.scale], dtype=np.float64)
        offset = np.array([*self.offset, *self.offset], dtype=np.float64)
        return (np.asarray(boxes_xyxy, dtype=np.float64) - offset) / scale


class Transform(Protocol):
    """Fills one row of every input of the network from one sample.

    Called from several threads at once: an instance holds constants only.
    """

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        """Write the sample into ``out[input name]`` (the input's shape without the batch axis).

        Raises:
            DataError: the sample's file is missing or cannot be decoded, or does not fit what the dataset says of it.
            ModelError: an input is not there, or has another shape.
            SpecError: constants or texts of the spec do not fit the input, or there is no tokenizer.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Every constant that shapes the numbers, JSON-ready: goes into manifest and calibration key."""
        ...
