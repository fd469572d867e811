"""COCO average precision and recall for boxes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.predictions.types import Detections

if TYPE_CHECKING:
    from nvidia_tao_deploy.data.coco import CocoDetection

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl")


class CocoMetric:
    """The 12 numbers of the COCO detection evaluation, by pycocotools, over the images seen by ``update``.

    Undefined numbers (no ground truth in an area range) are -1, as COCO defines them.

    Args:
        dataset: where the ground truth comes from.
        category_of_class: (C,) class id -> category id, negative for classes that are no category; None: class ids
            are category ids.
        eval_class_ids: category ids to score; None: all of the json.
        max_dets: detections per image and category that AR (first two) and everything else (last) may use.

    Raises:
        DataError: ``eval_class_ids`` or ``category_of_class`` names categories that the json does not have.
    """

    def __init__(
        self,
        dataset: CocoDetection,
        category_of_class: NDArray[np.integer[Any]] | Sequence[int] | None = None,
        eval_class_ids: Sequence[int] | None = None,
        max_dets: tuple[int, int, int] = (1, 10, 100),
    ) -> None:
        self._dataset = dataset
        self._map = None if category_of_class is None else np.asarray(category_of_class, dtype=np.int64)
        self._category_ids = sorted(set(dataset.categories if eval_class_ids is None else eval_class_ids))
        self._max_dets = max_dets
        self._image_ids: list[int] = []
        self._rows: list[NDArray[np.float64]] = []
        self._evaluation: Any = None
        where = str(dataset.json_file)
        unknown = [i for i in self._category_ids if i not in dataset.categories]
        if unknown:
            raise DataError(f"eval_class_ids {unknown} are no categories of the annotation file", where=where)
        if self._map is not None and not set(self._map.tolist()) & set(self._category_ids):
            raise DataError(
                f"no class of the network is a category of the annotation file: classes map to category ids "
                f"{sorted(set(self._map.tolist()))[:10]}, the file has {list(dataset.categories)[:10]}",
                where=where,
            )

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Take one image's detections; their order decides between equal scores.

        Raises:
            ModelError: a class id lies outside ``category_of_class``.
        """
        categories = prediction.class_ids
        if self._map is not None:
            if len(categories) and (categories.max() >= len(self._map) or categories.min() < 0):
                raise ModelError(
                    f"the model gives class {int(categories.max())}, the spec maps {len(self._map)} classes",
                    remedy="Model and spec (or annotation file) do not belong together.",
                )
            categories = self._map[categories]
        rows = np.empty((len(prediction), 7), np.float64)
        rows[:, 0] = sample.id
        rows[:, 1:3] = prediction.boxes_xyxy[:, :2]
        rows[:, 3:5] = prediction.boxes_xyxy[:, 2:] - prediction.boxes_xyxy[:, :2]
        rows[:, 5] = prediction.scores
        rows[:, 6] = categories
        self._image_ids.append(int(sample.id))
        self._rows.append(rows[categories >= 0])
        self._evaluation = None

    def compute(self) -> dict[str, float]:
        """:data:`KEYS` in order, rounded to float32 (the contract's results.json).

        Raises:
            DataError: no image was evaluated.
        """
        values = np.asarray(self.stats(), dtype=np.float32)
        return dict(zip(KEYS, map(float, values), strict=True))

    def stats(self) -> NDArray[np.float64]:
        """(12,) the same numbers in full precision."""
        return np.asarray(self._evaluated().stats, dtype=np.float64)

    def per_class(self) -> dict[int, tuple[float, float]]:
        """Category id -> (AP, AP50); -1 where the category has no ground truth."""
        precision = self._evaluated().eval["precision"][:, :, :, 0, -1]
        return {
            category: (_mean(precision[:, :, k]), _mean(precision[0, :, k]))
            for k, category in enumerate(self._category_ids)
        }

    def report(self) -> str:
        """The 12 numbers and the AP of every class."""
        lines = [f"{key:<10}{value:>8.4f}" for key, value in self.compute().items()]
        names = self._dataset.categories
        width = max([len(names[i]) for i in self._category_ids] + [5]) + 2
        lines += ["", f"{'class':<{width}}{'AP':>8}{'AP50':>8}"]
        for category, (ap, ap50) in self.per_class().items():
            lines.append(f"{names[category]:<{width}}{_cell(ap)}{_cell(ap50)}")
        return "\n".join(lines)

    def _evaluated(self) -> Any:
        if self._evaluation is None:
            self._evaluation = self._evaluate()
        return self._evaluation

    def _evaluate(self) -> Any:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        if not self._image_ids:
            raise DataError("no image was evaluated", where=str(self._dataset.json_file))
        rows = np.concatenate(self._rows)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            truth = COCO()
            truth.dataset = self._dataset.raw
            truth.createIndex()
            evaluation = COCOeval(truth, _detections(truth, rows), "bbox")
            evaluation.params.imgIds = sorted(set(self._image_ids))
            evaluation.params.catIds = self._category_ids
            evaluation.params.maxDets = list(self._max_dets)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation


def _detections(truth: Any, rows: NDArray[np.float64]) -> Any:
    """Rows (N, 7) image id, x, y, width, height, score, category id as a pycocotools result set; N may be 0."""
    from pycocotools.coco import COCO

    result = COCO()
    result.dataset = {
        "images": truth.dataset["images"],
        "categories": truth.dataset["categories"],
        "annotations": [
            {
                "id": number,
                "image_id": int(image),
                "category_id": int(category),
                "bbox": [x, y, width, height],
                "area": width * height,
                "score": score,
                "iscrowd": 0,
            }
            for number, (image, x, y, width, height, score, category) in enumerate(rows.tolist(), start=1)
        ],
    }
    result.createIndex()
    return result


def _mean(precision: NDArray[np.float64]) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else -1.0


def _cell(value: float) -> str:
    return f"{'-':>8}" if value < 0 else f"{value:>8.4f}"
