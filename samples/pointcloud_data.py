"""LiDAR-like scenes: cars, pedestrians and cyclists on a plane, and dull crates of the same shapes that have no label.

Only what reflects brightly counts: a pipeline that loses the intensity takes the crates for cars and pedestrians, one
that swaps coordinates finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samples.data import fresh_folder
from samples.render import image_rng

# Mean length, width, height in metres; (share of the length from, to, share of the height up to) of each part.
SIZES = {"Car": (3.9, 1.6, 1.56), "Pedestrian": (0.8, 0.6, 1.73), "Cyclist": (1.76, 0.6, 1.73)}
_PARTS = {
    "Car": ((0.0, 1.0, 0.55), (0.0, 0.6, 1.0)),  # the cabin stands at the rear
    "Pedestrian": ((0.0, 1.0, 1.0),),
    "Cyclist": ((0.0, 1.0, 0.5), (0.2, 0.6, 1.0)),
}
AREA = (0.0, -12.8, -3.0, 25.6, 12.8, 1.0)
GROUND = -1.73  # below the sensor at the origin


@dataclass(frozen=True)
class Cuboid:
    """One labelled object: centre, length, width, height in metres, yaw in radians counter-clockwise from x."""

    name: str
    box: tuple[float, float, float, float, float, float, float]


def draw_cloud(rng: np.random.Generator) -> tuple[NDArray[np.float32], list[Cuboid]]:
    """Points (n, 4) float32 x, y, z, intensity of one scene in random order, and its labelled objects."""
    kinds = [(str(rng.choice(list(SIZES))), True) for _ in range(rng.integers(3, 8))]
    kinds += [(str(rng.choice(["Car", "Pedestrian"])), False) for _ in range(rng.integers(1, 4))]
    taken: list[tuple[float, float, float]] = []
    parts, objects = [], []
    for name, labelled in kinds:
        length, width, height = np.array(SIZES[name]) * rng.uniform(0.92, 1.08, 3)
        for _ in range(40):
            x, y, radius = rng.uniform(4, 24), rng.uniform(-11, 11), np.hypot(length, width) / 2
            if all(np.hypot(x - a, y - b) > radius + r + 0.4 for a, b, r in taken):
                break
        else:
            continue
        taken.append((x, y, radius))
        yaw = rng.uniform(-np.pi, np.pi)
        box = (x, y, GROUND + height / 2, length, width, height, yaw)
        count = int(np.clip(8000 * height * radius / (x * x + y * y), 50, 200))
        surface = _surface(rng, box, _PARTS[name], count)
        parts.append(_with_intensity(rng, surface, *((0.55, 0.95) if labelled else (0.05, 0.2))))
        if labelled:
            objects.append(Cuboid(name, tuple(map(float, box))))
    ground = np.column_stack([rng.uniform(-4, 30, 700), rng.uniform(-16, 16, 700), rng.normal(GROUND, 0.02, 700)])
    under = np.array([np.hypot(ground[:, 0] - x, ground[:, 1] - y) < radius for x, y, radius in taken]).any(0)
    parts.append(_with_intensity(rng, ground[~under], 0.05, 0.45))
    return rng.permutation(np.concatenate(parts)).astype(np.float32), objects


def _surface(
    rng: np.random.Generator, box: tuple[float, ...], parts: tuple[tuple[float, float, float], ...], count: int
) -> NDArray[np.float64]:
    """``count`` points (count, 3) on the sides and tops that the sensor sees."""
    x, y, z, length, width, height, yaw = box
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    sensor = -np.array([x, y]) @ turn  # in the box's frame
    faces = []  # corner, two edges
    for start, end, top in parts:
        x0, x1, y1, z1 = (start - 0.5) * length, (end - 0.5) * length, width / 2, (top - 0.5) * height
        z0 = -height / 2
        faces.append(((x0, -y1, z1), (x1 - x0, 0, 0), (0, width, 0)))
        side = x1 if sensor[0] > x1 else x0
        faces.append(((side, -y1, z0), (0, width, 0), (0, 0, z1 - z0)))
        faces.append(((x0, np.copysign(y1, sensor[1]), z0), (x1 - x0, 0, 0), (0, 0, z1 - z0)))
    corner, first, second = (np.array(part) for part in zip(*faces, strict=True))
    weight = np.linalg.norm(np.cross(first, second), axis=1)
    face = rng.choice(len(faces), count, p=weight / weight.sum())
    points = corner[face] + first[face] * rng.random((count, 1)) + second[face] * rng.random((count, 1))
    points[:, :2] = points[:, :2] @ turn.T
    return points + np.array([x, y, z]) + rng.normal(0, 0.015, points.shape)


def _with_intensity(
    rng: np.random.Generator, points: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    return np.column_stack([points, rng.uniform(low, high, len(points))])


def label_line(item: Cuboid) -> str:
    """One line of 15 fields: h, w, l, then the centre in the LiDAR frame, then yaw."""
    x, y, z, length, width, height, yaw = item.box
    values = " ".join(f"{value:.4f}" for value in (height, width, length, x, y, z, yaw))
    return f"{item.name} 0.00 0 0.00 0.00 0.00 0.00 0.00 {values}\n"


def write_clouds(out: Path, *, count: int = 60) -> Path:
    """Write ``out/clouds/val/{lidar/*.bin, label/*.txt}``; returns ``out/clouds``."""
    with fresh_folder(Path(out) / "clouds") as folder:
        for part in ("lidar", "label"):
            (folder / "val" / part).mkdir(parents=True)
        for number in range(count):
            points, objects = draw_cloud(image_rng("clouds", "test", number))
            points.tofile(folder / "val" / "lidar" / f"{number:06d}.bin")
            (folder / "val" / "label" / f"{number:06d}.txt").write_text("".join(map(label_line, objects)))
    return Path(out) / "clouds"
