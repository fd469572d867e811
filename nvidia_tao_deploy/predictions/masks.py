"""Masks of query detectors: from the network's coarse logits to pixels of the source image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def resized_logits(logits: NDArray[Any], size: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    """Each of (K, h, w) mask logits, stretched bilinearly (OpenCV INTER_LINEAR) to (H, W); ``size`` is (W, H).

    One at a time: hundreds of float masks of a large image do not fit into memory.
    """
    import cv2

    for mask in logits:
        yield np.asarray(cv2.resize(np.ascontiguousarray(mask, np.float32), size, interpolation=cv2.INTER_LINEAR))


def source_masks(logits: NDArray[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(K, H, W) pixels whose probability is above one half, i.e. whose interpolated logit is above 0.

    Args:
        logits: (K, h, w) mask logits of a canvas that the image fills.
        size: (width, height) of the source image.
    """
    masks = np.empty((len(logits), size[1], size[0]), bool)
    for mask, resized in zip(masks, resized_logits(logits, size), strict=True):
        np.greater(resized, 0, out=mask)
    return masks
