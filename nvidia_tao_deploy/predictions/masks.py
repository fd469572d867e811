"""From a network's coarse masks to pixels of the source image: whole-image masks, and masks over boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Bools, Ints
from nvidia_tao_deploy.predictions.types import Detections


def resized_logits(logits: Array, size: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    """Each of (K, h, w) mask logits, stretched bilinearly (OpenCV INTER_LINEAR) to (H, W); ``size`` is (W, H).

    One at a time: hundreds of float masks of a large image do not fit into memory.
    """
    import cv2

    for mask in logits:
        yield np.asarray(cv2.resize(np.ascontiguousarray(mask, np.float32), size, interpolation=cv2.INTER_LINEAR))


def source_masks(logits: Array, size: tuple[int, int]) -> Bools:
    """(K, H, W) pixels whose probability is above one half, i.e. whose interpolated logit is above 0.

    ``logits`` are (K, h, w) of a canvas that the image fills; ``size`` is the (width, height) of the source image.
    """
    masks = np.empty((len(logits), size[1], size[0]), bool)
    for mask, resized in zip(masks, resized_logits(logits, size), strict=True):
        np.greater(resized, 0, out=mask)
    return masks


class Pasted(NamedTuple):
    """A mask where it lies: the picture is empty elsewhere.

    Attributes:
        part: (h, w) bool.
        corner: (left, top) of the part, pixels.
    """

    part: Bools
    corner: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class RoiMaskDetections(Detections):
    """Detections whose masks are known on a grid over each box (Mask R-CNN); pixels are made one mask at a time.

    Attributes:
        roi_masks: (N, S, S) float32 probabilities.
        size: (width, height) of the source image.
    """

    roi_masks: NDArray[np.float32]
    size: tuple[int, int]

    def __getitem__(self, index: Bools | Ints | slice) -> RoiMaskDetections:
        return RoiMaskDetections(
            self.boxes_xyxy[index],
            self.scores[index],
            self.class_ids[index],
            roi_masks=self.roi_masks[index],
            size=self.size,
        )

    def pasted(self) -> Iterator[Pasted]:
        """Each detection's mask in the source image, see :func:`paste_roi_mask`."""
        for corners, mask in zip(mask_corners(self.boxes_xyxy, self.roi_masks.shape[1]), self.roi_masks, strict=True):
            yield paste_roi_mask(mask, corners, self.size)


def mask_corners(boxes_xyxy: Array, side: int) -> Ints:
    """(N, 4) whole pixels that a mask of ``side`` cells and a border of one cell covers, both ends included.

    The box is grown by (side + 2) / side about its centre; corners are cut off toward zero.
    """
    boxes = np.asarray(boxes_xyxy, np.float64)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * ((side + 2) / side)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.int64)


def paste_roi_mask(probabilities: Array, corners: Ints, size: tuple[int, int]) -> Pasted:
    """Stretch one mask over its box: pixels whose interpolated probability is above one half.

    Contract: _coco_detection.md, "Masks from box-level logits". OpenCV INTER_LINEAR; outside the grid it is 0.

    Args:
        probabilities: (S, S).
        corners: a row of :func:`mask_corners`.
        size: (width, height) of the picture; what lies beyond is cut off, the part may then be empty.
    """
    import cv2

    x1, y1, x2, y2 = corners.tolist()
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    left, top = min(max(x1, 0), size[0]), min(max(y1, 0), size[1])
    right, bottom = max(min(x1 + width, size[0]), left), max(min(y1 + height, size[1]), top)
    if right == left or bottom == top:
        return Pasted(np.zeros((bottom - top, right - left), bool), (left, top))
    bordered = np.pad(np.asarray(probabilities, np.float32), 1)
    whole = np.asarray(cv2.resize(bordered, (width, height), interpolation=cv2.INTER_LINEAR)) > 0.5
    return Pasted(whole[top - y1 : bottom - y1, left - x1 : right - x1], (left, top))
