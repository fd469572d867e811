"""Decoding of query-based detectors: deformable_detr, dino, rtdetr and the prompted ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Floats, Ints
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.predictions.checks import refuse_nan
from nvidia_tao_deploy.predictions.types import Detections
from nvidia_tao_deploy.transforms.transform import Geometry

_SAMPLE = 17  # prime to the usual numbers of classes


def decode_detr(logits: Array, boxes: Array, geometries: Sequence[Geometry], num_select: int) -> list[Detections]:
    """The best ``num_select`` (query, class) pairs of each image; no suppression, no threshold.

    A query may appear several times with different classes. Boxes are clipped to the source image.

    Args:
        logits: (B, NQ, C) raw class logits.
        boxes: (B, NQ, 4) centre x, centre y, width, height in [0, 1] of the network's canvas.
        geometries: how each of the first ``len(geometries)`` images was placed.
        num_select: pairs per image; capped at NQ * C.

    Returns:
        Per image, by descending score, the lowest flat index (query * C + class) first among equal scores;
        ``class_ids`` are channels.

    Raises:
        ModelError: the outputs' shapes do not fit each other, or hold NaN.
    """
    raw, corners = _checked(logits, boxes, len(geometries))
    found = []
    for image, xyxy, geometry in zip(raw, corners, geometries, strict=True):
        pairs, scores = _best_of_logits(image.ravel(), num_select)
        query, class_ids = np.divmod(pairs, max(image.shape[1], 1))
        found.append(Detections(to_source_clipped(xyxy[query], geometry), scores.astype(np.float64), class_ids))
    return found


def checked_outputs(logits: Array, boxes: Array, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities (count, NQ, C) and corners (count, NQ, 4) of the first ``count`` images of a batch.

    Raises:
        ModelError: the outputs' shapes do not fit each other, or hold NaN.
    """
    raw, corners = _checked(logits, boxes, count)
    return sigmoid(raw), corners


def _checked(logits: Array, boxes: Array, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4):
        raise ModelError(f"logits {logits.shape} and boxes {boxes.shape} are not (B, NQ, C) and (B, NQ, 4)")
    raw = logits[:count].astype(np.float32, copy=False)
    corners = center_to_corners(boxes[:count].astype(np.float32, copy=False))
    refuse_nan(raw, corners)
    return raw, corners


def _best_of_logits(logits: NDArray[np.float32], k: int) -> tuple[Ints, NDArray[np.float32]]:
    """``top_k(sigmoid(logits), k)`` and those scores, for (N,) logits, with the sigmoid of few of them.

    A sample says which logits can be among the best; where it misleads, all are taken.
    """
    sample = logits[::_SAMPLE]
    expected = 2 * k // _SAMPLE + 8
    if expected < len(sample):
        least = np.partition(sample, len(sample) - expected)[len(sample) - expected]
        likely = np.flatnonzero(logits >= least)
        if len(likely) >= k > 0:
            scores = sigmoid(logits[likely])
            best = top_k(scores, k)
            if scores[best[-1]] > sigmoid(np.array([least]))[0]:  # nothing that was left out reaches the last one
                return likely[best], scores[best]
    scores = sigmoid(logits)
    best = top_k(scores, k)
    return best, scores[best]


def best_pairs(
    scores: Array, corners: NDArray[np.float32], geometry: Geometry, num_select: int
) -> tuple[Ints, Detections]:
    """The best ``num_select`` (query, class) pairs of one image.

    Args:
        scores: (NQ, C).
        corners: (NQ, 4) in [0, 1] of the canvas.
        geometry: how the image was placed.
        num_select: capped at NQ * C.

    Returns:
        (K,) queries and the K detections, ordered as :func:`decode_detr` says.
    """
    flat = scores.ravel()
    best = top_k(flat, num_select)
    query, class_ids = np.divmod(best, max(scores.shape[1], 1))
    return query, Detections(to_source_clipped(corners[query], geometry), flat[best].astype(np.float64), class_ids)


def class_scores(probabilities: Array, spans: Ints) -> Floats:
    """Mean probability of each class's tokens.

    Args:
        probabilities: (NQ, T) of query and token.
        spans: (n, 2) first token of each class and the one after its last, in rising order, none empty, the last
            end below T (the caption ends with [SEP]).

    Returns:
        (NQ, n). Equal rows give equal scores, whatever the number of queries: the sums are taken in one order.
    """
    sums = np.add.reduceat(np.asarray(probabilities, np.float64), spans.ravel(), axis=1)[:, ::2]
    return np.asarray(sums * (1.0 / (spans[:, 1] - spans[:, 0])), dtype=np.float64)


def sigmoid(logits: Array) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) in float32; saturates to 0 and 1."""
    with np.errstate(over="ignore"):  # exp overflows to infinity, whose inverse is the right limit
        exponential = np.exp(-logits.astype(np.float32, copy=False))
    np.add(exponential, np.float32(1), out=exponential)
    return np.asarray(np.divide(np.float32(1), exponential, out=exponential), dtype=np.float32)


def center_to_corners(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 4) centre x, centre y, width, height -> x1, y1, x2, y2."""
    center, half = boxes[..., :2], boxes[..., 2:] * np.float32(0.5)
    corners = np.empty_like(boxes)
    np.subtract(center, half, out=corners[..., :2])
    np.add(center, half, out=corners[..., 2:])
    return corners


def top_k(scores: Array, k: int) -> Ints:
    """Indices (min(k, N),) of the largest of (N,) scores, descending, the lowest index first among equals."""
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    if k <= 0:
        return np.zeros(0, np.int64)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    tied = np.flatnonzero(scores == least)[: k - len(above)]
    chosen = np.sort(np.concatenate([above, tied]))
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def to_source_clipped(boxes: NDArray[np.float32], geometry: Geometry) -> Floats:
    """(N, 4) corners in [0, 1] of the canvas -> source pixels, clipped to the source image.

    Where the image fills the canvas this is corner * source size with no detour over network pixels, the
    contract's arithmetic: float32 corners, float64 product.
    """
    extent, shift, source = _frame(geometry.source_size, geometry.network_size, geometry.scale, geometry.offset)
    placed = boxes.astype(np.float64)
    placed *= extent
    placed -= shift
    np.maximum(placed, 0.0, out=placed)
    return np.minimum(placed, source, out=placed)


@lru_cache(maxsize=1024)  # most images of a set share their size
def _frame(
    size: tuple[int, int], canvas: tuple[int, int], scales: tuple[float, float], offsets: tuple[float, float]
) -> tuple[Floats, Floats, Floats]:
    """(4,) each: source pixels that the canvas spans, source pixels before the image, the image's size."""
    source, network, scale, offset = (np.array(pair * 2, dtype=np.float64) for pair in (size, canvas, scales, offsets))
    return np.where(scale == network / source, source, network / scale), offset / scale, source
