"""From the rows of NMSDynamic_TRT to boxes in source pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nvidia_tao_deploy.arrays import Array, Floats
from nvidia_tao_deploy.families import kitti_detection as family
from nvidia_tao_deploy.families.kitti_detection import PlacedDetections
from nvidia_tao_deploy.transforms.transform import Geometry


def decode_rois(
    outputs: Mapping[str, Array],
    geometries: Sequence[Geometry],
    names: Sequence[str],
    confidence_threshold: float,
    clip: bool = False,
) -> list[PlacedDetections]:
    """Decode one batch.

    Args:
        outputs: ``nms_out`` (B, 1, K, 7) rows of image index, class and score, and corners divided by the canvas's
            width - 1 and height - 1, as the proposal layer divides them; ``nms_out_1`` (B, 1, 1, 1) counts.
        geometries: how each of the first ``len(geometries)`` images was placed.
        names: the classes, whose ids start at 0.
        confidence_threshold: detections must score more.
        clip: keep boxes inside their image.

    Returns:
        Per image, in the model's order (descending score).

    Raises:
        ModelError: counts, classes or values that the contract does not allow.
    """

    def place(corners: Array, geometry: Geometry) -> Floats:
        width, height = geometry.network_size
        boxes = geometry.to_source(corners.astype(np.float64) * (width - 1, height - 1, width - 1, height - 1))
        return np.clip(boxes, 0, geometry.source_size * 2) if clip else boxes

    columns = family.nms_columns(outputs["nms_out"])
    return family.decode_nms(columns, outputs["nms_out_1"], geometries, names, 0, confidence_threshold, place)
