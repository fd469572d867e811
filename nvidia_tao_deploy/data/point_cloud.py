"""Folders of point clouds with KITTI-style labels of cuboids in the LiDAR frame."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.folder import relative_id
from nvidia_tao_deploy.data.numpy_file import read_npy
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, read_lines, some
from nvidia_tao_deploy.errors import DataError

SUFFIXES = (".bin", ".npy")
FIELDS = (15, 16)  # with a score


@dataclass(frozen=True)
class CloudTarget:
    """The objects of one cloud, in file order.

    Attributes:
        boxes: (K, 7) float64: centre x, y, z, length, width, height in metres, yaw in radians counter-clockwise from x.
        class_ids: (K,) int64, from 0.
    """

    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]


@dataclass(frozen=True)
class PointFormat:
    """How a file's numbers make points.

    Attributes:
        features: numbers per point in a .bin file of float32.
        columns: those that the network takes, in its order; the first three are x, y, z in metres.
    """

    features: int
    columns: tuple[int, ...]

    def read(self, path: Path) -> NDArray[np.float32]:
        """(n, len(columns)) float32 points of a .bin or .npy file, n may be 0.

        Raises:
            DataError: the file is missing, or holds no whole number of points of so many features.
        """
        try:
            if path.suffix == ".npy":
                values = read_npy(path)
            else:
                values = np.frombuffer(path.read_bytes(), np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"cannot read the point cloud: {error}", where=str(path)) from error
        if path.suffix != ".npy" and values.size % self.features == 0:
            values = values.reshape(-1, self.features)
        if values.ndim != 2 or values.shape[1] != self.features or values.dtype.kind not in "fiu":
            held = f"an array {values.dtype} {values.shape}" if path.suffix == ".npy" else f"{values.size} numbers"
            raise DataError(
                f"{held}: not a list of points of {self.features} features",
                where=str(path),
                remedy="Check num_point_features and src_feature_list.",
            )
        return np.ascontiguousarray(values[:, list(self.columns)], np.float32)


class PointClouds(Listed):
    """``lidar/*.bin`` or ``*.npy`` below a folder, by name, with ``label/<stem>.txt``.

    Clouds without a label file, lines that cannot be read and labels of other classes are counted and named in
    ``issues``; an empty label file is a scene without objects.

    Args:
        folder: holds ``lidar`` and ``label``.
        class_names: in id order.
        features: numbers per point in a .bin file of float32.
        labelled: leave out clouds without label file; otherwise they have no target.
        strict: raise for what would otherwise go into ``issues`` (not for labels of other classes).

    Raises:
        DataError: no cloud, none with a label file, no label names a class, or so many files hold no whole number of
            points that ``features`` must be wrong.
    """

    called = "clouds"

    def __init__(
        self, folder: Path | str, class_names: Sequence[str], features: int, *, labelled: bool, strict: bool = False
    ) -> None:
        root = Path(os.path.abspath(folder)) / "lidar"
        super().__init__((), root)
        clouds = sorted(path for suffix in SUFFIXES for path in root.glob(f"*{suffix}"))
        if not clouds:
            raise DataError("no point cloud (*.bin, *.npy)", where=str(root), remedy="Check dataset.data_path.")
        twice = [stem for stem, count in Counter(path.stem for path in clouds).items() if count > 1]
        if twice:
            raise DataError(f"clouds of the same name: {some(twice)}", where=str(root))
        odd = [path.name for path in clouds if path.suffix == ".bin" and path.stat().st_size % (4 * features)]
        if len(odd) > max(1, len(clouds) / 4):  # one may be cut; of a wrong number at most half divide, by chance
            raise DataError(
                f"{len(odd)} of {len(clouds)} clouds are no list of points of {features} features: {some(odd)}",
                where=str(root),
                remedy="Check num_point_features and src_feature_list; clouds that fit by chance would be misread.",
            )
        labels = root.parent / "label"
        bare = {path for path in clouds if not (labels / f"{path.stem}.txt").is_file()}
        if labelled and bare:
            if len(bare) == len(clouds):
                raise DataError(f"none of the {len(clouds)} clouds has a label file", where=str(labels))
            names = some(path.name for path in sorted(bare))
            self.issues.append(f"{counted(len(bare), 'clouds skipped, they have no label file')} in {labels}: {names}")
            clouds = [path for path in clouds if path not in bare]
        self._others: Counter[str] = Counter()
        refused: list[str] = []
        for path in clouds:
            label = labels / f"{path.stem}.txt"
            target = None if path in bare else self._target(label, list(class_names), refused)
            self._samples.append(Sample(relative_id(path, root), (path,), target))
        if refused:
            lines = counted(len(refused), "label lines skipped")
            self.issues.append(f"{lines}, not 15 or 16 fields with a finite box of some size: {some(refused)}")
        if strict and self.issues:
            raise DataError("; ".join(self.issues), remedy="Mend the labels, or leave `strict` off.")
        if self._others:
            listed = some(f"{name} ({count})" for name, count in sorted(self._others.items()))
            if labelled and not any(len(sample.target.class_ids) for sample in self._samples):
                raise DataError(
                    f"no label names a class of the network: labels name {listed}; wanted {some(class_names)}",
                    where=str(labels),
                    remedy="Check dataset.class_names.",
                )
            self.issues.append(
                f"{counted(self._others.total(), 'labels left out, they are of other classes')}: {listed}"
            )

    def _target(self, file: Path, names: list[str], refused: list[str]) -> CloudTarget:
        boxes, class_ids = [], []
        for number, line in enumerate(read_lines(file), 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) in FIELDS and fields[0] not in names:
                self._others[fields[0]] += 1
                continue
            box = _box(fields)
            if box is None:
                refused.append(f"{file}:{number}")
                continue
            boxes.append(box)
            class_ids.append(names.index(fields[0]))
        return CloudTarget(np.array(boxes, np.float64).reshape(-1, 7), np.array(class_ids, np.int64))


def _box(fields: Sequence[str]) -> list[float] | None:
    """x, y, z, l, w, h, yaw of a label line's fields; None if they are no box."""
    if len(fields) not in FIELDS:
        return None
    try:
        height, width, length, x, y, z, yaw = map(float, fields[8:15])
    except ValueError:
        return None
    box = [x, y, z, length, width, height, yaw]
    return box if np.isfinite(box).all() and min(box[3:6]) > 0 else None
