"""Overlap of rotated rectangles, and greedy suppression by it, in numpy alone.

A rectangle is a row x, y, dx, dy, yaw: centre, sizes along its own axes, angle counter-clockwise from x in radians.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_UNION = 1e-6
_UNIT = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
_PAIRS_AT_ONCE = 1 << 15  # some 25 MB


def corners(rectangles: NDArray[Any]) -> NDArray[np.float64]:
    """(N, 4, 2) corners counter-clockwise, from front left, of (N, 5) rectangles."""
    rectangles = np.asarray(rectangles, np.float64)
    local = _UNIT * rectangles[:, None, 2:4]
    cos, sin = np.cos(rectangles[:, 4:]), np.sin(rectangles[:, 4:])
    x, y = local[..., 0], local[..., 1]
    return np.asarray(np.stack([x * cos - y * sin, x * sin + y * cos], -1) + rectangles[:, None, :2])


def rotated_intersection(rectangles_a: NDArray[Any], rectangles_b: NDArray[Any]) -> NDArray[np.float64]:
    """(N, M) intersection areas of (N, 5) and (M, 5) rectangles."""
    a, b = np.asarray(rectangles_a, np.float64), np.asarray(rectangles_b, np.float64)
    outline_a, outline_b = corners(a), corners(b)
    low_a, high_a, low_b, high_b = outline_a.min(1), outline_a.max(1), outline_b.min(1), outline_b.max(1)
    near = ((low_a[:, None] < high_b) & (low_b < high_a[:, None])).all(2)
    areas = np.zeros(near.shape)
    rows, columns = near.nonzero()
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        row, column = rows[start : start + _PAIRS_AT_ONCE], columns[start : start + _PAIRS_AT_ONCE]
        areas[row, column] = _shared_area(outline_a[row], b[column])
    return areas


def _shared_area(outlines: NDArray[np.float64], rectangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) areas that outlines (K, 4, 2) share with rectangles (K, 5).

    In the rectangle's frame every point is moved to the nearest one of the rectangle (clamped). That map leaves the
    rectangle as it is, so the moved outline winds once around the points of the intersection and not around any other:
    its signed area is the intersection's. No case distinctions, and continuous where sides coincide.
    """
    cos, sin = np.cos(rectangles[:, None, 4]), np.sin(rectangles[:, None, 4])
    x, y = np.moveaxis(outlines - rectangles[:, None, :2], 2, 0)
    start = np.stack([x * cos + y * sin, y * cos - x * sin], -1)  # (K, 4, 2)
    step = np.roll(start, -1, 1) - start
    half = rectangles[:, None, 2:4] / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.concatenate([(half - start) / step, (-half - start) / step], -1)  # where an edge meets the four lines
    at = np.sort(np.clip(np.nan_to_num(at), 0, 1), -1)
    at = np.concatenate([np.zeros_like(at[..., :1]), at], -1)[..., None]
    path = np.clip(start[:, :, None] + at * step[:, :, None], -half[:, :, None], half[:, :, None]).reshape(
        len(outlines), -1, 2
    )
    after = np.roll(path, -1, 1)
    turned = path[..., 0] * after[..., 1] - after[..., 0] * path[..., 1]
    return np.asarray(np.maximum(turned.sum(1) / 2, 0))


def rotated_iou(rectangles_a: NDArray[Any], rectangles_b: NDArray[Any]) -> NDArray[np.float64]:
    """(N, M) intersection over union of (N, 5) and (M, 5) rectangles."""
    shared = rotated_intersection(rectangles_a, rectangles_b)
    area_a, area_b = (np.prod(np.asarray(r, np.float64)[:, 2:4], axis=1) for r in (rectangles_a, rectangles_b))
    return np.asarray(shared / np.maximum(area_a[:, None] + area_b - shared, LEAST_UNION))


def rotated_nms(rectangles: NDArray[Any], iou_threshold: float, limit: int) -> NDArray[np.int64]:
    """Greedy suppression: keep the first, drop every later one with IoU >= ``iou_threshold``, repeat.

    Args:
        rectangles: (N, 5), best first.
        iou_threshold: in [0, 1].
        limit: keep at most so many.

    Returns:
        (K,) kept indices, ascending.
    """
    left = np.arange(len(rectangles))
    kept: list[np.int64] = []
    while len(left) and len(kept) < limit:
        kept.append(left[0])
        overlap = rotated_iou(rectangles[left[:1]], rectangles[left[1:]])[0]
        left = left[1:][overlap < iou_threshold]
    return np.array(kept, np.int64)
