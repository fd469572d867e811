"""Label maps: from class scores to classes, and between the network's canvas and the source image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.predictions.checks import refuse_nan
from nvidia_tao_deploy.transforms.transform import Geometry


def argmax_map(planes: Iterable[Array], classes: int) -> Array:
    """(H, W) index of the largest of ``classes`` score planes (H, W), the lowest among ties; uint8 or uint16.

    Planes come one at a time, so that hundreds of classes of a large image fit into memory.

    Raises:
        ModelError: a score is NaN.
    """
    best: Array | None = None
    found: Array = np.zeros(0, np.uint8)
    for index, plane in enumerate(planes):
        if best is None:
            best = np.array(plane)
            found = np.zeros(best.shape, label_type(classes))
        else:
            found[plane > best] = index
            np.maximum(best, plane, out=best)  # NaN stays, so that one check at the end finds it
    if best is not None:
        refuse_nan(best)
    return found


def label_type(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The smallest type for class indices that leaves one value free."""
    return np.uint8 if classes < 256 else np.uint16


def to_source(canvas: Array, geometry: Geometry) -> Array:
    """Values of the canvas (H, W) at the source's pixels (h, w), by the nearest pixel as Pillow finds it.

    The source must lie on whole pixels of the canvas.
    """
    if canvas.shape == geometry.source_size[::-1] and geometry.scale == (1.0, 1.0) and geometry.offset == (0.0, 0.0):
        return canvas
    columns, rows = (
        np.clip(_nearest(taken, size) + start, 0, limit - 1)
        for size, (start, taken), limit in zip(
            geometry.source_size, _extents(geometry), geometry.network_size, strict=True
        )
    )
    return np.asarray(canvas[rows][:, columns])


def to_canvas(source: Array, geometry: Geometry, fill: int) -> Array:
    """Values of the source (h, w) at the canvas's pixels (H, W); ``fill`` where the source is not.

    By the nearest pixel as Pillow finds it; the source must lie on whole pixels of the canvas.
    """
    (left, wide), (top, high) = _extents(geometry)
    (width, height), (net_width, net_height) = geometry.source_size, geometry.network_size
    whole = (left, top, wide, high) == (0, 0, net_width, net_height)
    if whole and (width, height) == (wide, high):
        return source
    placed = source[_nearest(height, high)][:, _nearest(width, wide)]
    if whole:
        return np.asarray(placed)
    canvas = np.full((net_height, net_width), fill, source.dtype)
    part = canvas[max(top, 0) : top + high, max(left, 0) : left + wide]
    part[...] = placed[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]]
    return canvas


def _extents(geometry: Geometry) -> list[tuple[int, int]]:
    """(first pixel, pixels) that the source takes on the canvas, along x and y."""
    return [
        (round(offset), max(round(size * scale), 1))
        for size, scale, offset in zip(geometry.source_size, geometry.scale, geometry.offset, strict=True)
    ]


def _nearest(size: int, wanted: int) -> NDArray[np.intp]:
    """The pixel of ``size`` that each of ``wanted`` pixels falls on; Pillow adds steps up, which decides ties."""
    steps = np.full(wanted, size / wanted)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.intp), size - 1)
