"""From the rows of NMSDynamic_TRT to boxes in source pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.families import kitti_detection as family
from nvidia_tao_deploy.families.kitti_detection import PlacedDetections
from nvidia_tao_deploy.transforms.transform import Geometry


def decode_rois(
    outputs: Mapping[str, NDArray[Any]],
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
    rows = outputs["nms_out"][: len(geometries), 0]
    counts = family.valid_counts(outputs["nms_out_1"], len(geometries), rows.shape[1])
    kept = family.confident(rows[..., 2], counts, confidence_threshold)
    detections = []
    for row, mine, geometry in zip(rows, kept, geometries, strict=True):
        found = row[mine].astype(np.float64)
        class_ids = family.check_detections(found[:, 1], found[:, 3:], names, 0)
        width, height = geometry.network_size
        canvas = found[:, 3:] * (width - 1, height - 1, width - 1, height - 1)
        boxes = geometry.to_source(canvas)
        boxes = np.clip(boxes, 0, geometry.source_size * 2) if clip else boxes
        detections.append(PlacedDetections(boxes, found[:, 2], class_ids, geometry=geometry))
    return detections
