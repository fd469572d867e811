"""The source image on the network's canvas, and the camera that took it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.image import Backend, decode_upright
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.predictions.cuboids import Floats
from nvidia_tao_deploy.transforms.normalize import Normalization
from nvidia_tao_deploy.transforms.transform import Geometry


@dataclass(frozen=True)
class CameraGeometry(Geometry):
    """A geometry that also knows the camera: (3, 3) intrinsics in source pixels."""

    camera: Floats = field(kw_only=True)


class WarpTransform:
    """Longer side to the canvas, centre to centre, black around; B, G, R planes of (x / 255 - mean) / std.

    Upright, bilinear on whole grey levels (OpenCV's warpAffine): a pixel's centre x goes to r (x - w / 2) + W / 2.

    Args:
        input_name: of the image input.
        mean: three values in the order B, G, R, scale 0..1.
        std: likewise.
        camera: (3, 3) of samples that bring none in ``meta["camera"]``.
        backend: image decoder.
    """

    def __init__(
        self, input_name: str, mean: Sequence[float], std: Sequence[float], camera: Floats, backend: Backend
    ) -> None:
        self._name, self._camera, self._backend = input_name, camera, backend
        self._constants = Normalization(1 / 255, tuple(mean), tuple(std)).for_channels(3)

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> CameraGeometry:
        """Write the sample into its row (3, H, W)."""
        import cv2

        image = decode_upright(sample.path, "RGB", self._backend)
        high, wide = image.shape[:2]
        stated = sample.meta.get("size", (wide, high))
        if stated != (wide, high):
            raise DataError(
                f"the image is {wide} x {high}, its annotation says {stated[0]} x {stated[1]}",
                where=str(sample.path),
                remedy="Keypoints are pixels: annotate the image as it is.",
            )
        height, width = out[self._name].shape[1:]
        scale = width / max(wide, high)
        left, top = width / 2 - scale * wide / 2, height / 2 - scale * high / 2
        matrix = np.array([[scale, 0, left], [0, scale, top]])
        warped = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        planes = np.ascontiguousarray(warped[..., ::-1].transpose(2, 0, 1), dtype=np.float32)
        for channel, plane in enumerate(planes):
            self._constants.apply_in_place(plane, channel)
        out[self._name][...] = planes
        camera = sample.meta.get("camera", self._camera)
        return CameraGeometry((wide, high), (width, height), (scale, scale), (left, top), camera=camera)

    def describe(self) -> dict[str, Any]:
        return {
            "resize": "warp_letterbox",
            "color": "BGR",
            "layout": "NCHW",
            "scale": 1 / 255,
            "mean": list(self._constants.mean),
            "std": list(self._constants.std),
            "input": self._name,
            "decoder": self._backend,
        }
