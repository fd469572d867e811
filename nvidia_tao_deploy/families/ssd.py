"""SSD-like detectors: stretched images, and the two outputs of an NMS (SSD detection output) plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from nvidia_tao_deploy.arrays import Array, Floats
from nvidia_tao_deploy.families import kitti_detection as family
from nvidia_tao_deploy.families.kitti_detection import PlacedDetections
from nvidia_tao_deploy.network import Port
from nvidia_tao_deploy.transforms.transform import Geometry

FIRST_CLASS_ID = 1  # 0 is the background
OUTPUTS = (Port("NMS", channels=(1,)), Port("NMS_1", channels=(1,)))


def decode_detection_output(
    outputs: Mapping[str, Array], geometries: Sequence[Geometry], names: Sequence[str], confidence_threshold: float
) -> list[PlacedDetections]:
    """Decode one batch.

    Boxes are rounded to whole pixels of the canvas (half to even) and clipped to it, then mapped to the source.

    Args:
        outputs: ``NMS`` (B, 1, K, 7) rows of image index, class, score and corners in [0, 1] of the canvas;
            ``NMS_1`` (B, 1, 1, 1) counts, see :func:`~nvidia_tao_deploy.families.kitti_detection.valid_counts`.
        geometries: how each of the first ``len(geometries)`` images was placed.
        names: the classes, whose ids start at 1.
        confidence_threshold: detections must score more.

    Returns:
        Per image, in the model's order (descending score).

    Raises:
        ModelError: counts, classes or values that the contract does not allow.
    """

    def place(corners: Array, geometry: Geometry) -> Floats:
        size = np.array(geometry.network_size * 2, np.float32)
        # float32 products, as the contract rounds them
        return geometry.to_source(np.clip(np.rint(corners * size), 0, size))

    columns = family.nms_columns(outputs["NMS"])
    return family.decode_nms(columns, outputs["NMS_1"], geometries, names, FIRST_CLASS_ID, confidence_threshold, place)


def boxes_on_canvas(boxes_xyxy: Floats, geometry: Geometry) -> Floats:
    """Source pixels -> whole pixels of the canvas, half to even."""
    (width, height), (net_width, net_height) = geometry.source_size, geometry.network_size
    ratio = (width / net_width, height / net_height) * 2
    return np.asarray(np.rint(boxes_xyxy / ratio))


def truth_on_canvas(boxes_xyxy: Floats, geometry: Geometry) -> Floats:
    """As :func:`boxes_on_canvas`, clipped one pixel short of the canvas, as training does."""
    width, height = geometry.network_size
    return np.clip(boxes_on_canvas(boxes_xyxy, geometry), 0, (width - 1, height - 1) * 2)


ssd_network = partial(
    family.nms_network,
    outputs=OUTPUTS,
    first_class_id=FIRST_CLASS_ID,
    resize="stretch_bilinear",
    decode=lambda names, threshold, _action: partial(
        decode_detection_output, names=names, confidence_threshold=threshold
    ),
    places=(truth_on_canvas, boxes_on_canvas),
)
"""spec -> an SSD-like detector."""
