"""From coverage and offset grids to boxes: threshold, cluster, map to the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Bools, Ints
from nvidia_tao_deploy.cv.detectnet_v2.spec import Clustering
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.kitti_detection import PlacedDetections
from nvidia_tao_deploy.predictions.checks import refuse_nan
from nvidia_tao_deploy.predictions.cluster import NOISE, weighted_dbscan
from nvidia_tao_deploy.predictions.nms import nms
from nvidia_tao_deploy.transforms.transform import Geometry


@dataclass(frozen=True)
class Candidates:
    """Boxes (N, 4) float32 in network pixels, and their coverage (N,) float32."""

    boxes: NDArray[np.float32]
    scores: Array

    def __getitem__(self, index: Array) -> Candidates:
        return Candidates(self.boxes[index], self.scores[index])


def decode(
    coverage: Array,
    offsets: Array,
    geometries: Sequence[Geometry],
    classes: Sequence[Clustering],
    *,
    scale: float = 35.0,
    offset: float = 0.5,
) -> list[PlacedDetections]:
    """Decode one batch.

    Args:
        coverage: (B, C, h, w) in [0, 1].
        offsets: (B, 4C, h, w): per class left, top, right, bottom distances from the cell's centre, over ``scale``.
        geometries: how each of the first ``len(geometries)`` images was placed; gives stride and source size.
        classes: C clustering settings, in target-class order.
        scale: ``objective_set.bbox.scale``, network pixels.
        offset: ``objective_set.bbox.offset``, the cell centre's distance from its corner, network pixels.

    Returns:
        Per image: boxes in source pixels, target-class order, then descending score; ``class_ids`` start at 1.
        With DBSCAN a score is a sum of coverage and can exceed 1.

    Raises:
        ModelError: the outputs' shapes do not fit each other or ``classes``, or hold NaN.
    """
    batch, channels, rows, columns = coverage.shape
    if channels != len(classes) or offsets.shape != (batch, 4 * channels, rows, columns):
        raise ModelError(
            f"coverage {coverage.shape} and boxes {offsets.shape} do not fit {len(classes)} classes",
            remedy="The number of target classes in the spec must be the model's.",
        )
    count = len(geometries)
    refuse_nan(coverage[:count], offsets[:count])
    # cells column by column, the order in which the contract numbers them
    cells = coverage[:count].astype(np.float32, copy=False).transpose(0, 1, 3, 2)
    cells = cells.reshape(count, channels, rows * columns)
    sides = offsets[:count].astype(np.float32, copy=False).reshape(count, channels, 4, rows, columns)
    sides = sides.transpose(0, 1, 4, 3, 2).reshape(count, channels, rows * columns, 4)
    detections = []
    for image, geometry in enumerate(geometries):
        centers = cell_centers(geometry.network_size, (columns, rows), offset)
        found: list[Candidates] = []
        for channel, settings in enumerate(classes):
            above = cells[image, channel] > np.float32(settings.coverage_threshold)
            boxes = cell_boxes(centers[above], sides[image, channel][above], scale)
            found.append(cluster(Candidates(boxes, cells[image, channel][above]), settings))
        detections.append(_to_source(found, geometry))
    return detections


def cell_centers(network_size: tuple[int, int], grid: tuple[int, int], offset: float) -> NDArray[np.float32]:
    """(columns * rows, 2) x, y of the cells, column by column; the stride is network size / grid size."""
    columns, rows = grid
    x = np.arange(columns, dtype=np.float32) * np.float32(network_size[0] / columns) + np.float32(offset)
    y = np.arange(rows, dtype=np.float32) * np.float32(network_size[1] / rows) + np.float32(offset)
    return np.stack([np.repeat(x, rows), np.tile(y, columns)], axis=1)


def cell_boxes(centers: NDArray[np.float32], sides: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """(N, 4) corners from centres (N, 2) and scaled distances (N, 4) left, top, right, bottom."""
    distances = sides * np.float32(scale)
    return np.concatenate([centers - distances[:, :2], centers + distances[:, 2:]], axis=1)


def cluster(candidates: Candidates, settings: Clustering) -> Candidates:
    """The boxes of one class in one image by descending score (stable)."""
    if settings.clustering_algorithm == "NMS":
        merged = _nms(candidates, settings)
    else:
        labels = weighted_dbscan(
            candidates.boxes, candidates.scores, settings.dbscan_eps, max(int(settings.dbscan_min_samples), 1)
        )
        means = _weighted_means(candidates, labels)
        kept = _tall(means, settings) & (means.scores >= settings.dbscan_confidence_threshold)
        if settings.clustering_algorithm == "HYBRID":
            merged = _nms(candidates[np.isin(labels, np.flatnonzero(kept))], settings)
        else:
            merged = means[kept]
    return merged[np.argsort(-merged.scores, kind="stable")]


def _weighted_means(candidates: Candidates, labels: Ints) -> Candidates:
    """Per cluster: the coverage-weighted mean box, and the sum of coverage."""
    members = labels != NOISE
    clusters = int(labels.max(initial=NOISE)) + 1
    labels, weights = labels[members], candidates.scores[members].astype(np.float64)
    total = np.bincount(labels, weights, clusters)
    boxes = (
        np.stack([np.bincount(labels, weights * edge, clusters) for edge in candidates.boxes[members].T], axis=1)
        / np.maximum(total, np.finfo(np.float64).tiny)[:, None]
    )
    return Candidates(boxes, total)


def _nms(candidates: Candidates, settings: Clustering) -> Candidates:
    candidates = candidates[candidates.scores > (settings.nms_confidence_threshold or 0.1)]
    # whole pixels, both ends included: widths and heights count one more
    kept = candidates[nms(candidates.boxes, candidates.scores, settings.nms_iou_threshold or 0.3, offset=1.0)]
    return kept[_tall(kept, settings)]


def _tall(candidates: Candidates, settings: Clustering) -> Bools:
    height = candidates.boxes[:, 3] - candidates.boxes[:, 1]
    return np.asarray(height > settings.minimum_bounding_box_height)


def _to_source(found: Sequence[Candidates], geometry: Geometry) -> PlacedDetections:
    """Clip to the canvas, map to source pixels, number classes from 1."""
    boxes = np.concatenate([candidates.boxes for candidates in found]).astype(np.float64)
    width, height = geometry.network_size
    low = np.clip(boxes[:, :2], 0.0, (width, height))
    high = np.maximum(np.minimum(boxes[:, 2:], (width, height)), low)
    return PlacedDetections(
        boxes_xyxy=geometry.to_source(np.concatenate([low, high], axis=1)),
        scores=np.concatenate([candidates.scores for candidates in found]).astype(np.float64),
        class_ids=np.repeat(np.arange(1, len(found) + 1), [len(candidates.scores) for candidates in found]),
        geometry=geometry,
    )
