"""Density clustering of weighted boxes (detectnet_v2)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Bools, Ints
from nvidia_tao_deploy.predictions.nms import box_area, intersection_matrix

NOISE = -1
# Bounds the distance matrix held at a time: 256 rows against every box that can touch them.
_BLOCK_ROWS = 256


def overlap_distance(boxes_a: NDArray[np.float32], boxes_b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, M) float32: 1 - intersection / (union + 0.01), the detectnet_v2 contract's distance."""
    intersection = intersection_matrix(boxes_a, boxes_b)
    union = box_area(boxes_a)[:, None] + box_area(boxes_b)[None, :] - intersection
    return np.asarray(np.float32(1) - intersection / (union + np.float32(0.01)), dtype=np.float32)


def weighted_dbscan(boxes_xyxy: Array, weights: Array, eps: float, min_samples: float) -> Ints:
    """DBSCAN with sample weights over :func:`overlap_distance`; the full distance matrix is never held.

    A point is core if the weights within ``eps`` of it, its own included, sum to ``min_samples``. Clusters are
    the connected core points, numbered by their smallest index; any other point joins the lowest-numbered cluster
    with a core point within ``eps``, or is noise.

    Args:
        boxes_xyxy: (N, 4), taken as float32.
        weights: (N,), not negative.
        eps: largest distance between neighbours; compared as float32, the type spec files hold, plus 1e-12.
        min_samples: smallest sum of weights around a core point.

    Returns:
        (N,) cluster numbers from 0; -1 is noise.
    """
    boxes = np.ascontiguousarray(boxes_xyxy, dtype=np.float32)
    mass = np.asarray(weights, dtype=np.float64)
    reach = float(np.float32(eps)) + 1e-12
    everyone = np.arange(len(boxes))
    density = np.zeros(len(boxes))
    for rows, columns, near in _neighbours(boxes, everyone, everyone, reach):
        density[rows] = near @ mass[columns]
    # A sum that equals min_samples in exact arithmetic must not miss it by the order of additions.
    core = density >= min_samples * (1.0 - 1e-12)

    labels = np.full(len(boxes), NOISE, np.int64)
    waiting = core.copy()
    cluster = 0
    for seed in np.flatnonzero(core):
        if not waiting[seed]:
            continue
        front = np.array([seed])
        waiting[seed] = False
        while len(front):
            labels[front] = cluster
            reached = [c[near.any(axis=0)] for _, c, near in _neighbours(boxes, front, np.flatnonzero(waiting), reach)]
            front = np.unique(np.concatenate(reached)) if reached else front[:0]
            waiting[front] = False
        cluster += 1

    core_points, others = np.flatnonzero(core), np.flatnonzero(~core)
    for rows, columns, near in _neighbours(boxes, others, core_points, reach):
        lowest = np.where(near, labels[columns][None, :], cluster).min(axis=1, initial=cluster)
        labels[rows] = np.where(lowest < cluster, lowest, NOISE)
    return labels


def _neighbours(
    boxes: NDArray[np.float32], rows: Ints, columns: Ints, reach: float
) -> Iterator[tuple[Ints, Ints, Bools]]:
    """(row indices, column indices, near (R, C) bool) in blocks of rows.

    Cells come in grid order, so a block of rows is a small part of the image and few columns can touch it. At
    ``reach`` >= 1 boxes that do not touch are neighbours too, and no column can be left out.
    """
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        near_columns = columns
        if reach < 1.0:
            low, high = boxes[block, :2].min(axis=0), boxes[block, 2:].max(axis=0)
            touching = (boxes[columns, :2] < high).all(axis=1) & (boxes[columns, 2:] > low).all(axis=1)
            near_columns = columns[touching]
        if len(near_columns):
            yield block, near_columns, overlap_distance(boxes[block], boxes[near_columns]) <= reach
