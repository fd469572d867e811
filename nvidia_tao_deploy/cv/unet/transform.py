"""How unet places an image on its canvas, and the map it gives back on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.data.image import decode
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.transforms.image import Color, ImageTransform
from nvidia_tao_deploy.transforms.resize import Placed, Size
from nvidia_tao_deploy.transforms.transform import Geometry

Method = Literal["BILINEAR", "BICUBIC", "AREA", "NEAREST_NEIGHBOR"]


def resized(image: NDArray[np.uint8], size: Size, method: Method) -> NDArray[np.uint8]:
    """(h, w, C) stretched to ``size`` (width, height): AREA by OpenCV, the others by Pillow."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    if method == "AREA":
        import cv2

        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8).reshape(*size[::-1], -1)
    from PIL import Image

    name = "NEAREST" if method == "NEAREST_NEIGHBOR" else method
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.resize(size, Image.Resampling[name])).reshape(*size[::-1], -1)


def placed(
    image: NDArray[np.uint8], size: Size, inner: Size, *, method: Method, keep_aspect: bool, fill: float
) -> Placed:
    """The image within the central ``inner`` part of a canvas of ``size``, ``fill`` around it.

    Args:
        image: (h, w, C).
        size: (width, height) of the canvas.
        inner: (width, height) the image may take.
        method: how it is resized; bilinear with ``keep_aspect``.
        keep_aspect: scale 1 / max(w/W, h/H), sides rounded half to even, centred; else stretched to ``inner``.
        fill: grey level around the image.
    """
    height, width = image.shape[:2]
    wide, high = inner
    if keep_aspect:
        scale = 1.0 / max(width / inner[0], height / inner[1])
        wide, high = max(round(width * scale), 1), max(round(height * scale), 1)
        method = "BILINEAR"
    pixels = resized(image, (wide, high), method)
    left, top = (size[0] - wide) // 2, (size[1] - high) // 2
    ratio = (wide / width, high / height)
    if (wide, high) == size:
        return Placed(pixels, ratio)
    canvas = np.full((size[1], size[0], image.shape[2]), fill, np.float32)
    canvas[top : top + high, left : left + wide] = pixels
    return Placed(canvas, ratio, (float(left), float(top)))


class UnetTransform(ImageTransform):
    """As :class:`ImageTransform`, with the placements above.

    Args:
        inner: (width, height) of the part of the canvas that the model judges; None: all of it.
        method: how images are resized.
        keep_aspect: pad instead of stretching.
        fill: grey level of the padding.
        more: scale, mean, color, input_name and backend of :class:`ImageTransform`.
    """

    def __init__(
        self, *, inner: Size | None, method: Method, keep_aspect: bool, fill: float, color: Color, **more: Any
    ) -> None:
        super().__init__(color=color, **more)
        self.inner, self.method, self.keep_aspect, self.fill = inner, method, keep_aspect, fill

    def __call__(self, sample: Sample, out: Mapping[str, Array]) -> Geometry:
        """Write the sample into ``out[input_name]``, (C, H, W)."""
        planes = out[self.input_name]
        channels, height, width = planes.shape
        image = np.asarray(decode(sample.path, self._mode(channels), self.backend, self.max_pixels), np.uint8)
        size = (width, height)
        found = placed(
            image, size, self.inner or size, method=self.method, keep_aspect=self.keep_aspect, fill=self.fill
        )
        self._store(found.pixels, planes)
        return Geometry((image.shape[1], image.shape[0]), size, found.scale, found.offset)

    def describe(self) -> dict[str, Any]:
        resize = f"pad_center_{self.fill:g}" if self.keep_aspect else f"stretch_{self.method.lower()}"
        return {**super().describe(), "resize": resize, "inner": list(self.inner) if self.inner else None}


def on_map(geometry: Geometry, size: Size) -> Geometry:
    """The geometry on the central part of ``size`` (width, height) of the canvas."""
    left, top = ((net - side) // 2 for net, side in zip(geometry.network_size, size, strict=True))
    return replace(geometry, network_size=size, offset=(geometry.offset[0] - left, geometry.offset[1] - top))
