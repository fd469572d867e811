"""Detections of both exported forms: the anchor grid, and boxes that a suppression in the graph has chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.predictions.nms import nms
from nvidia_tao_deploy.predictions.types import Detections
from nvidia_tao_deploy.transforms.transform import Geometry

# What Custom Vision's samples for exports document: anchors (width, height) in cells, and the suppression.
ANCHORS = np.array([[0.573, 0.677], [1.87, 2.06], [3.34, 5.47], [7.88, 3.53], [9.77, 9.17]])
LEAST_SCORE, IOU_THRESHOLD, MAX_DETECTIONS = 0.01, 0.45, 64


def decode_grid(output: NDArray[Any], geometries: Sequence[Geometry]) -> list[Detections]:
    """The anchor grid (B, 5 * (5 + C), H, W): per cell and anchor x, y, w, h, objectness, C class logits.

    Centre (cell + sigmoid(x, y)) / (W, H), size exp(w, h) * anchor / (W, H) in shares of the input; score = sigmoid
    (objectness) * softmax(classes), of the best class. Scores over 0.01, suppressed over IoU 0.45 whatever the class,
    the best 64. The boxes are cut at the image after that.
    """
    count, _, height, width = output.shape
    raw = output.astype(np.float64).reshape(count, len(ANCHORS), -1, height, width).transpose(0, 3, 4, 1, 2)
    cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)[:, :, None]
    with np.errstate(over="ignore"):  # an endless box is cut at the image
        halves = np.exp(raw[..., 2:4]) * ANCHORS / (width, height) / 2
        inside = 1 / (1 + np.exp(-raw[..., [0, 1, 4]]))
    centres, objectness = (inside[..., :2] + cells) / (width, height), inside[..., 2:]
    odds = np.exp(raw[..., 5:] - raw[..., 5:].max(axis=-1, keepdims=True))
    scores = odds / odds.sum(axis=-1, keepdims=True) * objectness
    boxes = np.concatenate([centres - halves, centres + halves], axis=-1).reshape(count, -1, 4)
    scores = scores.reshape(count, boxes.shape[1], -1)
    found = []
    for rows, all_scores, geometry in zip(boxes, scores, geometries, strict=False):
        classes = all_scores.argmax(axis=1)
        best = all_scores.max(axis=1)
        kept = np.flatnonzero(best > LEAST_SCORE)
        kept = kept[nms(rows[kept], best[kept], IOU_THRESHOLD)[:MAX_DETECTIONS]]
        found.append(_placed(rows[kept], best[kept], classes[kept], geometry))
    return found


def decode_boxes(
    boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any], geometries: Sequence[Geometry]
) -> list[Detections]:
    """Boxes (B, N, 4) x1, y1, x2, y2 in shares of the input, scores and classes (B, N): those over 0.01, best first."""
    found = []
    for rows, row_scores, row_classes, geometry in zip(boxes, scores, classes, geometries, strict=False):
        kept = np.argsort(-row_scores.astype(np.float64), kind="stable")
        kept = kept[row_scores[kept] > LEAST_SCORE]
        placed = _placed(rows[kept].astype(np.float64), row_scores[kept], row_classes[kept], geometry)
        found.append(placed)
    return found


def _placed(rows: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any], geometry: Geometry) -> Detections:
    """Shares of the input to source pixels, cut at the image."""
    placed = geometry.to_source(rows * (geometry.network_size * 2))
    limits = np.array(geometry.source_size * 2, np.float64)
    return Detections(placed.clip(0, limits), scores.astype(np.float64), classes.astype(np.int64))
