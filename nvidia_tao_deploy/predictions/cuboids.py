"""Boxes in space with their pose, seen by one camera.

Two camera frames: OpenCV's (x right, y down, z forward) and the OpenGL one of the annotations, a portrait sensor read
in landscape: (x, y, z) there is (y, x, -z) here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# (8, 3) vertices of the cube of side 1, z changing fastest; points of a cuboid are its centre, then these.
CORNERS: Floats = np.array(list(product((-0.5, 0.5), repeat=3)))
# (12, 2) vertices that an edge joins: those that differ in one sign.
EDGES: NDArray[np.int64] = np.array([(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit])


@dataclass(frozen=True)
class Cuboids:
    """The objects of one image, best first, in OpenCV's camera frame.

    Attributes:
        scores: (N,) in 0..1.
        boxes_xyxy: (N, 4) source pixels.
        keypoints: (N, 8, 2) vertices as the network sees them, source pixels.
        sizes: (N, 3) width, height, depth along the object's x, y, z; up to one scale for all of an image.
        rotations: (N, 3) axis times angle, object to camera, radians.
        locations: (N, 3) of the centre.
        camera: (3, 3) intrinsics [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], pixels.
    """

    scores: Floats
    boxes_xyxy: Floats
    keypoints: Floats
    sizes: Floats
    rotations: Floats
    locations: Floats
    camera: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def quaternions(self, *, opengl: bool = False) -> Floats:
        """(N, 4) x, y, z, w of the rotations; no rotation is (0, 0, 0, 1)."""
        angle = np.linalg.norm(self.rotations, axis=1, keepdims=True)
        # sin(a / 2) / a, which is 1/2 at 0
        found = np.concatenate([self.rotations * np.sinc(angle / (2 * np.pi)) / 2, np.cos(angle / 2)], axis=1)
        if not opengl:
            return found
        x, y, z, w = found.T
        # Followed by half a turn about (1, 1, 0).
        return np.asarray(np.stack([w + z, w - z, y - x, -x - y], axis=1) / np.sqrt(2))

    def points(self, *, opengl: bool = False) -> Floats:
        """(N, 9, 3) centre (the mean of the others) and vertices."""
        vertices = CORNERS * self.sizes[:, None] @ rotation_matrices(self.rotations).transpose(0, 2, 1)
        found = with_mean(vertices + self.locations[:, None])
        return to_opengl(found) if opengl else found

    def projected(self) -> Floats:
        """(N, 9, 2) the vertices on the image behind their mean, pixels."""
        return with_mean(project(self.points()[:, 1:], self.camera))


def rotation_matrices(rotations: Floats) -> Floats:
    """(N, 3, 3) of (N, 3) axis times angle (Rodrigues' formula)."""
    angle = np.linalg.norm(rotations, axis=1)[:, None, None]
    x, y, z = rotations.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    half = np.sinc(angle / (2 * np.pi))
    return np.asarray(np.eye(3) + np.sinc(angle / np.pi) * cross + half**2 / 2 * cross @ cross)


def project(points: Floats, camera: Floats) -> Floats:
    """(..., 2) pixels of (..., 3) points in OpenCV's frame; a point in the camera's plane gives infinities."""
    seen = points @ camera.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(seen[..., :2] / seen[..., 2:])


def to_opengl(points: NDArray[Any]) -> NDArray[Any]:
    """(..., 3) points between the two frames, either way."""
    return np.asarray(points[..., [1, 0, 2]] * np.array([1, 1, -1]))


def with_mean(vertices: Floats) -> Floats:
    """(N, 8, D) -> (N, 9, D), the mean in front."""
    return np.concatenate([vertices.mean(axis=1, keepdims=True), vertices], axis=1)
