"""One result type per task; every decoder, metric, writer and drawing speaks these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Bools, Floats, Ints
from nvidia_tao_deploy.transforms.transform import Geometry


@dataclass(frozen=True)
class Detections:
    """Boxes of one image, in source pixels, best first within whatever order the network defines.

    Attributes:
        boxes_xyxy: (N, 4) float64: x1, y1, x2, y2.
        scores: (N,) float64.
        class_ids: (N,) int64, meaning given by the network (see its contract).
        masks: (N, H, W) bool in source pixels, or None.
    """

    boxes_xyxy: Floats
    scores: Floats
    class_ids: Ints
    masks: Bools | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Bools | Ints | slice) -> Detections:
        masks = None if self.masks is None else self.masks[index]
        return Detections(self.boxes_xyxy[index], self.scores[index], self.class_ids[index], masks)


@dataclass(frozen=True)
class Classification:
    """Class scores (C,) float64 of one image: probabilities."""

    scores: Floats

    @property
    def class_id(self) -> int:
        """Index of the best score, the lowest index among ties."""
        return int(np.argmax(self.scores))


@dataclass(frozen=True)
class LabelMap:
    """A class for every pixel of the network's canvas.

    Attributes:
        class_ids: (H, W) unsigned integers, the canvas being ``geometry.network_size``.
        geometry: how the source image lies on that canvas.
    """

    class_ids: Array
    geometry: Geometry


@dataclass(frozen=True)
class PanopticMap:
    """A segment for every pixel of the network's canvas.

    Attributes:
        segment_ids: (H, W) int32; 0 is no segment, k is row k - 1 of ``class_ids``.
        class_ids: (S,) int64.
        geometry: how the source image lies on the canvas.
    """

    segment_ids: NDArray[np.int32]
    class_ids: Ints
    geometry: Geometry


@dataclass(frozen=True)
class CloudBoxes:
    """Boxes of one point cloud, best first.

    Attributes:
        boxes: (N, 7) float64: centre x, y, z, length, width, height in metres, yaw in radians counter-clockwise from x.
        scores: (N,) float64.
        class_ids: (N,) int64, from 0.
        geometry: what became of the cloud on its way to the model.
    """

    boxes: Floats
    scores: Floats
    class_ids: Ints
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.scores)
