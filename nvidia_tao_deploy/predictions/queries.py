"""Decoding of mask queries: label maps, instances and segments from classes and masks per query.

``logits`` are (Q, C + 1) with no-object last, ``masks`` (Q, h, w) mask logits, ``size`` is (width, height).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.predictions.checks import refuse_nan
from nvidia_tao_deploy.predictions.detr import sigmoid
from nvidia_tao_deploy.predictions.masks import resized_logits
from nvidia_tao_deploy.predictions.segmentation import argmax_map, label_type, to_source
from nvidia_tao_deploy.predictions.types import Detections, PanopticMap
from nvidia_tao_deploy.transforms.transform import Geometry

MASK_THRESHOLD = 0.5
PIXELS_AT_ONCE = 1 << 12  # what stays in a core's cache


def class_odds(logits: Array) -> NDArray[np.float32]:
    """Softmax of (Q, C + 1), no-object last, in float32; ModelError where a value is NaN."""
    refuse_nan(logits)
    odds = np.exp(logits.astype(np.float32) - logits.max(axis=1, keepdims=True).astype(np.float32))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)


def stretched(masks: Array, size: tuple[int, int]) -> NDArray[np.float32]:
    """Mask logits (Q, h, w) at (Q, H, W), bilinear with half-pixel centres, as training does it before the sigmoid.

    Raises:
        ModelError: a value is NaN.
    """
    refuse_nan(masks)
    found = np.empty((len(masks), size[1], size[0]), np.float32)
    for row, mask in zip(found, resized_logits(masks, size), strict=True):
        row[...] = mask
    return found


def semantic_map(logits: Array, masks: Array, size: tuple[int, int]) -> Array:
    """(H, W) class with the largest sum over queries of class probability times mask probability."""
    classes = class_odds(logits)[:, :-1]
    flat = stretched(masks, size).reshape(len(masks), -1)
    found = np.concatenate([(sigmoid(part).T @ classes).argmax(axis=1) for part in _parts(flat)])
    return found.astype(label_type(classes.shape[1])).reshape(size[1], size[0])


def _parts(flat: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """(Q, n) columns, a few at a time: the scores of all classes are many times as large as the masks."""
    for start in range(0, flat.shape[1], PIXELS_AT_ONCE):
        yield flat[:, start : start + PIXELS_AT_ONCE]


def panoptic_queries(logits: Array, masks: Array, size: tuple[int, int], threshold: float) -> tuple[Array, ...]:
    """What :func:`panoptic_map` takes, of the queries whose best class is an object of at least this probability."""
    odds = class_odds(logits)
    class_ids, scores = odds.argmax(axis=1), odds.max(axis=1)
    kept = (class_ids < odds.shape[1] - 1) & (scores >= threshold)
    probabilities = sigmoid(stretched(masks[kept], size))
    return scores[kept, None, None] * probabilities, probabilities, scores[kept], class_ids[kept]


def instance_queries(
    logits: Array, masks: Array, size: tuple[int, int], top: int, isthing: Sequence[bool]
) -> tuple[Array, ...]:
    """What :func:`instances` takes, of the ``top`` pairs of query and class, the best first; stuff is left out of them.

    A pair scores its class's probability times the mean mask probability over the pixels of the mask. ``isthing`` is by
    class id; ids beyond are things.
    """
    odds = class_odds(logits)[:, :-1]
    best = np.argsort(-odds, axis=None, kind="stable")[:top]
    things = np.ones(odds.shape[1], bool)
    things[: len(isthing)] = isthing[: len(things)]
    queries, class_ids = np.divmod(best[things[best % odds.shape[1]]], odds.shape[1])
    used, row_of = np.unique(queries, return_inverse=True)
    big = stretched(masks[used], size)
    inside = big > 0
    quality = (sigmoid(big) * inside).sum(axis=(1, 2)) / (inside.sum(axis=(1, 2)) + 1e-6)
    return inside[row_of], odds[queries, class_ids] * quality[row_of], class_ids


def panoptic_map(
    weighted: Array,
    masks: Array,
    scores: Array,
    class_ids: Array,
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
    refuse_nan(scores)
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


def instances(masks: Array, scores: Array, class_ids: Array, geometry: Geometry, threshold: float) -> Detections:
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
    refuse_nan(scores)
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
