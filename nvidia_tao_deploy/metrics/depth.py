"""Depth and disparity against ground truth: relative errors, RMSE, deltas, bad pixels, end-point error.

The functions take p (prediction) and g (truth), (N,) arrays of valid pixels, N > 0.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.data.depth import DepthTruth
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.files import plain
from nvidia_tao_deploy.predictions.depth import DepthMap

Values = Array
TINY = 1e-8
DELTA = 1.25
MIN_DEPTH, MAX_DEPTH = 1e-3, 10.0
MAX_RELATIVE = 1000.0  # disparities of relative sets end here
STEREO_KEYS = ("d1", "bp1", "bp2", "bp3", "epe", "abs_rel", "sq_rel", "rmse", "rmse_log")


def abs_rel(p: Values, g: Values) -> float:
    """mean |p - g| / g."""
    return float(np.mean(np.abs(p - g) / g, dtype=np.float64))


def sq_rel(p: Values, g: Values) -> float:
    """mean (p - g)^2 / g."""
    return float(np.mean((p - g) ** 2 / g, dtype=np.float64))


def rmse(p: Values, g: Values) -> float:
    """sqrt(mean (p - g)^2)."""
    return math.sqrt(np.mean((p - g) ** 2, dtype=np.float64))


def rmse_log(p: Values, g: Values) -> float:
    """sqrt(mean (log p - log g)^2), values below 1e-8 taken as that."""
    return math.sqrt(np.mean((np.log(np.maximum(p, TINY)) - np.log(np.maximum(g, TINY))) ** 2, dtype=np.float64))


def delta(p: Values, g: Values, power: int = 1) -> float:
    """Share of pixels with max(p / g, g / p) < 1.25^power."""
    with np.errstate(divide="ignore"):
        return float(np.mean(np.maximum(p / g, g / p) < np.float32(DELTA**power)))


def bad_pixels(p: Values, g: Values, limit: float, share: float = 0.0) -> float:
    """Share of pixels with an error over ``limit`` and over ``share`` of the truth."""
    error = np.abs(p - g)
    return float(np.mean((error > limit) & (error / g > share)))


def end_point_error(p: Values, g: Values) -> float:
    """sum |p - g| / (N + 1e-8)."""
    return float(np.sum(np.abs(p - g), dtype=np.float64) / (len(g) + TINY))


def squared_error_by_spread(p: Values, g: Values) -> float:
    """sum (p - g)^2 / (sum |g - mean g| + 1e-8): what stereo results call sq_rel."""
    spread = np.sum(np.abs(g - np.mean(g, dtype=np.float64)), dtype=np.float64)
    return float(np.sum((p - g) ** 2, dtype=np.float64) / (spread + TINY))


def stereo_errors(p: Values, g: Values) -> dict[str, float]:
    """All stereo figures of one image, in the order of results.json. d1: error over 3 pixels and over 5 %."""
    return {
        "d1": bad_pixels(p, g, 3.0, 0.05),
        **{f"bp{limit}": bad_pixels(p, g, limit) for limit in (1, 2, 3)},
        "epe": end_point_error(p, g),
        "abs_rel": abs_rel(p, g),
        "sq_rel": squared_error_by_spread(p, g),
        "rmse": rmse(p, g),
        "rmse_log": rmse_log(p, g),
    }


def align(p: Values, g: Values) -> Values:
    """a * p + b with a, b of least squares against g."""
    columns = np.stack([p.astype(np.float64), np.ones(len(p))], axis=1)
    solution = np.linalg.lstsq(columns, g.astype(np.float64), rcond=None)[0]
    return np.asarray(columns @ solution)


class StereoMetric:
    """Disparities at the source's resolution, per image over valid pixels, averaged over images.

    Pixels count where 0 < truth < ``max_disparity``, in source pixels; images without one are counted and left out.
    """

    def __init__(self, max_disparity: float) -> None:
        self._limit = max_disparity
        self._images: list[dict[str, float]] = []
        self._without = 0
        self.per_sample: list[dict[str, Any]] = []

    def update(self, sample: Sample, prediction: DepthMap) -> None:
        """Take one pair."""
        truth, values = _pair(sample, prediction)
        valid = (truth > 0) & (truth < self._limit)
        epe = math.nan
        if valid.any():
            self._images.append(stereo_errors(_finite(sample, values[valid]), truth[valid]))
            epe = self._images[-1]["epe"]
        else:
            self._without += 1
        self.per_sample.append(
            {
                "scene": sample.path.parent.name,
                "path": str(sample.path),
                "epe": epe,
                "orig_hw": list(prediction.geometry.source_size[::-1]),
                "engine_hw": list(prediction.geometry.network_size[::-1]),
            }
        )

    def compute(self) -> dict[str, float]:
        """Averages over images; NaN where no image has a valid pixel."""
        return {key: float(np.mean([image[key] for image in self._images] or [np.nan])) for key in STEREO_KEYS}

    def files(self) -> dict[str, str]:
        """per_sample_results.json: scene, path, end-point error and sizes of every pair."""
        return {"per_sample_results.json": json.dumps(plain(self.per_sample), indent=4) + "\n"}

    def report(self) -> str:
        """The figures, sorted."""
        return _report(self.compute(), self._without)


class MonoMetric:
    """Depth, or inverse depth up to scale and shift, over all valid pixels of all images.

    Keys: ``d1``, ``abs_rel``, then ``d2``, ``d3``, ``sq_rel``, ``rmse``, ``rmse_log``.

    Args:
        relative: predictions are inverse depth up to scale and shift: truth of kind depth is inverted, and every
            image's prediction aligned with it by least squares; figures are of inverse depth.
        min_depth: truth counts above this.
        max_depth: truth counts below this.
    """

    def __init__(self, *, relative: bool, min_depth: float = MIN_DEPTH, max_depth: float = MAX_DEPTH) -> None:
        self._relative, self._limits = relative, (min_depth, max_depth)
        self._images: list[tuple[int, dict[str, float]]] = []
        self._without = 0

    def update(self, sample: Sample, prediction: DepthMap) -> None:
        """Take one image."""
        truth, values = _pair(sample, prediction)
        target: DepthTruth = sample.target
        inverse = self._relative and target.kind == "disparity"
        low, high = (0.0, MAX_RELATIVE) if inverse else self._limits
        valid = np.isfinite(truth) & (truth > low) & (truth < high)
        if not valid.any():
            self._without += 1
            return
        g: Values = truth[valid]
        p: Values = _finite(sample, values[valid])
        if self._relative:
            g = g if inverse else 1 / g
            p = np.maximum(align(p, g), TINY).astype(np.float32)
            g = np.maximum(g, np.float32(TINY))
        else:
            p, g = np.clip(p, low, high), np.clip(g, low, high)
        deltas = {f"d{power}": delta(p, g, power) for power in (1, 2, 3)}
        squares = {"rmse": rmse(p, g) ** 2, "rmse_log": rmse_log(p, g) ** 2}
        self._images.append((len(g), {**deltas, "abs_rel": abs_rel(p, g), "sq_rel": sq_rel(p, g), **squares}))

    def compute(self) -> dict[str, float]:
        """Means over all pixels; NaN where there is none."""
        pixels = sum(count for count, _ in self._images)
        found = {}
        for key in ("d1", "abs_rel", "d2", "d3", "sq_rel", "rmse", "rmse_log"):
            total = math.fsum(count * figures[key] for count, figures in self._images)
            mean = total / pixels if pixels else math.nan
            found[key] = math.sqrt(mean) if key.startswith("rmse") else mean
        return found

    def report(self) -> str:
        """The figures, sorted."""
        return _report(self.compute(), self._without)


def _pair(sample: Sample, prediction: DepthMap) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    truth = sample.target.read()
    size = prediction.geometry.source_size
    if truth.shape != size[::-1]:
        raise DataError(
            f"the map is {truth.shape[1]} x {truth.shape[0]}, its image {size[0]} x {size[1]}",
            where=str(sample.target.path),
            remedy=f"Check that it belongs to {Path(sample.path)}.",
        )
    return truth, prediction.on_source()


def _finite(sample: Sample, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise ModelError(f"the model's map of {sample.id} holds NaN or infinities")
    return values


def _report(numbers: dict[str, float], without: int) -> str:
    lines = [f"{key}: {numbers[key]:.9f}" for key in sorted(numbers)]
    told = counted(without, "images have no valid ground truth and count nowhere")
    return "\n".join([*lines, *([told] if without else [])])
