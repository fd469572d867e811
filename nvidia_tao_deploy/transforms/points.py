"""Point clouds into the model's fixed rows: what the range and the voxel caps leave, in the file's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.point_cloud import PointFormat
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.transforms.transform import Geometry


@dataclass(frozen=True)
class VoxelCaps:
    """Limits inside the model's voxel generator. Where one is hit, the plugin keeps whatever arrives first.

    Attributes:
        area: least x, y, z, then greatest, metres; voxels lie in [least, greatest).
        voxel_size: x, y, z, metres; the grid has one voxel along z.
        per_voxel: points that a voxel holds.
        voxels: voxels that hold points.
    """

    area: Sequence[float]
    voxel_size: Sequence[float]
    per_voxel: int
    voxels: int

    def inside(self, points: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(n,) whether voxels hold each of the points (n, 3 or more) at all."""
        low, high = _bounds(self.area)
        return np.asarray(((points[:, :3] >= low) & (points[:, :3] < high)).all(1))

    def kept(self, points: NDArray[np.float32]) -> NDArray[np.int64]:
        """Indices of the points (n, 3 or more) that fit: first ones of a voxel, and voxels by their first point."""
        low, high = _bounds(self.area)
        size = np.array(self.voxel_size[:2], np.float32)
        columns, rows = np.rint((high[:2] - low[:2]) / size).astype(np.int64)
        inside = np.flatnonzero(self.inside(points))
        column, row = np.floor((points[inside, :2] - low[:2]) / size).astype(np.int64).T
        on_grid = (column < columns) & (row < rows)
        inside, cell = inside[on_grid], (row * columns + column)[on_grid]
        counts = np.bincount(cell, minlength=1)
        if counts.max() <= self.per_voxel and np.count_nonzero(counts) <= self.voxels:
            return np.asarray(inside)
        order, occupied = np.argsort(cell, kind="stable"), np.flatnonzero(counts)
        begins = np.cumsum(counts) - counts
        rank, number = np.empty(len(cell), np.int64), np.empty(len(counts), np.int64)
        rank[order] = np.arange(len(cell)) - begins[cell[order]]
        number[occupied[np.argsort(order[begins[occupied]])]] = np.arange(len(occupied))
        return np.asarray(inside[(rank < self.per_voxel) & (number[cell] < self.voxels)])


def _bounds(area: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.array(area[:3], np.float32), np.array(area[3:], np.float32)


@dataclass(frozen=True)
class CloudGeometry(Geometry):
    """What became of a cloud; sizes are (points, features), scales 1.

    Attributes:
        not_finite: points left out because a feature is NaN or infinite.
        over_caps: points left out by the voxel caps.
        over_input: points left out because the model's input is full.
    """

    not_finite: int = 0
    over_caps: int = 0
    over_input: int = 0


class PointTransform:
    """Writes ``points`` (P, F) float32, zero rows at the end, and ``num_points``.

    Points outside the range in x or y are dropped (bounds included); z is tested by the model, and here where the voxel
    caps are known. Of more than P points the first P count, or with ``strict`` the cloud is refused.

    Args:
        form: how files are read.
        area: the range, None for no test.
        caps: limits to keep to; None: the model's own, in whatever order its voxel generator takes points.
        points: name of the input of points.
        num_points: name of the input of their number.
        strict: refuse a cloud of too many points.
    """

    def __init__(
        self,
        form: PointFormat,
        area: Sequence[float] | None,
        caps: VoxelCaps | None,
        points: str,
        num_points: str,
        *,
        strict: bool = False,
    ) -> None:
        self._form, self._area, self._caps, self._strict = form, area, caps, strict
        self._points, self._num_points = points, num_points

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> CloudGeometry:
        """Fill the rows; DataError where the file cannot be read, or with ``strict`` holds too many points."""
        read = self._form.read(sample.path)
        points = read[np.isfinite(read).all(1)]
        not_finite = len(read) - len(points)
        if self._area is not None:
            low, high = _bounds(self._area)
            points = points[((points[:, :2] >= low[:2]) & (points[:, :2] <= high[:2])).all(1)]
        over_caps = 0
        if self._caps is not None:
            points = points[self._caps.inside(points)]
            within = self._caps.kept(points)
            over_caps, points = len(points) - len(within), points[within]
        rows = out[self._points]
        count = min(len(points), len(rows))
        if self._strict and count < len(points):
            raise DataError(f"{len(points)} points, the model takes {count}", where=str(sample.path))
        rows[:count], rows[count:] = points[:count], 0
        out[self._num_points][...] = count
        return CloudGeometry(
            read.shape, rows.shape, (1.0, 1.0), not_finite=not_finite, over_caps=over_caps,
            over_input=len(points) - count,
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        return {
            "columns": list(self._form.columns),
            "range": list(self._area) if self._area is not None else None,
            "voxel_caps": vars(self._caps) if self._caps else None,
        }


class CloudTally:
    """Counts what was left out of clouds, for the notes at the end of a run."""

    def __init__(self) -> None:
        self._left_out = {"not_finite": [0, 0], "over_caps": [0, 0], "over_input": [0, 0]}
        self._empty = 0

    def add(self, geometry: Geometry) -> None:
        """Take one cloud."""
        self._empty += geometry.source_size[0] == getattr(geometry, "not_finite", 0)
        for name, sums in self._left_out.items():
            if count := getattr(geometry, name, 0):
                sums[:] = sums[0] + count, sums[1] + 1

    def notes(self) -> list[str]:
        """A sentence for each kind of points that were left out."""
        reasons = {
            "not_finite": "they are NaN or infinite",
            "over_caps": "their voxels are full; the first points of a voxel count",
            "over_input": "the model's input is full; the first points count",
        }
        empty = [counted(self._empty, "clouds hold no point at all")] if self._empty else []
        return empty + [
            f"{counted(points, 'points')} of {counted(clouds, 'clouds')} left out: {reasons[name]}"
            for name, (points, clouds) in self._left_out.items()
            if points
        ]
