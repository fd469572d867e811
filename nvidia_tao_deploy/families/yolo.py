"""YOLO detectors: letterboxed images, and the four outputs of a BatchedNMS plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from nvidia_tao_deploy.arrays import Array, Floats
from nvidia_tao_deploy.families import kitti_detection as family
from nvidia_tao_deploy.families.kitti_detection import PlacedDetections
from nvidia_tao_deploy.network import Port
from nvidia_tao_deploy.transforms.transform import Geometry

FIRST_CLASS_ID = 0
OUTPUTS = (
    Port("BatchedNMS", rank=2),
    Port("BatchedNMS_1", rank=3),
    Port("BatchedNMS_2", rank=2),
    Port("BatchedNMS_3", rank=2),
)


def decode_batched_nms(
    outputs: Mapping[str, Array],
    geometries: Sequence[Geometry],
    names: Sequence[str],
    confidence_threshold: float,
    *,
    clip: bool,
) -> list[PlacedDetections]:
    """Decode one batch.

    Args:
        outputs: ``BatchedNMS`` (B, 1) counts, ``BatchedNMS_1`` (B, K, 4) corners in [0, 1] of the canvas,
            ``BatchedNMS_2`` (B, K) scores, ``BatchedNMS_3`` (B, K) class ids from 0.
        geometries: how each of the first ``len(geometries)`` images was placed.
        names: the classes.
        confidence_threshold: detections must score more.
        clip: bring boxes into the source image; a box may reach into the canvas's borders.

    Returns:
        Per image, in the model's order (descending score).

    Raises:
        ModelError: counts, classes or values that the contract does not allow.
    """

    def place(corners: Array, geometry: Geometry) -> Floats:
        boxes = geometry.to_source(corners.astype(np.float64) * (geometry.network_size * 2))
        return np.clip(boxes, 0.0, geometry.source_size * 2) if clip else boxes

    boxes, scores, labels = (outputs[f"BatchedNMS_{number}"] for number in (1, 2, 3))
    columns, counts = (labels, scores, boxes), outputs["BatchedNMS"]
    return family.decode_nms(columns, counts, geometries, names, FIRST_CLASS_ID, confidence_threshold, place)


def boxes_on_canvas(boxes_xyxy: Floats, geometry: Geometry) -> Floats:
    """Source pixels -> [0, 1] of the canvas."""
    placed = boxes_xyxy * (geometry.scale * 2) + geometry.offset * 2
    return np.asarray(placed / (geometry.network_size * 2))


def truth_on_canvas(boxes_xyxy: Floats, geometry: Geometry) -> Floats:
    """As :func:`boxes_on_canvas`, clipped to the canvas."""
    return np.clip(boxes_on_canvas(boxes_xyxy, geometry), 0.0, 1.0)


yolo_network = partial(
    family.nms_network,
    outputs=OUTPUTS,
    first_class_id=FIRST_CLASS_ID,
    resize="letterbox",
    decode=lambda names, threshold, action: partial(
        decode_batched_nms, names=names, confidence_threshold=threshold, clip=action == "inference"
    ),
    places=(truth_on_canvas, boxes_on_canvas),
)
"""spec -> a YOLO detector; ``augmentation_config.output_depth`` counts where the spec has it."""
