"""The transform of video networks: frames spread over a clip, each resized and normalized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.video import VideoFrames
from nvidia_tao_deploy.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from nvidia_tao_deploy.transforms.transform import Geometry


class VideoTransform:
    """Sample -> (T, 3, S, S): RGB frames by Pillow bicubic, aspect ratio not kept, (x / 255 - mean) / std of ImageNet.

    The clip's part of the file is in ``sample.meta``, see :func:`nvidia_tao_deploy.data.video.frame_window`.
    """

    def __init__(self, input_name: str) -> None:
        self.input_name = input_name
        self._frames = VideoFrames()

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        """Write the sample into ``out``."""
        from PIL import Image

        target = out[self.input_name]
        size = (target.shape[3], target.shape[2])
        frames, numbers = self._frames(sample.path, len(target), sample.meta)
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        placed = {}
        for number, frame in frames.items():
            pixels = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC), np.float32)
            placed[number] = (pixels.transpose(2, 0, 1) / 255 - mean) / std
        for row, number in enumerate(numbers):
            target[row] = placed[number]
        height, width = frames[numbers[0]].shape[:2]
        return Geometry((width, height), size, (size[0] / width, size[1] / height))

    def describe(self) -> dict[str, Any]:
        constants = {"resize": "stretch_bicubic", "color": "RGB", "scale": 1 / 255}
        return {**constants, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), "input": self.input_name}
