"""Text regions from a probability map (differentiable binarization): contours, scores, and the way back out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Floats, Ints
from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.transforms.transform import Geometry

MIN_SIDE = 3
ARC_TOLERANCE = 0.25
APPROXIMATION = 1e-4  # of the contour's length


@dataclass(frozen=True)
class TextRegions:
    """Where text stands in one image.

    Attributes:
        polygons: (K, 2) float64 corners each, network pixels, neither rounded nor clipped; quads run from the top
            left clockwise.
        scores: (N,) float64 mean probability inside.
        geometry: how the image lies on the network's canvas.
        probability: (h, w) uint8, the map x 255; None where nobody draws it.
    """

    polygons: Sequence[Floats]
    scores: Floats
    geometry: Geometry
    probability: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def on_network(self) -> list[Ints]:
        """Corners in whole network pixels, clipped to the canvas (sides included)."""
        return [_whole(points, self.geometry.network_size) for points in self.polygons]

    def on_source(self) -> list[Ints]:
        """Corners in whole source pixels, rounded once, clipped to the image (sides included)."""
        scale = np.array(self.geometry.scale)
        return [_whole(points / scale, self.geometry.source_size) for points in self.polygons]


def find_regions(
    probability: Array,
    *,
    threshold: float = 0.3,
    box_threshold: float = 0.55,
    max_candidates: int = 1000,
    unclip_ratio: float = 1.5,
    polygons: bool = False,
) -> tuple[list[Floats], Floats]:
    """Contours of ``probability > threshold``, scored, and grown to the text they were shrunk from.

    A region grows by area * unclip_ratio / perimeter (Vatti clipping, round joins), as in "Real-time Scene Text
    Detection with Differentiable Binarization".

    Args:
        probability: (h, w), 0..1.
        threshold: of a text pixel.
        box_threshold: least mean probability inside a region.
        max_candidates: contours that are looked at, in OpenCV's order.
        unclip_ratio: how far regions grow.
        polygons: polygons of any number of corners instead of rectangles.

    Returns:
        Polygons (K, 2) in pixels of the map, and their scores (N,).

    Raises:
        RuntimeUnavailableError: pyclipper or shapely is not installed.
    """
    import cv2

    require_polygon_libraries()
    values = np.ascontiguousarray(probability, np.float32)
    binary = (values > threshold).astype(np.uint8) * 255
    contours, _ = cv2.findContours(binary, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found, scores = [], []
    for contour in contours[:max_candidates]:
        region = (_polygon if polygons else _quad)(values, contour, box_threshold, unclip_ratio)
        if region is not None:
            found.append(region[0])
            scores.append(region[1])
    return found, np.array(scores, np.float64)


def require_polygon_libraries() -> None:
    """Make sure that pyclipper and shapely are there; RuntimeUnavailableError where one is not."""
    for name in ("pyclipper", "shapely"):
        try:
            __import__(name)
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"text regions need the package {name}, which is not installed",
                remedy="pip install pyclipper shapely",
            ) from error


def mini_box(points: Array) -> tuple[Floats, float]:
    """The smallest rectangle around points (K, 2): corners (4, 2) from the top left clockwise, and its short side."""
    import cv2

    rectangle = cv2.minAreaRect(points)
    corners = np.asarray(cv2.boxPoints(rectangle), np.float64)
    a, b, c, d = corners[np.argsort(corners[:, 0], kind="stable")]
    top_left, bottom_left = (a, b) if b[1] > a[1] else (b, a)
    top_right, bottom_right = (c, d) if d[1] > c[1] else (d, c)
    return np.stack([top_left, top_right, bottom_right, bottom_left]), float(min(rectangle[1]))


def score_inside(values: NDArray[np.float32], points: Array) -> float:
    """The mean of ``values`` (h, w) inside a polygon (K, 2) whose corners are cut to whole pixels."""
    import cv2

    height, width = values.shape
    limit = (width - 1, height - 1)
    low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, limit)
    high = np.clip(np.ceil(points.max(axis=0)).astype(int), 0, limit)
    mask = np.zeros((high[1] - low[1] + 1, high[0] - low[0] + 1), np.uint8)
    cv2.fillPoly(mask, [(points - low).astype(np.int32).reshape(1, -1, 2)], 1)  # type: ignore[call-overload]
    return float(cv2.mean(values[low[1] : high[1] + 1, low[0] : high[0] + 1], mask)[0])


def unclip(points: Array, ratio: float) -> list[Ints]:
    """The polygon (K, 2), its corners cut to whole pixels, grown by area * ratio / perimeter: no, one or more paths."""
    import pyclipper
    import shapely

    shape = shapely.Polygon(points)
    if not shape.length:
        return []
    offset = pyclipper.PyclipperOffset(arc_tolerance=ARC_TOLERANCE)
    offset.AddPath(points.astype(np.int64).tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    return [np.array(path, np.int64) for path in offset.Execute(shape.area * ratio / shape.length)]


Region = tuple[Floats, float]


def _quad(values: NDArray[np.float32], contour: Array, least: float, ratio: float) -> Region | None:
    box, side = mini_box(contour)
    if side < MIN_SIDE:
        return None
    score = score_inside(values, box)
    paths = unclip(box, ratio) if score >= least else []
    if not paths:
        return None
    grown, side = mini_box(np.concatenate(paths).astype(np.float32))
    return (grown, score) if side >= MIN_SIDE + 2 else None


def _polygon(values: NDArray[np.float32], contour: Array, least: float, ratio: float) -> Region | None:
    import cv2

    outline = cv2.approxPolyDP(contour, APPROXIMATION * cv2.arcLength(contour, True), True).reshape(-1, 2)
    if len(outline) < 4:
        return None
    score = score_inside(values, contour.reshape(-1, 2))
    paths = unclip(outline, ratio) if score >= least else []
    if len(paths) != 1 or mini_box(paths[0].astype(np.float32))[1] < MIN_SIDE + 2:
        return None
    return paths[0].astype(np.float64), score


def _whole(points: Floats, size: tuple[int, int]) -> Ints:
    return np.asarray(np.clip(np.rint(points), 0, size), np.int64)
