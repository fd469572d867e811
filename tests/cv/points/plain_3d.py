"""Overlap, suppression and average precision of cuboids, written as their definitions, with shapely for polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from shapely.geometry import Polygon


def polygon(box: Sequence[float]) -> Polygon:
    """The outline from above of x, y, z, dx, dy, dz, yaw."""
    x, y, _, dx, dy, _, yaw = box
    cos, sin = math.cos(yaw), math.sin(yaw)
    signs = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    return Polygon(
        [(x + a * dx / 2 * cos - b * dy / 2 * sin, y + a * dx / 2 * sin + b * dy / 2 * cos) for a, b in signs]
    )


def bev(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU from above."""
    shared = polygon(a).intersection(polygon(b)).area
    return shared / max(a[3] * a[4] + b[3] * b[4] - shared, 1e-6)


def space(a: Sequence[float], b: Sequence[float], *, z_is_top: bool = False) -> float:
    """IoU in space."""
    tops = [box[2] + (0 if z_is_top else box[5] / 2) for box in (a, b)]
    height = max(min(tops) - max(top - box[5] for top, box in zip(tops, (a, b), strict=True)), 0)
    shared = polygon(a).intersection(polygon(b)).area * height
    return shared / (math.prod(a[3:6]) + math.prod(b[3:6]) - shared)


def decode(rows: np.ndarray, score: float, iou: float, before: int, after: int) -> list[tuple[float, ...]]:
    """Kept rows x..yaw, class, score."""
    table = sorted((tuple(row) for row in rows.tolist() if row[8] >= score), key=lambda r: (-r[8], r[:8]))[:before]
    kept: list[tuple[float, ...]] = []
    for row in table:
        if len(kept) < after and all(bev(k[:7], row[:7]) < iou for k in kept):
            kept.append(row)
    return kept


Frame = tuple[list[tuple[list[float], int]], list[tuple[list[float], int, float]]]  # truth, detections


def average_precision(frames: Sequence[Frame], class_id: int, overlap) -> float:
    """R11 in percent."""
    right: list[float] = []
    objects = 0
    for truth, found in frames:
        mine = [(box, score) for box, label, score in found if label == class_id]
        used = [False] * len(mine)
        for box, label in truth:
            if label != class_id:
                continue
            objects += 1
            best = None
            for i, (other, score) in enumerate(mine):
                if not used[i] and overlap(other, box) > 0.5 and (best is None or score > mine[best][1]):
                    best = i
            if best is not None:
                used[best] = True
                right.append(mine[best][1])
    right.sort(reverse=True)
    thresholds, current = [], 0.0
    for i, score in enumerate(right):
        last = i == len(right) - 1
        left, ahead = (i + 1) / objects, (i + 1) / objects if last else (i + 2) / objects
        if ahead - current < current - left and not last:
            continue
        thresholds.append(score)
        current += 1 / 40
    precisions = [0.0] * 41
    for number, threshold in enumerate(thresholds):
        hits = false = 0
        for truth, found in frames:
            mine = [box for box, label, score in found if label == class_id and score >= threshold]
            used = [False] * len(mine)
            for box, label in truth:
                if label != class_id:
                    continue
                best, most = None, 0.5
                for i, other in enumerate(mine):
                    value = overlap(other, box)
                    if not used[i] and value > most:
                        best, most = i, value
                if best is not None:
                    used[best] = True
                    hits += 1
            false += used.count(False)
        precisions[number] = hits / (hits + false)
    for number in reversed(range(40)):
        precisions[number] = max(precisions[number], precisions[number + 1])
    return sum(precisions[::4]) / 11 * 100
