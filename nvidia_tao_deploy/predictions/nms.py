"""Overlap of boxes, and greedy non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Bools, Ints

BLOCK = 64  # boxes that are compared with each other, then with the rest


def box_area(boxes_xyxy: Array, offset: float = 0.0) -> Array:
    """(N,) areas of (N, 4) boxes; ``offset`` is added to width and height."""
    width, height = boxes_xyxy[:, 2] - boxes_xyxy[:, 0], boxes_xyxy[:, 3] - boxes_xyxy[:, 1]
    return np.asarray((width + offset) * (height + offset))


def intersection_matrix(boxes_a: Array, boxes_b: Array, offset: float = 0.0) -> Array:
    """(N, M) intersection areas of (N, 4) and (M, 4) corner boxes."""
    width = np.minimum(boxes_a[:, None, 2], boxes_b[None, :, 2]) - np.maximum(boxes_a[:, None, 0], boxes_b[None, :, 0])
    height = np.minimum(boxes_a[:, None, 3], boxes_b[None, :, 3]) - np.maximum(boxes_a[:, None, 1], boxes_b[None, :, 1])
    return np.asarray(np.maximum(width + offset, 0) * np.maximum(height + offset, 0))


def iou_matrix(boxes_a: Array, boxes_b: Array, offset: float = 0.0) -> Array:
    """Intersection over union, (N, M) in the boxes' dtype; 0 where the union is empty.

    Args:
        boxes_a: (N, 4) x1, y1, x2, y2.
        boxes_b: (M, 4), same units.
        offset: added to every width and height (1 for the pixel-inclusive convention).
    """
    intersection = intersection_matrix(boxes_a, boxes_b, offset)
    union = box_area(boxes_a, offset)[:, None] + box_area(boxes_b, offset)[None, :] - intersection
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0))


def nms(boxes_xyxy: Array, scores: Array, iou_threshold: float, offset: float = 0.0) -> Ints:
    """Greedy suppression: keep the best box, drop every later one with IoU > ``iou_threshold``, repeat.

    Args:
        boxes_xyxy: (N, 4).
        scores: (N,); equal scores are taken lowest index first.
        iou_threshold: in [0, 1]; strictly greater overlap suppresses.
        offset: see :func:`iou_matrix`.

    Returns:
        (K,) kept indices, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    return greedy(order, lambda a, b: iou_matrix(boxes_xyxy[a], boxes_xyxy[b], offset) > iou_threshold)


def greedy(order: Ints, clash: Callable[[Ints, Ints], Bools], limit: int | None = None) -> Ints:
    """Keep the first, drop every later one it clashes with, repeat; (K,) kept, at most ``limit``.

    Args:
        order: (N,) candidates, best first.
        clash: indices (N,) and (M,) -> (N, M).
        limit: None: all.
    """
    kept: list[int] = []
    while len(order) and (limit is None or len(kept) < limit):
        block, order = order[:BLOCK], order[BLOCK:]
        clashes, free = clash(block, block), np.ones(len(block), bool)
        for row in range(len(block)):
            if free[row]:
                free[row + 1 :] &= ~clashes[row, row + 1 :]
        kept += block[free].tolist()
        if len(order):
            order = order[~clash(block[free], order).any(axis=0)]
    return np.array(kept[:limit], np.int64)


def soft_nms(
    boxes_xyxy: Array, scores: Array, sigma: float, threshold: float, offset: float = 0.0
) -> tuple[Ints, NDArray[np.float64]]:
    """Gaussian soft suppression: take the best box, multiply the others' scores by exp(-IoU^2 / sigma), repeat.

    Args:
        boxes_xyxy: (N, 4).
        scores: (N,); equal scores are taken lowest index first.
        sigma: of the decay.
        threshold: boxes whose score falls below it are dropped.
        offset: see :func:`iou_matrix`.

    Returns:
        (K,) indices in the order they were taken, and their decayed scores.
    """
    decay = list(np.exp(-(iou_matrix(boxes_xyxy, boxes_xyxy, offset) ** 2) / sigma))
    left = scores.astype(np.float64)
    kept, decayed = [], []
    while len(left) and (score := left[best := left.argmax()]) >= threshold:
        kept.append(best)
        decayed.append(score)
        left *= decay[best]
        left[best] = -np.inf
    return np.array(kept, dtype=np.int64), np.array(decayed, dtype=np.float64)
