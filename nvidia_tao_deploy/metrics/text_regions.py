"""Text detection by the ICDAR protocol: precision, recall and F-measure over polygon IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nvidia_tao_deploy.arrays import Array, Bools
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text_regions import TextTruth
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.predictions.polygons import TextRegions, require_polygon_libraries

IOU_THRESHOLD = 0.5
IGNORED_SHARE = 0.5


class Matches(NamedTuple):
    """Counts of one image: regions that count, detections that count, and pairs of them."""

    truths: int
    detections: int
    matched: int


def match_regions(truths: Sequence[Array], ignored: Bools, detections: Sequence[Array]) -> Matches:
    """Match annotated polygons (K, 2), some of them ``ignored``, with those detected in one image, as ICDAR 2015 does.

    Invalid polygons are dropped. A detection counts neither way when more than half of it lies in one ignored
    region. Each counting region, in order, takes the first free counting detection with an IoU over 0.5.
    """
    import shapely

    truth_shapes, kept = _valid(truths)
    found, _ = _valid(detections)
    skip = np.asarray(ignored, bool)[kept]
    shared = shapely.area(shapely.intersection(truth_shapes[:, None], found[None, :]))
    truth_areas, areas = shapely.area(truth_shapes), shapely.area(found)
    neutral = (shared[skip] / areas > IGNORED_SHARE).any(axis=0)
    overlap = shared / (truth_areas[:, None] + areas - shared) > IOU_THRESHOLD
    free = ~neutral
    matched = 0
    for row in overlap[~skip]:
        first = np.flatnonzero(row & free)
        if len(first):
            free[first[0]] = False
            matched += 1
    return Matches(int((~skip).sum()), int((~neutral).sum()), matched)


def _valid(polygons: Sequence[Array]) -> tuple[Array, list[int]]:
    import shapely

    shapes = np.empty(len(polygons), object)
    for number, points in enumerate(polygons):
        shapes[number] = shapely.Polygon(points)
    good = shapely.is_valid(shapes) & shapely.is_simple(shapes) & (shapely.area(shapes) > 0)
    return shapes[good], np.flatnonzero(good).tolist()


class RegionMetric:
    """Precision, recall and F-measure over all images, in network pixels, of detections that score ``box_threshold``.

    Keys: ``Precision``, ``Recall``, ``F-measure`` = 2PR / (P + R + 1e-8); 0 where nothing counts.
    RuntimeUnavailableError where shapely is not installed.
    """

    def __init__(self, box_threshold: float) -> None:
        require_polygon_libraries()
        self._least = box_threshold
        self._found: list[Matches] = []

    def update(self, sample: Sample, prediction: TextRegions) -> None:
        """Take one image; its target is a :class:`TextTruth` in source pixels."""
        truth: TextTruth = sample.target
        scale = np.array(prediction.geometry.scale)
        truths = [np.trunc(points * scale) for points in truth.polygons]
        pairs = zip(prediction.on_network(), prediction.scores, strict=True)
        self._found.append(match_regions(truths, truth.ignored, [p for p, score in pairs if score >= self._least]))

    def compute(self) -> dict[str, float]:
        """Shares in [0, 1]; DataError where no image was evaluated."""
        truths, detections, matched = self._totals()
        recall = matched / truths if truths else 0.0
        precision = matched / detections if detections else 0.0
        return {
            "Precision": precision,
            "Recall": recall,
            "F-measure": 2 * precision * recall / (precision + recall + 1e-8),
        }

    def report(self) -> str:
        """The three shares and what they were counted from."""
        truths, detections, matched = self._totals()
        lines = [f"{key}: {value:.4f}" for key, value in self.compute().items()]
        return "\n".join([*lines, f"{matched} of {truths} regions found by {detections} detections"])

    def _totals(self) -> Matches:
        if not self._found:
            raise DataError("no image was evaluated")
        truths, detections, matched = np.sum(self._found, axis=0).tolist()
        return Matches(truths, detections, matched)
