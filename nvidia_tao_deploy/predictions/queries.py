"""Decoding of mask queries: segments from scores and masks per query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.predictions.segmentation import argmax_map, to_source
from nvidia_tao_deploy.predictions.types import Detections, PanopticMap
from nvidia_tao_deploy.transforms.transform import Geometry

MASK_THRESHOLD = 0.5


def panoptic_map(
    weighted: NDArray[Any],
    masks: NDArray[Any],
    scores: NDArray[Any],
    class_ids: NDArray[Any],
    geometry: Geometry,
    *,
    isthing: Sequence[bool],
    object_threshold: float,
    overlap_threshold: float,
) -> PanopticMap:
    """Segments of one image (contract mask2former.md, section 7).

    Queries that score at least ``object_threshold`` compete for pixels by ``weighted``, the first among ties. A query
    keeps the pixels it owns where its mask is at least 0.5, unless it owns less than ``overlap_threshold`` of its
    mask. Stuff of one class is one segment.

    Args:
        weighted: (Q, H, W) score times mask probability.
        masks: (Q, H, W) mask probabilities.
        scores: (Q,).
        class_ids: (Q,).
        geometry: how the image lies on the canvas.
        isthing: by class id; ids beyond are things.
        object_threshold: least score.
        overlap_threshold: least share of a mask that is not covered by others.

    Raises:
        ModelError: a value is NaN.
    """
    _refuse_nan(scores)
    kept = np.flatnonzero(scores >= object_threshold)
    segment_ids = np.zeros(weighted.shape[1:], np.int32)
    if not len(kept):
        return PanopticMap(segment_ids, np.zeros(0, np.int64), geometry)
    owner = argmax_map((weighted[query] for query in kept), len(kept))
    pixels = np.arange(owner.size).reshape(owner.shape)
    inside = masks.reshape(len(masks), -1)[kept[owner], pixels] >= MASK_THRESHOLD
    owned = np.bincount(owner.ravel(), minlength=len(kept))
    left = np.bincount(owner[inside], minlength=len(kept))
    original = [np.count_nonzero(masks[query] >= MASK_THRESHOLD) for query in kept]
    segment_of = np.zeros(len(kept), np.int32)
    found: list[int] = []
    of_stuff: dict[int, int] = {}
    for row, class_id in enumerate(class_ids[kept].astype(np.int64).tolist()):
        if not (owned[row] and original[row] and left[row]) or owned[row] / original[row] < overlap_threshold:
            continue
        thing = class_id >= len(isthing) or isthing[class_id]
        if class_id in of_stuff:
            segment_of[row] = of_stuff[class_id]
            continue
        found.append(class_id)
        segment_of[row] = len(found)
        if not thing:
            of_stuff[class_id] = len(found)
    segment_ids[inside] = segment_of[owner[inside]]
    return PanopticMap(segment_ids, np.array(found, np.int64), geometry)


def instances(
    masks: NDArray[Any], scores: NDArray[Any], class_ids: NDArray[Any], geometry: Geometry, threshold: float
) -> Detections:
    """Instances of one image that score more than ``threshold``, in the model's order.

    Args:
        masks: (K, H, W), 0 or 1 on the canvas.
        scores: (K,).
        class_ids: (K,).
        geometry: how the image lies on the canvas.
        threshold: exclusive.

    Returns:
        Masks and their enclosing boxes in source pixels; boxes of empty masks are 0, 0, 0, 0.

    Raises:
        ModelError: a score is NaN.
    """
    _refuse_nan(scores)
    kept = np.flatnonzero(scores > threshold)
    width, height = geometry.source_size
    placed = np.zeros((len(kept), height, width), bool)
    boxes = np.zeros((len(kept), 4))
    for row, query in enumerate(kept.tolist()):
        placed[row] = to_source(masks[query] > MASK_THRESHOLD, geometry)
        columns, rows = np.flatnonzero(placed[row].any(axis=0)), np.flatnonzero(placed[row].any(axis=1))
        if len(columns):
            boxes[row] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return Detections(boxes, scores[kept].astype(np.float64), class_ids[kept].astype(np.int64), placed)


def _refuse_nan(scores: NDArray[Any]) -> None:
    if np.isnan(scores).any():
        raise ModelError("the model's scores hold NaN", remedy="Build in fp32, or keep some layers in fp32.")
