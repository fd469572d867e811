"""6-DoF pose: errors of size, vertices, viewpoint and place, and their average precision over thresholds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.poses import PoseTruth
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.metrics import cuboids
from nvidia_tao_deploy.predictions.cuboids import Cuboids, Floats

VISIBLE = 0.1
STEPS = 21
ROUNDING = 1e-6  # of an IoU
AT_HALF = 10  # of the thresholds
# Error: (greatest threshold, its value for a prediction without an object).
ERRORS: dict[str, tuple[float, float]] = {
    "Scale": (1.0, 2.0),
    "3D IoU": (1.0, 0.0),
    "2D Pixel": (0.1, 0.1),
    "Azimuth": (30.0, 30.0),
    "Polar": (20.0, 20.0),
    "ADD": (1.0, 1.0),
    "ADDS": (1.0, 1.0),
}
MEANS = {"Scale": "Mean Error Scale", "2D Pixel": "Mean Error 2D", "3D IoU": "Mean 3D IoU",
         "Azimuth": "Mean Azimuth Error", "Polar": "Mean Polar Error"}  # fmt: skip
THRESHOLDS = {"Scale": "Scale Thresh", "3D IoU": "IoU Thresholds", "2D Pixel": "2D Thresholds",
              "Azimuth": "Azimuth Thresh", "Polar": "Polar Thresh", "ADD": "ADD Thresh",
              "ADDS": "ADDS Thresh"}  # fmt: skip


def average_precision(hits: NDArray[np.bool_], total: int) -> Floats:
    """(T,) area under precision over recall, precision made monotonic (VOC 2012, all points).

    Args:
        hits: (D, T) by falling confidence; several predictions may hit one object, so that recall may pass 1.
        total: number of objects.
    """
    if not total:
        return np.full(hits.shape[1], np.nan)
    found = np.cumsum(hits, axis=0)
    precision = found / np.arange(1, len(hits) + 1)[:, None]
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    return np.asarray((np.diff(found, axis=0, prepend=0) / total * envelope).sum(axis=0))


class PoseMetric:
    """Errors of every prediction against the object whose vertices on the image are nearest to its own.

    An image counts if one object has a visibility over 0.1, its centre in the image and before the camera. A
    prediction whose object has a visibility below 0.1 has no object: confidence 0, and the errors of :data:`ERRORS`.
    Several predictions may have the same object; all objects of an image that counts are to be found.

    Keys: ``test_3DIoU`` (AP at IoU 0.5), ``test_2DMPE``, then the means over predictions with an object (NaN: none).

    Args:
        symmetry: number of turns about an object's y axis that look the same.
        absolute: predictions have the right scale; else they are brought onto the image's ground plane.
    """

    def __init__(self, *, symmetry: int = 1, absolute: bool = False) -> None:
        self._symmetry, self._absolute = symmetry, absolute
        self._confidences: list[float] = []
        self._rows: list[dict[str, float]] = []
        self._matched: list[bool] = []
        self._objects = self._without = 0

    def update(self, sample: Sample, prediction: Cuboids) -> None:
        """Take one image."""
        truth: PoseTruth = sample.target
        shares = truth.projected / truth.size
        inside = ((shares[:, 0] > 0) & (shares[:, 0] < 1)).all(axis=1)
        if not (inside & (truth.visibility > VISIBLE) & (truth.points[:, 0, 2] < 0)).any():
            self._without += 1
            return
        self._objects += len(truth.visibility)
        seen = prediction.projected() / truth.size
        for score, size, flat, points in zip(
            prediction.scores, prediction.sizes, seen, prediction.points(opengl=True), strict=True
        ):
            nearest = int(np.argmin(np.linalg.norm(flat[1:] - shares[:, 1:], axis=(1, 2))))
            matched = bool(truth.visibility[nearest] >= VISIBLE)
            self._matched.append(matched)
            self._confidences.append(float(score) if matched else 0.0)
            worst = {name: value for name, (_, value) in ERRORS.items()}
            self._rows.append(self._errors(truth, nearest, size, flat, points) if matched else worst)

    def _errors(self, truth: PoseTruth, index: int, size: Floats, flat: Floats, points: Floats) -> dict[str, float]:
        target = truth.points[index]
        if not self._absolute:
            assert truth.plane is not None
            points = points * cuboids.ground_scale(points, truth.plane)
        turns = cuboids.turned(points, self._symmetry)
        overlaps = cuboids.iou_3d(turns, target)
        # A box turned by half fills the same space: of equal overlaps, up to rounding, the nearest vertices decide.
        distances = [cuboids.average_distance(turn, target) for turn in turns]
        hit = bool(overlaps.max() > 0)
        best = int(np.argmin(np.where(overlaps >= overlaps.max() - ROUNDING, distances, np.inf))) if hit else 0
        azimuth, polar = (a - b for a, b in zip(cuboids.viewpoint(turns[best]), cuboids.viewpoint(target), strict=True))
        return {
            "Scale": cuboids.scale_error(size, truth.sizes[index]),
            "3D IoU": float(overlaps[best]),
            "2D Pixel": cuboids.pixel_error(flat, target, truth.projection, self._symmetry),
            "Azimuth": cuboids.azimuth_error(azimuth, 0.0, self._symmetry),
            "Polar": abs(polar),
            "ADD": distances[best] if hit else 1.0,
            "ADDS": cuboids.average_nearest_distance(turns[best], target) if hit else 1.0,
        }

    def curves(self) -> dict[str, tuple[Floats, Floats]]:
        """By error: (21,) thresholds and the average precision at each."""
        order = np.argsort(-np.array(self._confidences), kind="stable")
        found = {}
        for name, (last, _) in ERRORS.items():
            thresholds = np.linspace(0, last, STEPS)
            values = np.array([row[name] for row in self._rows])[order, None]
            hits = values >= thresholds if name == "3D IoU" else values <= thresholds
            found[name] = thresholds, average_precision(hits, self._objects)
        return found

    def compute(self) -> dict[str, float]:
        """The headline numbers and the means."""
        matched = [row for row, has in zip(self._rows, self._matched, strict=True) if has]
        means = {key: float(np.mean([row[name] for row in matched])) if matched else math.nan
                 for name, key in MEANS.items()}  # fmt: skip
        return {
            "test_3DIoU": float(self.curves()["3D IoU"][1][AT_HALF]),
            "test_2DMPE": means["Mean Error 2D"],
            **means,
        }

    def files(self) -> dict[str, str]:
        """report.csv: the means, and the average precision over the thresholds of every error."""
        numbers = self.compute()
        rows = [[f"{key}:", f"{numbers[key]:.4f}"] for key in MEANS.values()]
        for name, (thresholds, precisions) in self.curves().items():
            rows.append([])
            rows.append([f"{THRESHOLDS[name]}:", *(f"{value:.4f}" for value in thresholds)])
            rows.append([f"AP @{name}:", *(f"{value:.4f}" for value in precisions)])
        return {"report.csv": "".join(",".join(row) + "\n" for row in rows)}

    def report(self) -> str:
        """The numbers, and how many objects and predictions they are of."""
        lines = [f"{key}: {value:.4f}" for key, value in self.compute().items()]
        found = counted(len(self._rows), "predictions")
        lines.append(f"{counted(self._objects, 'objects')}, {found}, {sum(self._matched)} with an object")
        if self._without:
            lines.append(counted(self._without, "images show no object and count nowhere"))
        return "\n".join(lines)
