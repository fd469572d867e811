"""COCO average precision and recall for masks, equal to pycocotools', and boxes and masks together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nvidia_tao_deploy.arrays import Bools, Floats, Ints
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.metrics.coco import CocoMetric, truth_boxes
from nvidia_tao_deploy.metrics.coco_evaluation import Boxes
from nvidia_tao_deploy.predictions.masks import RoiMaskDetections
from nvidia_tao_deploy.predictions.types import Detections

if TYPE_CHECKING:
    from nvidia_tao_deploy.data.coco import CocoDetection

Code = dict[str, Any]
_FAR = 1e5  # pixels; no polygon reaches beyond


def has_masks(dataset: CocoDetection) -> bool:
    """Whether any annotation has a segmentation."""
    return any(annotation.get("segmentation") for annotation in dataset.raw["annotations"])


def encode_mask(mask: Bools) -> Code:
    """(H, W) -> COCO's column-major run-length code."""
    from pycocotools import mask as codes

    return dict(codes.encode(np.asfortranarray(mask, dtype=np.uint8)))


def encode_part(part: Bools, corner: tuple[int, int], size: tuple[int, int]) -> Code:
    """The run-length code of a picture that is empty but for ``part``, without making the picture.

    Args:
        part: (h, w), which must lie inside the picture.
        corner: (left, top) of the part.
        size: (width, height) of the picture.
    """
    from pycocotools import mask as codes

    (left, top), (width, height) = corner, size
    band = np.zeros((part.shape[1], height), bool)  # the columns that the part covers, one after the other
    band[:, top : top + part.shape[0]] = part.T
    flat = band.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1 + left * height
    # runs alternate, the first one is of zeros
    starts = [left * height] if flat.size and flat[0] else []
    ends = [(left + band.shape[0]) * height] if flat.size and flat[-1] else []
    edges = np.concatenate([[0], starts, changes, ends, [width * height]]).astype(np.int64)
    return dict(codes.frPyObjects({"size": [height, width], "counts": np.diff(edges).tolist()}, height, width))


def encode_masks(detections: Detections) -> list[Code]:
    """The run-length codes of an image's masks, one per detection, the size of the source image."""
    if isinstance(detections, RoiMaskDetections):
        return [encode_part(part, corner, detections.size) for part, corner in detections.pasted()]
    assert detections.masks is not None
    return [encode_mask(mask) for mask in detections.masks]


def encode_segmentation(segmentation: Any, size: tuple[int, int]) -> Code:
    """Polygons, or a run-length code with counts as list or text, as one run-length code; ``size`` is (width, height).

    Everything is checked first: pycocotools takes all memory for a point that is not finite or far away, and never
    ends on runs that do not fill the picture.

    Raises:
        DataError: it is neither, or a code of another size.
    """
    from pycocotools import mask as codes

    width, height = size
    try:
        if isinstance(segmentation, list):
            polygons = [np.asarray(polygon, np.float64) for polygon in segmentation]
            if not all(p.ndim == 1 and len(p) > 5 and len(p) % 2 == 0 and np.abs(p).max() < _FAR for p in polygons):
                raise ValueError
            return dict(codes.merge(codes.frPyObjects(segmentation, height, width)))
        rows, columns = segmentation["size"]
        if (columns, rows) != size:
            raise DataError(f"a mask of {columns} x {rows} pixels on an image of {width} x {height}")
        listed = isinstance(segmentation["counts"], list)
        runs = np.asarray(segmentation["counts"], np.int64) if listed else _runs(segmentation["counts"])
        if (runs < 0).any() or runs.sum() != width * height:
            raise ValueError
        return dict(codes.frPyObjects(segmentation, rows, columns) if listed else segmentation)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"not a COCO segmentation: {str(segmentation)[:80]}") from error


