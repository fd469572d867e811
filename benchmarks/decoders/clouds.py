"""Point clouds: rotated suppression and rotated overlap against polygon clipping in plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.decoders.rows import BATCH, GEOMETRY, Case, row

Point = tuple[float, float]


def scenes(objects: int, around: int) -> np.ndarray:
    """(8, objects * around, 9) rows: boxes of three classes near every object, as an anchor head gives them."""
    rng = np.random.default_rng(0)
    rows = np.zeros((BATCH, objects, around, 9), np.float32)
    rows[..., :2] = rng.uniform(-60, 60, (BATCH, objects, 1, 2)) + rng.normal(0, 0.3, (BATCH, objects, around, 2))
    rows[..., 3:6] = [3.9, 1.6, 1.56] * rng.uniform(0.8, 1.2, (BATCH, objects, around, 3))
    rows[..., 6] = rng.uniform(-3, 3, (BATCH, objects, 1)) + rng.normal(0, 0.1, (BATCH, objects, around))
    rows[..., 7] = rng.integers(0, 3, (BATCH, objects, around))
    rows[..., 8] = rng.uniform(0.1, 1, (BATCH, objects, around))
    return rows.reshape(BATCH, -1, 9)


def outline(x: float, y: float, dx: float, dy: float, yaw: float) -> list[Point]:
    """Corners counter-clockwise."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
    return [(x + a * dx / 2 * cos - b * dy / 2 * sin, y + a * dx / 2 * sin + b * dy / 2 * cos) for a, b in signs]


def overlap(a: list[float], b: list[float]) -> float:
    """IoU by clipping the one outline at each side of the other (Sutherland and Hodgman)."""
    polygon, sides = outline(*a), outline(*b)
    for (x1, y1), (x2, y2) in zip(sides, sides[1:] + sides[:1], strict=True):
        clipped: list[Point] = []
        for i, (px, py) in enumerate(polygon):
            qx, qy = polygon[i - 1]
            here = (x2 - x1) * (py - y1) - (y2 - y1) * (px - x1)
            before = (x2 - x1) * (qy - y1) - (y2 - y1) * (qx - x1)
            if (here >= 0) != (before >= 0):
                t = before / (before - here)
                clipped.append((qx + t * (px - qx), qy + t * (py - qy)))
            if here >= 0:
                clipped.append((px, py))
        polygon = clipped
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    shared = abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2
    return shared / max(a[2] * a[3] + b[2] * b[3] - shared, 1e-6)


@row("pointpillars (1,200 rows, rotated NMS)", "pointpillars")
def pointpillars() -> Case:
    """Threshold, order, suppression across classes from an IoU of 0.01."""
    from nvidia_tao_deploy.predictions.cloud_boxes import decode_cloud_boxes

    rows, counts = scenes(60, 20), np.full(BATCH, 1200)

    def ours() -> list[Any]:
        return decode_cloud_boxes(
            rows, counts, [GEOMETRY] * BATCH, classes=3, score_threshold=0.1, iou_threshold=0.01, before_nms=4096,
            after_nms=500,
        )  # fmt: skip

    def plain() -> list[Any]:
        found = []
        for table in rows[:1].tolist():
            kept: list[list[float]] = []
            for x, y, z, dx, dy, dz, yaw, label, score in sorted(table, key=lambda r: -r[8]):
                if score >= 0.1 and all(overlap([x, y, dx, dy, yaw], k[:5]) < 0.01 for k in kept) and len(kept) < 500:
                    kept.append([x, y, dx, dy, yaw, z, dz, label, score])
            found.append(kept)
        return found

    return Case(ours, plain, 1 / BATCH)


@row("rotated IoU (8 x 300 x 100)", "pointpillars")
def rotated_overlap() -> Case:
    """The matrix that 3D average precision is made of."""
    from nvidia_tao_deploy.predictions.rotated import rotated_iou

    rows = scenes(20, 20)[:, :, [0, 1, 3, 4, 6]].astype(np.float64)
    rows[:, :, :2] /= 10

    def plain() -> list[Any]:
        pairs = [(table[:300].tolist(), table[300:].tolist()) for table in rows[:1]]
        return [np.array([[overlap(a, b) for b in others] for a in ones]) for ones, others in pairs]

    return Case(lambda: [rotated_iou(table[:300], table[300:]) for table in rows], plain, 1 / BATCH)
