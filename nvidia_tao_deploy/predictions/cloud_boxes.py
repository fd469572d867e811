"""From the rows of an anchor head to cuboids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.predictions.rotated import rotated_nms
from nvidia_tao_deploy.predictions.types import CloudBoxes
from nvidia_tao_deploy.transforms.transform import Geometry

BIRDS_EYE = [0, 1, 3, 4, 6]  # x, y, length, width, yaw of a cuboid


def decode_cloud_boxes(
    rows: Array,
    counts: Array,
    geometries: Sequence[Geometry],
    *,
    classes: int,
    score_threshold: float,
    iou_threshold: float,
    before_nms: int,
    after_nms: int,
) -> list[CloudBoxes]:
    """CloudBoxes by descending score, after suppression in bird's-eye view across all classes.

    The order of a model's rows is open, so equal scores are ordered by the rows' content.

    Args:
        rows: (B, N, 9) x, y, z, dx, dy, dz, yaw, class id, score.
        counts: (B,) rows that are defined.
        geometries: of the clouds.
        classes: number of classes.
        score_threshold: least score.
        iou_threshold: overlap from which a later box is dropped.
        before_nms: best rows that take part.
        after_nms: boxes kept at most.

    Raises:
        ModelError: a row is not finite, or of a class that there is not.
    """
    found = []
    for table, count, geometry in zip(rows, np.ravel(counts), geometries, strict=True):
        table = table[: int(count)].astype(np.float64)
        if not np.isfinite(table).all():
            raise ModelError("the model's boxes hold NaN or infinite values")
        table = table[table[:, 8] >= score_threshold]
        table = table[np.lexsort([*table[:, 7::-1].T, -table[:, 8]])][:before_nms]
        class_ids = table[:, 7].astype(np.int64)
        unknown = class_ids[(class_ids < 0) | (class_ids >= classes)]
        if len(unknown):
            raise ModelError(
                f"the model gives class {unknown[0]}, dataset.class_names are {classes}",
                remedy="List the classes of the model's anchors in their order.",
            )
        kept = rotated_nms(table[:, BIRDS_EYE], iou_threshold, after_nms)
        found.append(CloudBoxes(table[kept, :7], table[kept, 8], class_ids[kept], geometry))
    return found
