"""From detections and mask logits to boxes in source pixels, each with a coarse mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.kitti_detection import require_finite
from nvidia_tao_deploy.predictions.detr import sigmoid
from nvidia_tao_deploy.predictions.masks import RoiMaskDetections
from nvidia_tao_deploy.transforms.transform import Geometry


def decode_masks(outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry]) -> list[RoiMaskDetections]:
    """Decode one batch.

    Args:
        outputs: ``generate_detections`` (B, D, 6) rows y1, x1, y2, x2 in network pixels, class, score; class 0 is the
            background, -1 marks a row without detection. ``mask_fcn_logits/BiasAdd`` (B, D, C, S, S) logits by class.
        geometries: how each of the first ``len(geometries)`` images was placed.

    Returns:
        Per image, in the model's order; class ids from 1, boxes not clipped, each with the mask of its own class.

    Raises:
        ModelError: outputs that do not fit each other, classes beyond the masks, or values that are not finite.
    """
    rows, logits = outputs["generate_detections"], outputs["mask_fcn_logits/BiasAdd"]
    if logits.ndim != 5 or logits.shape[:2] != rows.shape[:2] or logits.shape[3] != logits.shape[4]:
        raise ModelError(f"detections {rows.shape} and masks {logits.shape} are not (B, D, 6) and (B, D, C, S, S)")
    found = []
    for image, geometry in enumerate(geometries):
        require_finite(rows[image, :, 4])
        class_ids = np.rint(rows[image, :, 4]).astype(np.int64)
        mine = np.flatnonzero(class_ids > 0)
        row, class_ids = rows[image, mine].astype(np.float64), class_ids[mine]
        if len(mine) and class_ids.max() >= logits.shape[2]:
            raise ModelError(f"the model detects class {class_ids.max()}, its masks are of {logits.shape[2]} classes")
        masks = logits[image, mine, class_ids]
        require_finite(row, masks)
        boxes = geometry.to_source(row[:, [1, 0, 3, 2]])
        found.append(
            RoiMaskDetections(boxes, row[:, 5], class_ids, roi_masks=sigmoid(masks), size=geometry.source_size)
        )
    return found
