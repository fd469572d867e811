"""Bilinear samples from feature maps at given pixel positions, by four row gathers.

GridSample needs opset 16 and coordinates scaled to -1..1, which costs accuracy on large maps; gathering whole rows of
channels is exact, works from opset 11 on, and lets one gather serve all levels of a pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nvidia_tao_deploy.graph.lower.emit import INT64, CannotLowerError, Emitter, Operand, Tensor


@dataclass(frozen=True)
class Pyramid:
    """Feature maps of one or more levels as rows: (B * S, C), S positions of all levels of one image.

    Attributes:
        sizes: (height, width) per level.
    """

    rows: Tensor
    channels: int
    sizes: tuple[tuple[int, int], ...]

    @property
    def positions(self) -> int:
        return sum(height * width for height, width in self.sizes)

    @property
    def offsets(self) -> list[int]:
        areas = [height * width for height, width in self.sizes]
        return [sum(areas[:level]) for level in range(len(areas))]


def pyramid_rows(g: Emitter, features: Sequence[Tensor]) -> Pyramid:
    """Lay out maps (B, C, H_l, W_l) as rows of channels."""
    parts, sizes, channels = [], [], 0
    for feature in features:
        _, depth, height, width = g.fixed(feature, 4)
        if channels not in (0, depth):
            raise CannotLowerError(f"its feature maps have {channels} and {depth} channels")
        channels = depth
        sizes.append((height, width))
        parts.append(g.reshape(g.transpose(feature, 0, 2, 3, 1), -1, height * width, depth))
    return Pyramid(g.reshape(g.concat(parts, 1), -1, channels), channels, tuple(sizes))


def bilinear(
    g: Emitter, pyramid: Pyramid, y: Tensor, x: Tensor, base: Operand, width: Operand, last_y: Operand, last_x: Operand
) -> Tensor:
    """Samples (B, P, C) between the four pixels around (y, x), both (B, P) float32 and inside the map.

    Args:
        base: (B, P) or broadcastable int64: first row of the level within its image.
        width: row length of the level, int64; ``last_y``, ``last_x``: its last row and column, float32.
    """
    top, left = g("Floor", y), g("Floor", x)
    # Beyond the last pixel the weight is zero; stay on it.
    bottom, right = g("Min", g("Add", top, 1.0), last_y), g("Min", g("Add", left, 1.0), last_x)
    down, across = g.unsqueeze(g("Sub", y, top), 2), g.unsqueeze(g("Sub", x, left), 2)
    image = g("Mul", g.batch_index(), pyramid.positions)
    start = g("Add", image, base)

    def corner(row: Tensor, column: Tensor) -> Tensor:
        position = g("Add", g("Mul", g.cast(row, INT64), width), g.cast(column, INT64))
        return g("Gather", pyramid.rows, g("Add", start, position), axis=0)

    def mix(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
        return g("Add", first, g("Mul", g("Sub", second, first), weight))

    upper = mix(corner(top, left), corner(top, right), across)
    lower = mix(corner(bottom, left), corner(bottom, right), across)
    return mix(upper, lower, down)


def per_roi(g: Emitter, level: Tensor, values: Sequence[float] | Sequence[int], kind: type) -> Tensor:
    """(B, R, 1): the entry of a table over levels for each roi's level (B, R)."""
    return g.unsqueeze(g("Gather", np.asarray(values, kind), level, axis=0), 2)


def level_by_area(g: Emitter, area: Tensor, first: float, levels: int, count: int) -> Tensor:
    """(B, R) int64 level of each roi by its area (B, R, 1): the first up to ``first``, then four times as much each."""
    limits = np.asarray([first * 4**step for step in range(levels - 1)], np.float32)
    return g.reshape(g.reduce("ReduceSum", g.cast(g("Greater", area, limits), INT64), [2]), -1, count)


def sample_rois(g: Emitter, pyramid: Pyramid, level: Tensor, y: Tensor, x: Tensor, count: int, pooled: int) -> Tensor:
    """Samples (B, R, pooled * pooled, C) at every pair of y and x, (B, R, pooled) each, on each roi's level.

    Positions are pixels of the level's map and are clamped to it.
    """
    last_y = per_roi(g, level, [h - 1 for h, _ in pyramid.sizes], np.float32)
    last_x = per_roi(g, level, [w - 1 for _, w in pyramid.sizes], np.float32)
    y, x = outer(g, g.clamp(y, 0.0, last_y), g.clamp(x, 0.0, last_x), count, pooled, pooled)
    bins = pooled * pooled

    def repeat(value: Tensor, kind: type) -> Tensor:
        return g.reshape(g("Add", value, np.zeros((1, 1, bins), kind)), -1, count * bins)

    base = repeat(per_roi(g, level, pyramid.offsets, np.int64), np.int64)
    width = repeat(per_roi(g, level, [w for _, w in pyramid.sizes], np.int64), np.int64)
    samples = bilinear(g, pyramid, y, x, base, width, repeat(last_y, np.float32), repeat(last_x, np.float32))
    return g.reshape(samples, -1, count, bins, pyramid.channels)


def outer(g: Emitter, y: Tensor, x: Tensor, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Every pair of y (B, R, height) and x (B, R, width), as (B, R * height * width) each."""
    blank = np.zeros((1, 1, height, width), np.float32)
    return (
        g.reshape(g("Add", g.unsqueeze(y, 3), blank), -1, count * height * width),
        g.reshape(g("Add", g.unsqueeze(x, 2), blank), -1, count * height * width),
    )
