"""Boxes in space against boxes in space: overlap, distance, viewpoint; points are (9, 3), the centre, then vertices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.predictions.cuboids import CORNERS, EDGES, Floats, rotation_matrices

TOLERANCE = 1e-6  # of a box's side
X, Y, Z = 5, 3, 2  # points that lie along an axis from point 1


def iou_3d(boxes: Floats, box: Floats) -> Floats:
    """(M,) intersection over union of the volumes of boxes (M, 9, 3) with one box (9, 3); 0 for flat boxes.

    The intersection is the convex hull of the vertices of each that lie in the other and of the points where edges of
    one pass through faces of the other.
    """
    centre, edges = _frame(box)
    centres, sides = _frame(boxes)
    volume, volumes = abs(np.linalg.det(edges)), abs(np.linalg.det(np.nan_to_num(sides)))
    if not (np.isfinite(boxes).all() and volume > 0 and (volumes > 0).all()):
        return np.zeros(len(boxes))
    to_box = np.linalg.inv(edges)
    mine, inside = _within_unit_cube((boxes[:, 1:] - centre) @ to_box)
    other, around = _within_unit_cube((box[1:] - centres) @ np.linalg.inv(sides))
    points = np.concatenate([mine, (other @ sides + centres - centre) @ to_box], axis=1)
    hits = np.concatenate([inside, around], axis=1)
    shared = np.array([_hull_volume(some[hit]) for some, hit in zip(points, hits, strict=True)]) * volume
    return np.asarray(shared / (volume + volumes - shared))


def _frame(points: Floats) -> tuple[Floats, Floats]:
    """Centre (..., 1, 3) and edges (..., 3, 3), rows x, y, z, of the parallelepiped nearest to the vertices."""
    vertices = points[..., 1:, :]
    return vertices.mean(axis=-2, keepdims=True), CORNERS.T @ vertices / 2


def _within_unit_cube(vertices: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Vertices (M, 8, 3), then the points where edges meet the planes of the cube of side 1; which are in the cube."""
    start, stop = vertices[:, EDGES[:, 0]], vertices[:, EDGES[:, 1]]
    step = stop - start
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (np.array([-0.5, 0.5]) - start[..., None]) / step[..., None]  # (M, 12, 3 axes, 2 sides)
        between = (along >= 0) & (along <= 1)
    crossing = start[:, :, None, None] + np.where(between, along, 0)[..., None] * step[:, :, None, None]
    points = np.concatenate([vertices, crossing.reshape(len(vertices), -1, 3)], axis=1)
    on_edge = np.concatenate([np.ones(vertices.shape[:2], bool), between.reshape(len(vertices), -1)], axis=1)
    return points, on_edge & (np.abs(points) <= 0.5 + TOLERANCE).all(axis=2)


def _hull_volume(points: Floats) -> float:
    if len(points) < 4:
        return 0.0
    try:
        from scipy.spatial import ConvexHull, QhullError
    except ImportError as error:
        raise RuntimeUnavailableError(
            "3D IoU needs SciPy, which is not installed", remedy="pip install scipy"
        ) from error
    try:
        return float(ConvexHull(points).volume)
    except QhullError:  # all in one plane: the boxes only touch
        return 0.0


def turned(points: Floats, count: int) -> Floats:
    """(count, 9, 3): a box (9, 3) turned by 0, 1/count, 2/count ... of a turn about its y axis through its centre."""
    axis = points[Y] - points[1]
    length = np.linalg.norm(axis)
    steps = 2 * np.pi * np.arange(count)[:, None] / count
    matrices = rotation_matrices(steps * (axis / length if length else axis))
    return np.asarray((points - points[0]) @ matrices.transpose(0, 2, 1) + points[0])


def average_distance(a: Floats, b: Floats) -> float:
    """ADD: mean distance of corresponding points of (9, 3) boxes."""
    return float(np.linalg.norm(a - b, axis=1).mean())


def average_nearest_distance(a: Floats, b: Floats) -> float:
    """ADD-S: mean over the points of ``b`` of the distance to the nearest one of ``a``."""
    return float(np.linalg.norm(a[:, None] - b, axis=2).min(axis=0).mean())


def viewpoint(points: Floats) -> tuple[float, float]:
    """(azimuth, polar) in degrees: from where in its own frame a box (9, 3) in the camera's frame is seen.

    M of M [points; 1] = [box in its own frame; 1], by least squares, takes the camera's centre to that frame.
    """
    size = np.linalg.norm(points[[X, Y, Z]] - points[1], axis=1)
    own = np.concatenate([np.zeros((1, 3)), CORNERS]) * size
    mapping = own.T @ np.linalg.pinv(np.append(points, np.ones((9, 1)), axis=1).T)
    x, y, z = mapping[:, 3]
    return float(np.degrees(np.arctan2(z, x))), float(np.degrees(np.arctan2(y, np.hypot(x, z))))


def azimuth_error(a: float, b: float, symmetry: int = 1) -> float:
    """Degrees between two azimuths, where turns by 360 / symmetry look the same: at most 180 / symmetry."""
    period = 360 / symmetry
    error = abs(a - b) % period
    return min(error, period - error)


def scale_error(size: Floats, truth: Floats) -> float:
    """Sum over axes of the relative error of sizes (3,) divided by their y; infinite for a flat prediction."""
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = truth / truth[1]
        error = float(np.sum(np.abs(size / size[1] - wanted) / wanted))
    return error if np.isfinite(error) else float("inf")


def pixel_error(projected: Floats, truth: Floats, projection: Floats, symmetry: int = 1) -> float:
    """Mean distance of vertices (9, 2) on the image to a box's (9, 3), at the best of its ``symmetry`` turns.

    Args:
        projected: in shares of width and height.
        truth: in the OpenGL camera frame.
        projection: (4, 4) OpenGL projection; its x and y are the image's y and x.
        symmetry: number of turns about the object's y axis that look the same.
    """
    vertices = turned(truth, symmetry)[:, 1:]
    seen = np.append(vertices, np.ones((*vertices.shape[:2], 1)), axis=2) @ projection.T
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (seen[..., [1, 0]] / seen[..., 3:] + 1) / 2
    return float(np.linalg.norm(projected[1:] - shares, axis=2).mean(axis=1).min())


def ground_scale(points: Floats, plane: NDArray[Any]) -> float:
    """What brings a box (9, 3) of unknown scale onto the ground: mean of c.n / v.n over the 4 vertices of least v.n.

    Args:
        points: in the plane's frame.
        plane: (2, 3) a point c of the ground, its normal n.
    """
    centre, normal = plane
    return float(np.mean(centre @ normal / np.sort(points[1:] @ normal)[:4]))
