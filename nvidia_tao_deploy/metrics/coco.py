"""COCO average precision and recall for boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Floats, Ints
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.coco_evaluation import ALL, Boxes, CocoEvaluation, evaluate, mean_defined
from nvidia_tao_deploy.predictions.types import Detections

if TYPE_CHECKING:
    from nvidia_tao_deploy.data.coco import CocoDetection

Scalar = TypeVar("Scalar", bound=np.generic)
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl")


class CocoMetric:
    """The 12 numbers of the COCO detection evaluation, equal to pycocotools', over the images seen by ``update``.

    Undefined numbers (no ground truth in an area range) are -1, as COCO defines them.

    Args:
        dataset: where the ground truth comes from.
        category_of_class: (C,) class id -> category id, negative for classes that are no category; None: class ids
            are category ids.
        eval_class_ids: category ids to score; None or none: all of the json.
        max_dets: detections per image and category that AR (first two) and everything else (last) may use.

    Raises:
        DataError: ``eval_class_ids`` or ``category_of_class`` names categories that the json does not have.
    """

    prefix: ClassVar[str] = ""  # of the keys

    def __init__(
        self,
        dataset: CocoDetection,
        category_of_class: NDArray[np.integer[Any]] | Sequence[int] | None = None,
        eval_class_ids: Sequence[int] | None = None,
        max_dets: tuple[int, int, int] = (1, 10, 100),
    ) -> None:
        self._dataset = dataset
        self._map = None if category_of_class is None else np.asarray(category_of_class, dtype=np.int64)
        self._category_ids = sorted(set(eval_class_ids or dataset.categories))
        self._max_dets = max_dets
        self._image_ids: list[int] = []
        # Per image: its id, corners, scores and category ids (negative: none). Put together when all are there.
        self._found: list[tuple[int, Floats, Floats, Ints]] = []
        self._evaluation: CocoEvaluation | None = None
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
        """Take one image's detections; their order decides between equal scores."""
        categories = prediction.class_ids
        if self._map is not None:
            unknown = categories[(categories < 0) | (categories >= len(self._map))]
            if len(unknown):
                raise ModelError(
                    f"the model gives class {unknown[0]}, the spec maps {len(self._map)} classes",
                    remedy="Model and spec (or annotation file) do not belong together.",
                )
            categories = self._map[categories]
        self._take(sample, prediction, categories)
        self._image_ids.append(int(sample.id))
        corners, scores = _owned(prediction.boxes_xyxy), _owned(prediction.scores)
        self._found.append((int(sample.id), corners, scores, _owned(categories)))
        self._evaluation = None

    def _take(self, _sample: Sample, _prediction: Detections, _categories: Ints) -> None:
        """What a metric keeps besides of an image, whose detections have these category ids (negative: none)."""

    def predicted(self) -> set[int]:
        """The category ids that were predicted; negative: none."""
        return set(np.unique(np.concatenate([np.zeros(0, np.int64), *(row[3] for row in self._found)])).tolist())

    def compute(self) -> dict[str, float]:
        """:data:`KEYS` in order, rounded to float32 (the contract's results.json)."""
        values = np.asarray(self.stats(), dtype=np.float32)
        return {f"{self.prefix}{key}": float(value) for key, value in zip(KEYS, values, strict=True)}

    def stats(self) -> Floats:
        """(12,) the same numbers in full precision."""
        return self.evaluation().stats()

    def per_class(self) -> dict[int, tuple[float, float]]:
        """Category id -> (AP, AP50); -1 where the category has no ground truth."""
        precision = self.evaluation().precision[..., ALL]
        return {
            category: (mean_defined(precision[:, :, k]), mean_defined(precision[0, :, k]))
            for k, category in enumerate(self._category_ids)
        }

    def report(self) -> str:
        """The 12 numbers and the AP of every class."""
        lines = [f"{key:<14}{value:>8.4f}" for key, value in self.compute().items()]
        names = self._dataset.categories
        width = max([len(names[i]) for i in self._category_ids] + [5]) + 2
        lines += ["", f"{'class':<{width}}{'AP':>8}{'AP50':>8}"]
        for category, (ap, ap50) in self.per_class().items():
            lines.append(f"{names[category]:<{width}}{_cell(ap)}{_cell(ap50)}")
        return "\n".join(lines + self.notes())

    def notes(self) -> list[str]:
        """What the numbers do not show: detections of classes that are no category, and categories never detected."""
        found, counts = np.unique(np.concatenate([row[3] for row in self._found]), return_counts=True)
        detected = dict(zip(found.tolist(), counts.tolist(), strict=True))
        strange = {i: count for i, count in detected.items() if i not in self._dataset.categories}
        images = set(self._image_ids)
        truth = {a["category_id"] for a in self._dataset.raw["annotations"] if a["image_id"] in images}
        unseen = [f"{self._dataset.categories[i]} ({i})" for i in self._category_ids if i in truth - detected.keys()]
        notes = []
        if strange:
            listed = some([f"{'other' if i < 0 else i} ({count})" for i, count in strange.items()])
            total = sum(strange.values())
            left_out = counted(total, "detections left out")
            notes.append(f"{left_out}, of classes that are no category of the annotation file: {listed}")
        if unseen:
            notes.append(f"annotated, but not detected once: {some(unseen)}")
        return notes

    def evaluation(self) -> CocoEvaluation:
        """Precision and recall of every class, threshold and area range; DataError where no image was evaluated."""
        if not self._image_ids:
            raise DataError("no image was evaluated", where=str(self._dataset.json_file))
        if self._evaluation is None:
            images, categories = np.unique(self._image_ids), np.array(self._category_ids, dtype=np.int64)
            found, truth = (select(rows, images, categories) for rows in (self._detections(), self._truth()))
            self._evaluation = evaluate(found, truth, len(categories), self._max_dets)
        return self._evaluation

    def _detections(self) -> Boxes:
        """Every detection with a category, with image ids and category ids."""
        ids, corners, scores, categories = zip(*self._found, strict=True)
        xyxy = np.concatenate(corners)
        size = xyxy[:, 2:] - xyxy[:, :2]
        found = Boxes(
            image=np.repeat(np.array(ids, np.int64), [len(score) for score in scores]),
            category=np.concatenate(categories).astype(np.int64),
            boxes_xywh=np.concatenate([xyxy[:, :2], size], axis=1),
            area=size[:, 0] * size[:, 1],
            score=np.concatenate(scores),
            crowd=np.zeros(len(xyxy), bool),
        )
        return found[found.category >= 0]

    def _truth(self) -> Boxes:
        """Every annotation, with image ids and category ids."""
        return truth_boxes(self._dataset.raw["annotations"])


def _owned(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array, or a copy of what would keep the whole batch that it looks at."""
    return array if array.base is None else array.copy()


def truth_boxes(annotations: Sequence[Mapping[str, Any]]) -> Boxes:
    """Annotations as :class:`Boxes`, with image ids and category ids."""
    rows = [(*a["bbox"], a["area"], a["iscrowd"]) for a in annotations]
    values = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Boxes(
        image=np.array([a["image_id"] for a in annotations], dtype=np.int64),
        category=np.array([a["category_id"] for a in annotations], dtype=np.int64),
        boxes_xywh=values[:, :4],
        area=values[:, 4],
        score=np.zeros(len(values)),
        crowd=values[:, 5] > 0,
    )


def select(boxes: Boxes, images: Ints, categories: Ints) -> Boxes:
    """The rows of known images and categories (ascending ids), with their positions in place of the ids."""
    kept = boxes[np.isin(boxes.image, images) & np.isin(boxes.category, categories)]
    return replace(kept, image=np.searchsorted(images, kept.image), category=np.searchsorted(categories, kept.category))


def _cell(value: float) -> str:
    return f"{'-':>8}" if value < 0 else f"{value:>8.4f}"
