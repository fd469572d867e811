"""PyramidROIAlign_TRT."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nvidia_tao_deploy.graph.lower.emit import FLOAT, CannotLowerError, Emitter, Tensor
from nvidia_tao_deploy.graph.lower.node import PluginNode
from nvidia_tao_deploy.graph.lower.sample import level_by_area, per_roi, pyramid_rows, sample_rois

LEVELS = 4
LEGACY = {
    "roi_coords_transform": -1,
    "sampling_ratio": 1,
    "roi_coords_plusone": 0,
    "roi_coords_swap": 1,
    "roi_coords_absolute": 0,
}
# The legacy thresholds, 224^2 / 8 pixels and so on, hold for this image whatever image_size says.
LEGACY_SCALE, LEGACY_IMAGE = 224 / math.sqrt(2), (1024.0, 1024.0)


def lower_pyramid_roi_align(g: Emitter, node: PluginNode) -> list[Tensor]:
    """PyramidROIAlign_TRT: rois (N, R, 4) and maps P2..P5 -> (N, R, C, p, p), the mean of bilinear samples per bin.

    With ``sampling_ratio`` 0 a roi takes one sample per started pixel of a bin and axis. The number of samples then
    depends on the data: a Loop takes one sample per bin and round and ends when every roi has its own.
    """
    node.expect_inputs(1 + LEVELS)
    rois, *maps = node.inputs
    legacy = LEGACY if node.flag("legacy", 0) else {}

    def setting(name: str, default: int) -> int:
        return legacy.get(name, node.integer(name, default))

    pooled = node.integer("pooled_size", 7)
    image_h, image_w = (float(v) for v in node.numbers("image_size", 2, [1024, 1024]))
    fpn_scale: float = node.integer("fpn_scale", 224)
    if legacy:
        fpn_scale, (image_h, image_w) = LEGACY_SCALE, LEGACY_IMAGE
    ratio, transform = setting("sampling_ratio", 0), setting("roi_coords_transform", 2)
    if transform not in (-1, 0, 1, 2):
        raise CannotLowerError(f"its roi_coords_transform {transform} is none of -1, 0, 1, 2")
    count = g.fixed(rois, 3)[1]
    pyramid = pyramid_rows(g, maps)
    ends = _relative_ends(
        g, rois, image_h, image_w, bool(setting("roi_coords_swap", 0)), bool(setting("roi_coords_absolute", 1))
    )
    area = _area(g, ends, image_h, image_w, bool(setting("roi_coords_plusone", 0)))
    # The first level takes rois of up to (fpn_scale / 2)^2 pixels.
    level = level_by_area(g, area, fpn_scale * fpn_scale / 4 / (image_h * image_w), LEVELS, count)
    (rows, most_rows, row_positions), (columns, most_columns, column_positions) = (
        _axis(g, level, low, high, [size[axis] for size in pyramid.sizes], pooled, ratio, transform)
        for axis, (low, high) in enumerate((ends[0::2], ends[1::2]))
    )
    own_samples = g("Mul", rows, columns)
    width = count * pooled * pooled * pyramid.channels

    def body(iteration: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        number = g.cast(iteration, FLOAT)
        # Row-major over the grid of samples; the half keeps an inexact division on the right side.
        row = g("Floor", g("Div", g("Add", number, 0.5), columns))
        column = g("Sub", number, g("Mul", row, columns))
        samples = sample_rois(g, pyramid, level, row_positions(row), column_positions(column), count, pooled)
        wanted = g.unsqueeze(g("Less", number, own_samples), 3)
        added = g("Add", state[0], g.reshape(g("Where", wanted, samples, 0.0), -1, width))
        most = g.reduce("ReduceMax", own_samples, [0, 1, 2], keepdims=False)
        return g("Less", g("Add", number, 1.0), most), [added]

    (total,) = g.loop(most_rows * most_columns, [(g.batched(width, value=0.0), FLOAT, width)], body)
    mean = g("Div", g.reshape(total, -1, count, pooled * pooled, pyramid.channels), g.unsqueeze(own_samples, 3))
    return [g.reshape(g.transpose(mean, 0, 1, 3, 2), -1, count, pyramid.channels, pooled, pooled)]


def _relative_ends(
    g: Emitter, rois: Tensor, height: float, width: float, rows_first: bool, absolute: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y1, x1, y2, x2 as (N, R, 1), clamped to the image and divided by its size."""
    first, second = g.slice(rois, 2, 0, 2), g.slice(rois, 2, 2, 4)
    low, high = g("Min", first, second), g("Max", first, second)
    y, x = (0, 1) if rows_first else (1, 0)

    def relative(part: Tensor, axis: int, size: float) -> Tensor:
        value = g.slice(part, 2, axis, axis + 1)
        return g("Div", g.clamp(value, 0.0, size), size) if absolute else g.clamp(value, 0.0, 1.0)

    return relative(low, y, height), relative(low, x, width), relative(high, y, height), relative(high, x, width)


def _area(g: Emitter, ends: tuple[Tensor, ...], height: float, width: float, plus_one: bool) -> Tensor:
    """(N, R, 1) share of the image."""
    y1, x1, y2, x2 = ends
    roi_h, roi_w = g("Sub", y2, y1), g("Sub", x2, x1)
    if plus_one:
        roi_h, roi_w = g("Add", roi_h, 1 / height), g("Add", roi_w, 1 / width)
    return g("Mul", roi_h, roi_w)


def _axis(
    g: Emitter, level: Tensor, low: Tensor, high: Tensor, sizes: list[int], pooled: int, ratio: int, transform: int
) -> tuple[Tensor, int, Callable[[Tensor], Tensor]]:
    """Samples in the bins of every roi along one axis of its level's map.

    Their number (N, R, 1), the most there can be, and a function from the number (N, R, 1) of a sample to its pixel
    positions (N, R, pooled) in the bins.
    """
    bins, offset = np.arange(pooled, dtype=np.float32)[None, None], 0.5 if transform > 0 else 0.0
    corners = transform == -1
    size = per_roi(g, level, [float(s - 1 if corners else s) for s in sizes], np.float32)
    shift = 0.5 if transform == 2 else 0.0
    start = g("Sub", g("Mul", low, size), shift)
    length = g("Sub", g("Sub", g("Mul", high, size), shift), start)
    step = g("Div", length, float(pooled - 1 if corners else pooled))
    if ratio > 0:
        samples, most = g("Add", g("Mul", length, 0.0), float(ratio)), ratio
    else:
        samples = g("Max", g("Ceil", g("Div", length, float(pooled))), 1.0)
        most = max(1, math.ceil(max(sizes) / pooled))

    def positions(sample: Tensor) -> Tensor:
        within = g("Div", g("Mul", step, g("Add", sample, offset)), samples)
        return g("Add", g("Add", start, g("Mul", step, bins)), within)

    return samples, most, positions