def _runs(text: str | bytes) -> Ints:
    """(N,) the runs of a code as text: five bits per character, the lowest first, the sixth says that more follow.

    From the fourth run on the code holds the difference to the run before the last.
    """
    bits = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8).astype(np.int64) - 48
    last = (bits & 32) == 0
    if not len(bits) or not last[-1] or not ((bits >= 0) & (bits < 64)).all():
        raise ValueError
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = 5 * (np.arange(len(bits)) - np.repeat(starts, np.diff([*starts, len(bits)])))
    if place.max() > 30:
        raise ValueError
    runs = np.add.reduceat((bits & 31) << place, starts) - np.where(bits[last] & 16, 32 << place[last], 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return np.asarray(runs)


class CocoMaskMetric(CocoMetric):
    """The 12 numbers of the COCO evaluation with the overlap of masks, keys as for boxes with ``mask_`` before them.

    Small, medium and large go by the area of detected masks, not of their boxes.

    Args:
        dataset: where the ground truth comes from.
        category_of_class: class id -> category id; None: class ids are category ids.
        eval_class_ids: category ids to score; None: all of the json.

    Raises:
        DataError: some annotations have a segmentation and others do not.
    """

    prefix: ClassVar[str] = "mask_"

    def __init__(
        self,
        dataset: CocoDetection,
        category_of_class: Sequence[int] | None = None,
        eval_class_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__(dataset, category_of_class, eval_class_ids)
        self._codes: list[Code] = []
        self._annotations: list[Any] = []
        self._truth_codes: list[Code] = []
        annotations = dataset.raw["annotations"]
        without = [a["id"] for a in annotations if not a.get("segmentation")]
        if without:
            raise DataError(
                f"{len(without)} of {len(annotations)} annotations have no segmentation, the first has id {without[0]}",
                where=str(dataset.json_file),
                remedy="Give every annotation a mask.",
            )

    def _take(self, sample: Sample, prediction: Detections, categories: Ints) -> None:
        """Keep the codes of an image's masks, and code its truth in their size."""
        prediction = prediction[np.asarray(categories >= 0)]
        size = prediction.size if isinstance(prediction, RoiMaskDetections) else _size(prediction)
        try:
            codes = [encode_segmentation(a["segmentation"], size) for a in sample.target.annotations]
        except DataError as error:
            raise DataError(f"image {sample.id}: {error.what}", where=str(self._dataset.json_file)) from error
        self._annotations += sample.target.annotations
        self._truth_codes += codes
        self._codes += encode_masks(prediction)

    def notes(self) -> list[str]:
        """Annotations whose mask has no pixel; what the boxes do not show, they have said already."""
        empty = [a["id"] for a, area in zip(self._annotations, _areas(self._truth_codes), strict=True) if not area]
        told = f"{counted(len(empty), 'annotations have a mask without a pixel')} (kept: misses): {some(empty)}"
        return [told] if empty else []

    def _detections(self) -> Boxes:
        return replace(_masked(super()._detections(), self._codes), area=_areas(self._codes))

    def _truth(self) -> Boxes:
        return _masked(truth_boxes(self._annotations), self._truth_codes)


class BoxesAndMasks:
    """The 12 numbers for boxes and, where there are masks to compare with, the 12 for masks."""

    def __init__(self, boxes: CocoMetric, masks: CocoMaskMetric | None) -> None:
        self._boxes, self._masks = boxes, masks

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Take one image's detections."""
        if self._masks is not None:
            self._masks.update(sample, prediction)
        self._boxes.update(sample, prediction)

    def compute(self) -> dict[str, float]:
        """12 or 24 keys."""
        return {**self._boxes.compute(), **(self._masks.compute() if self._masks is not None else {})}

    def per_class(self) -> dict[int, tuple[float, float]]:
        """Those of the boxes, see :meth:`CocoMetric.per_class`."""
        return self._boxes.per_class()

    def report(self) -> str:
        """The numbers of the boxes by class, then those of the masks."""
        masks = ["", self._masks.report()] if self._masks is not None else ["no annotation has a mask: boxes only"]
        return "\n".join([self._boxes.report(), *masks])


def _size(detections: Detections) -> tuple[int, int]:
    assert detections.masks is not None
    return detections.masks.shape[2], detections.masks.shape[1]


def _masked(boxes: Boxes, codes: Sequence[Code]) -> Boxes:
    """The same rows with masks, and boxes that enclose these."""
    from pycocotools import mask as coco

    masks = np.empty(len(codes), object)
    masks[:] = codes
    enclosing = np.array([coco.toBbox(code) for code in codes], np.float64)
    return replace(boxes, masks=masks, boxes_xywh=enclosing.reshape(-1, 4))


def _areas(codes: Sequence[Code]) -> Floats:
    from pycocotools import mask as coco

    # one at a time: given a list of more than 255 codes, pycocotools 2.0.11 overflows on numpy 2
    return np.array([coco.area(code) for code in codes], np.float64)
