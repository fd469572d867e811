"""COCO average precision and recall for masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.metrics.coco import KEYS
from nvidia_tao_deploy.predictions.types import Detections

if TYPE_CHECKING:
    from nvidia_tao_deploy.data.coco import CocoDetection


def has_masks(dataset: CocoDetection) -> bool:
    """Whether any annotation has a segmentation."""
    return any(annotation.get("segmentation") for annotation in dataset.raw["annotations"])


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """(H, W) -> COCO's column-major run-length code."""
    from pycocotools import mask as codes

    return dict(codes.encode(np.asfortranarray(mask, dtype=np.uint8)))


def encode_segmentation(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Polygons, or a run-length code with counts as list or text, as one run-length code.

    Args:
        segmentation: as annotated.
        size: (width, height) of the image.

    Raises:
        DataError: it is neither, or a code of another size.
    """
    from pycocotools import mask as codes

    width, height = size
    try:
        if isinstance(segmentation, list):
            return dict(codes.merge(codes.frPyObjects(segmentation, height, width)))
        if isinstance(segmentation["counts"], list):
            return _of_size(dict(codes.frPyObjects(segmentation, *segmentation["size"])), size)
        return _of_size(dict(segmentation), size)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"not a COCO segmentation: {str(segmentation)[:80]}") from error


def _of_size(code: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    height, width = code["size"]
    if (width, height) != size:
        raise DataError(f"a mask of {width} x {height} pixels on an image of {size[0]} x {size[1]}")
    return code


class CocoMaskMetric:
    """The 12 numbers of the COCO evaluation with the overlap of masks, keys as for boxes with ``mask_`` before them.

    Small, medium and large go by the area of detected masks, not of their boxes.

    Args:
        dataset: where the ground truth comes from.
        category_of_class: class id -> category id; None: class ids are category ids.
        eval_class_ids: category ids to score; None: all of the json.

    Raises:
        DataError: some annotations have a segmentation and others do not.
    """

    def __init__(
        self,
        dataset: CocoDetection,
        category_of_class: Sequence[int] | None = None,
        eval_class_ids: Sequence[int] | None = None,
    ) -> None:
        self._dataset, self._map = dataset, category_of_class
        self._category_ids = list(dataset.categories if eval_class_ids is None else eval_class_ids)
        self._detections: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        annotations = dataset.raw["annotations"]
        without = [a["id"] for a in annotations if not a.get("segmentation")]
        if without:
            raise DataError(
                f"{len(without)} of {len(annotations)} annotations have no segmentation, the first has id {without[0]}",
                where=str(dataset.json_file),
                remedy="Give every annotation a mask, or none to evaluate boxes only.",
            )

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Take one image's detections, which have masks.

        Raises:
            DataError: a segmentation cannot be read, or is of another size than the image.
        """
        assert prediction.masks is not None
        size = (prediction.masks.shape[2], prediction.masks.shape[1])
        image_id = int(sample.id)
        try:
            for annotation in sample.target.annotations:
                code = encode_segmentation(annotation["segmentation"], size)
                self._truth.append({**annotation, "segmentation": code})
        except DataError as error:
            raise DataError(f"image {sample.id}: {error.what}", where=str(self._dataset.json_file)) from error
        self._images.append({"id": image_id, "width": size[0], "height": size[1]})
        for mask, score, class_id in zip(
            prediction.masks, prediction.scores.tolist(), prediction.class_ids.tolist(), strict=True
        ):
            category = class_id if self._map is None else self._map[class_id]
            code = encode_mask(mask)
            self._detections.append(
                {
                    "id": len(self._detections) + 1,
                    "image_id": image_id,
                    "category_id": int(category),
                    "score": score,
                    "segmentation": code,
                    "area": float(_area(code)),
                    "iscrowd": 0,
                }
            )

    def compute(self) -> dict[str, float]:
        """``mask_`` and each of the 12 keys, rounded to float32."""
        from pycocotools.cocoeval import COCOeval

        categories = self._dataset.raw["categories"]
        with contextlib.redirect_stdout(io.StringIO()):
            truth, found = (_indexed(rows, self._images, categories) for rows in (self._truth, self._detections))
            evaluation = COCOeval(truth, found, "segm")
            evaluation.params.imgIds = sorted(image["id"] for image in self._images)
            evaluation.params.catIds = sorted(self._category_ids)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        values = np.asarray(evaluation.stats, dtype=np.float32).tolist()
        return {f"mask_{key}": value for key, value in zip(KEYS, values, strict=True)}


def _area(code: Mapping[str, Any]) -> float:
    from pycocotools import mask as codes

    return float(codes.area(code))


def _indexed(rows: list[dict[str, Any]], images: list[dict[str, Any]], categories: Sequence[Any]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {"images": images, "annotations": rows, "categories": list(categories)}
    coco.createIndex()
    return coco
