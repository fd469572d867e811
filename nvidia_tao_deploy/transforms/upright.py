"""The transform of the networks whose contract reads images with OpenCV: upright, stretched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.image import decode_upright
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.resize import resize
from nvidia_tao_deploy.transforms.transform import Geometry


class UprightTransform(ImageTransform):
    """An :class:`ImageTransform` that stretches upright images with OpenCV INTER_LINEAR.

    Args:
        whole_levels: resize uint8 pixels, which rounds to whole grey levels, instead of float32 ones.
        settings: of :class:`ImageTransform`, without ``resize``.
    """

    def __init__(self, *, whole_levels: bool = False, **settings: Any) -> None:
        super().__init__(resize="stretch", **settings)
        self.whole_levels = whole_levels

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        """Write the sample into ``out[input_name]`` (C, H, W); the geometry is that of the upright image."""
        target = out[self.input_name]
        channels, height, width = target.shape
        image = decode_upright(sample.paths[self.path_index], self._mode(channels), self.backend)
        self._store(self._stretched(image, (width, height)), target)
        source = (image.shape[1], image.shape[0])
        return Geometry(source, (width, height), (width / source[0], height / source[1]))

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "whole_levels": self.whole_levels, "exif_orientation": "applied"}

    def _stretched(self, image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        if not self.whole_levels:
            return resize(image, size, self.resize).pixels
        import cv2

        resized = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
        return resized.reshape(size[1], size[0], image.shape[2])  # OpenCV drops a channel axis of 1
