"""The transform of image networks: decode, place on the canvas, normalize, store. Data, not branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.image import MAX_PIXELS, Backend, ColorMode, decode_reduced
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.transforms.normalize import Normalization
from nvidia_tao_deploy.transforms.resize import PLACEMENTS
from nvidia_tao_deploy.transforms.resize import resize as resize_to
from nvidia_tao_deploy.transforms.transform import Geometry

Color = Literal["RGB", "BGR", "L", "I"]
Layout = Literal["NCHW", "NHWC"]
# Pixels (h, w, C), and the (width, height) of the file, which may be larger (``opencv_reduced``).
Decoded = tuple["NDArray[np.uint8] | NDArray[np.int32]", tuple[int, int]]


class ImageTransform:
    """Sample -> one image input, value = (pixel * scale - mean) / std.

    The arithmetic is float32 (``arithmetic="float64"`` for the KITTI family's mean subtraction) whatever the
    network's input type; the cast happens on store. An input with one channel is decoded to grey.

    Args:
        resize: a name of :data:`nvidia_tao_deploy.transforms.resize.PLACEMENTS`.
        scale: factor on grey levels 0..255.
        mean: per channel in the order of ``color``, or one value; in units after ``scale``.
        std: per channel in the order of ``color``, or one value.
        color: channel order of the network's input; "I" reads 16-bit grey.
        layout: of the network's input.
        input_name: key of ``out``.
        backend: image decoder; with "opencv_reduced" the stretches take JPEG files at the smallest of 1, 1/2, 1/4,
            1/8 of their size that covers the input, which is faster and changes grey levels (docs/pipeline.md).
        arithmetic: "float32" or "float64".
        path_index: which of the sample's paths to read.
        max_pixels: refuse larger source images.

    Raises:
        SpecError: an unknown name, or constants that make no sense.
    """

    def __init__(
        self,
        *,
        resize: str = "stretch",
        scale: float = 1.0,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        color: Color = "RGB",
        layout: Layout = "NCHW",
        input_name: str = "input",
        backend: Backend = "opencv",
        arithmetic: Literal["float32", "float64"] = "float32",
        path_index: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        for what, value, known in (
            ("resize", resize, PLACEMENTS),
            ("color", color, ("RGB", "BGR", "L", "I")),
            ("layout", layout, ("NCHW", "NHWC")),
        ):
            if value not in known:
                raise SpecError(f"unknown {what} '{value}'", remedy=f"One of: {', '.join(known)}.")
        if not scale > 0:
            raise SpecError(f"scale must be positive, not {scale}")
        self.resize, self.color, self.layout, self.input_name = resize, color, layout, input_name
        self.normalization = Normalization(float(scale), tuple(map(float, mean)), tuple(map(float, std)))
        self.backend, self.path_index, self.max_pixels = backend, path_index, max_pixels
        self.arithmetic = arithmetic
        self._work = np.dtype(arithmetic)

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        """Write the sample into ``out[input_name]``: (C, H, W) or (H, W, C) by ``layout``."""
        target = out.get(self.input_name)
        if target is None:
            raise ModelError(f"the model has no input '{self.input_name}', only {', '.join(out)}")
        if target.ndim != 3 or self._canvas(target.shape)[0] not in (1, 3):
            raise ModelError(
                f"input '{self.input_name}' of shape {target.shape} is not a {self.layout} image with 1 or 3 channels"
            )
        return self.finish(self.decode(sample, target.shape), target)

    def decode(self, sample: Sample, shape: tuple[int, ...]) -> Decoded:
        """The first half: the sample's pixels for an input of ``shape`` (no batch axis), and its file's own size."""
        channels, canvas = self._canvas(shape)
        # Only a stretch leaves the same geometry whatever size the pixels come in.
        least = canvas if self.resize.startswith("stretch") else None
        path = sample.paths[self.path_index]
        return decode_reduced(path, self._mode(channels), least, self.backend, self.max_pixels)

    def finish(self, decoded: Decoded, target: NDArray[Any]) -> Geometry:
        """The second half: place, normalize and store the decoded pixels in ``target``."""
        _, canvas = self._canvas(target.shape)
        placed = resize_to(decoded[0], canvas, self.resize)
        self._store(placed.pixels, target if self.layout == "NCHW" else target.transpose(2, 0, 1))
        return self.geometry(decoded, target.shape)

    def geometry(self, decoded: Decoded, shape: tuple[int, ...]) -> Geometry:
        """Where the decoded pixels lie on the canvas of an input of ``shape``."""
        pixels, source = decoded
        return self.geometry_of((pixels.shape[1], pixels.shape[0]), source, shape)

    def geometry_of(self, size: tuple[int, int], source: tuple[int, int], shape: tuple[int, ...]) -> Geometry:
        """As :meth:`geometry`, for pixels of ``size`` from a file of size ``source``."""
        _, canvas = self._canvas(shape)
        placement = PLACEMENTS[self.resize](size, canvas)
        stretched = self.resize.startswith("stretch")
        scale = (canvas[0] / source[0], canvas[1] / source[1]) if stretched else placement.scale
        return Geometry(source, canvas, scale, (float(placement.corner[0]), float(placement.corner[1])))

    def _canvas(self, shape: tuple[int, ...]) -> tuple[int, tuple[int, int]]:
        """Channels, and the canvas's (width, height)."""
        channels, height, width = shape if self.layout == "NCHW" else (shape[2], shape[0], shape[1])
        return channels, (width, height)

    def describe(self) -> dict[str, Any]:
        return {
            "resize": self.resize,
            "color": self.color,
            "layout": self.layout,
            "scale": self.normalization.scale,
            "mean": list(self.normalization.mean),
            "std": list(self.normalization.std),
            "input": self.input_name,
            "decoder": self.backend,
            "arithmetic": self.arithmetic,
        }

    def _mode(self, channels: int) -> ColorMode:
        if channels == 3:
            return "RGB"
        return "I" if self.color == "I" else "L"

    def _store(self, pixels: NDArray[Any], planes: NDArray[Any]) -> None:
        """Pixels (H, W, C) in decode order -> planes (C, H, W), normalized, in the planes' dtype."""
        channels = planes.shape[0]
        constants = _constants(self.normalization, channels)
        direct = planes.dtype == self._work and planes.flags.c_contiguous
        work = planes if direct else np.empty(planes.shape, self._work)
        flipped = self.color == "BGR" and channels == 3
        _split(pixels, [work[channels - 1 - c if flipped else c] for c in range(channels)])
        for channel in range(channels):
            constants.apply_in_place(work[channel], channel)
        if direct:
            return
        if planes.dtype.kind in "iu":  # integer inputs take whole grey levels
            limits = np.iinfo(planes.dtype)
            np.clip(np.rint(work, out=work), limits.min, limits.max, out=work)
        planes[...] = work


@lru_cache(maxsize=64)
def _constants(normalization: Normalization, channels: int) -> Normalization:
    return normalization.for_channels(channels)


def _split(pixels: NDArray[Any], planes: list[NDArray[Any]]) -> None:
    """Copy each channel of (H, W, C) into its plane (H, W), converting the type."""
    import cv2

    if len(planes) > 1 and pixels.dtype == planes[0].dtype and all(p.flags.c_contiguous for p in planes):
        cv2.split(pixels, planes)  # writes into planes of the right type: 3 times as fast as strided copies
        return
    for channel, plane in enumerate(planes):
        plane[...] = pixels[..., channel]
