"""From candidates on the network's grid to objects with a pose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.cv.centerpose.transform import CameraGeometry
from nvidia_tao_deploy.families.kitti_detection import require_finite
from nvidia_tao_deploy.predictions.cuboids import CORNERS, Cuboids, Floats
from nvidia_tao_deploy.predictions.nms import soft_nms
from nvidia_tao_deploy.transforms.transform import Geometry

SCORE = 0.3
SIGMA = 0.5
MISSING = -10000.0  # both coordinates of a keypoint that no heatmap shows
LEAST_COORDINATE = -5000.0
ITERATIVE_POINTS, LEAST_POINTS = 6, 4


class Candidates(NamedTuple):
    """What is left of an image's candidates after suppression, in source pixels, best first.

    Attributes:
        scores: (N,).
        boxes_xyxy: (N, 4).
        keypoints: (N, 16, 2): vertex 1 by displacement, by heatmap, vertex 2 by displacement, ...; missing ones are
            (-10000, -10000).
        sizes: (N, 3).
    """

    scores: Floats
    boxes_xyxy: Floats
    keypoints: Floats
    sizes: Floats


def decode(
    outputs: Mapping[str, NDArray[Any]], geometries: Sequence[CameraGeometry], grid: tuple[int, int]
) -> list[Cuboids]:
    """Decode one batch.

    Args:
        outputs: ``bboxes`` (B, K, 4), ``scores`` (B, K, 1), ``obj_scale`` (B, K, 3), ``kps_displacement_mean`` and
            ``kps_heatmap_mean`` (B, K, 16), in cells of the grid.
        geometries: how each of the first ``len(geometries)`` images was placed, and its camera.
        grid: (width, height) of the network's output grid.

    Returns:
        Per image the objects whose pose could be found and that lie before the camera.

    Raises:
        ModelError: values that are not finite.
    """
    found = candidates(outputs, geometries, grid)
    return [_posed(one, geometry.camera) for one, geometry in zip(found, geometries, strict=True)]


def candidates(
    outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry], grid: tuple[int, int]
) -> list[Candidates]:
    """Candidates over 0.3 in source pixels, after Gaussian soft-NMS; arguments as for :func:`decode`."""
    require_finite(outputs["scores"])
    found = []
    for image, geometry in enumerate(geometries):
        likely = np.flatnonzero(outputs["scores"][image, :, 0] > SCORE)
        rows = {role: array[image, likely].astype(np.float64) for role, array in outputs.items()}
        require_finite(*rows.values())
        cell = np.divide(geometry.network_size, grid)
        boxes = _to_source(rows["bboxes"].reshape(-1, 2, 2), geometry, cell).reshape(-1, 4)
        kept, scores = soft_nms(boxes, rows["scores"][:, 0], SIGMA, SCORE, offset=1)
        both = np.stack([rows[role][kept] for role in ("kps_displacement_mean", "kps_heatmap_mean")], axis=1)
        points = both.reshape(-1, 2, 8, 2).transpose(0, 2, 1, 3).reshape(-1, 16, 2)
        missing = (points == MISSING).all(axis=2, keepdims=True)
        points = np.where(missing, points, _to_source(points, geometry, cell))
        found.append(Candidates(scores, boxes[kept], points, rows["obj_scale"][kept]))
    return found


def _to_source(points: Floats, geometry: Geometry, cell: Floats) -> Floats:
    return np.asarray((points * cell - geometry.offset) / geometry.scale)


def _posed(found: Candidates, camera: Floats) -> Cuboids:
    poses = [_solve(points, size, camera) for points, size in zip(found.keypoints, found.sizes, strict=True)]
    kept = [row for row, pose in enumerate(poses) if pose is not None]
    solved = np.array([pose for pose in poses if pose is not None]).reshape(-1, 2, 3)
    return Cuboids(
        found.scores[kept],
        found.boxes_xyxy[kept],
        found.keypoints[kept, ::2],
        found.sizes[kept],
        solved[:, 0],
        solved[:, 1],
        camera,
    )


def _solve(points: Floats, size: Floats, camera: Floats) -> Floats | None:
    """(2, 3) rotation and location of the cuboid whose vertices are seen at ``points`` (16, 2), or None."""
    import cv2

    usable = (points >= LEAST_COORDINATE).all(axis=1)
    if usable.sum() < LEAST_POINTS:
        return None
    vertices = np.repeat(CORNERS * size, 2, axis=0)[usable]
    seen = points[usable].copy()
    seen[:, 0] -= camera[0, 1] * (seen[:, 1] - camera[1, 2]) / camera[1, 1]  # OpenCV's cameras have no skew
    straight = np.array([[camera[0, 0], 0, camera[0, 2]], camera[1], camera[2]])
    method = cv2.SOLVEPNP_ITERATIVE if len(seen) >= ITERATIVE_POINTS else cv2.SOLVEPNP_EPNP
    try:
        solved, rotation, location = cv2.solvePnP(vertices, seen, straight, None, flags=method)
    except cv2.error:  # points from which no pose can be found, e.g. all of one vertex
        return None
    pose: Floats = np.array([rotation[:, 0], location[:, 0]], dtype=np.float64)
    return pose if solved and np.isfinite(pose).all() and pose[1, 2] >= 0 else None
