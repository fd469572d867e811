"""Overlap of rotated rectangles, and greedy suppression by it, in numpy alone.

A rectangle is a row x, y, dx, dy, yaw: centre, sizes along its own axes, angle counter-clockwise from x in radians.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nvidia_tao_deploy.arrays import Array, Bools, Floats, Ints
from nvidia_tao_deploy.predictions.nms import greedy

LEAST_UNION = 1e-6
_UNIT = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
_PAIRS_AT_ONCE = 1 << 13  # what the caches hold
_TINY = 1e-100


def corners(rectangles: Array) -> Floats:
    """(N, 4, 2) corners counter-clockwise, from front left, of (N, 5) rectangles."""
    rectangles = np.asarray(rectangles, np.float64)
    local = _UNIT * rectangles[:, None, 2:4]
    cos, sin = np.cos(rectangles[:, 4:]), np.sin(rectangles[:, 4:])
    x, y = local[..., 0], local[..., 1]
    return np.asarray(np.stack([x * cos - y * sin, x * sin + y * cos], -1) + rectangles[:, None, :2])


def rotated_intersection(rectangles_a: Array, rectangles_b: Array) -> Floats:
    """(N, M) intersection areas of (N, 5) and (M, 5) rectangles."""
    a, b = np.asarray(rectangles_a, np.float64), np.asarray(rectangles_b, np.float64)
    outlines, others = corners(a), corners(b)
    low_a, high_a, low_b, high_b = outlines.min(1), outlines.max(1), others.min(1), others.max(1)
    near = np.ones((len(a), len(b)), bool)
    for axis in (0, 1):
        near &= low_a[:, None, axis] < high_b[:, axis]
        near &= low_b[:, axis] < high_a[:, None, axis]
    areas = np.zeros(near.shape)
    rows, columns = near.nonzero()
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        row, column = rows[start : start + _PAIRS_AT_ONCE], columns[start : start + _PAIRS_AT_ONCE]
        areas[row, column] = _shared_area(outlines[row], b[column])
    return areas


def _shared_area(outlines: Floats, rectangles: Floats) -> Floats:
    """(K,) areas that outlines (K, 4, 2) share with rectangles (K, 5).

    In the rectangle's frame every point is moved to the nearest one of the rectangle (clamped). That map leaves the
    rectangle as it is, so the moved outline winds once around the points of the intersection and not around any other:
    its area, the integral of x dy along it, is the intersection's. Continuous where sides coincide.
    """
    cos, sin = np.cos(rectangles[:, 4:]), np.sin(rectangles[:, 4:])
    x, y = outlines[..., 0] - rectangles[:, :1], outlines[..., 1] - rectangles[:, 1:2]
    x, y = x * cos + y * sin, y * cos - x * sin
    half_x, half_y = rectangles[:, 2:3] / 2, rectangles[:, 3:4] / 2
    step_x, step_y = x[:, [1, 2, 3, 0]] - x, y[:, [1, 2, 3, 0]] - y
    # Along an edge, y moves between the crossings of the lines y = -half and half only, x likewise.
    first_y, last_y = _crossings(y, step_y, half_y, 0.0, 1.0)
    first_x, last_x = _crossings(x, step_x, half_x, first_y, last_y)
    total = np.zeros_like(x)
    at, there = first_y, _clamped(x + first_y * step_x, half_x)
    for then in (first_x, last_x, last_y):
        onward = _clamped(x + then * step_x, half_x)
        total += (there + onward) * (then - at)
        at, there = then, onward
    return np.asarray(np.maximum((total * step_y).sum(1) / 2, 0))


def _crossings(start: Floats, step: Floats, half: Floats, low: Any, high: Any) -> tuple[Floats, Floats]:
    """Where in [low, high] edges meet the lines at -half and half, in order."""
    step = np.where(np.abs(step) < _TINY, _TINY, step)
    one, other = (half - start) / step, (-half - start) / step
    first, last = np.minimum(one, other), np.maximum(one, other)
    return np.minimum(np.maximum(first, low), high), np.minimum(np.maximum(last, low), high)


def _clamped(values: Floats, half: Floats) -> Floats:
    return np.asarray(np.minimum(np.maximum(values, -half), half))


def rotated_iou(rectangles_a: Array, rectangles_b: Array) -> Floats:
    """(N, M) intersection over union of (N, 5) and (M, 5) rectangles."""
    shared = rotated_intersection(rectangles_a, rectangles_b)
    area_a, area_b = (np.asarray(r[:, 2] * r[:, 3], np.float64) for r in (rectangles_a, rectangles_b))
    return np.asarray(shared / np.maximum(area_a[:, None] + area_b - shared, LEAST_UNION))


def rotated_nms(rectangles: Array, iou_threshold: float, limit: int) -> Ints:
    """Greedy suppression: keep the first, drop every later one with IoU >= ``iou_threshold``, repeat.

    Returns (K,) ascending indices, at most ``limit``, of ``rectangles`` (N, 5), best first.
    """

    def clash(a: Ints, b: Ints) -> Bools:
        return rotated_iou(rectangles[a], rectangles[b]) >= iou_threshold

    return greedy(np.arange(len(rectangles)), clash, limit)
