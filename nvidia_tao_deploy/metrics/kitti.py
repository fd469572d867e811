"""Average precision of the KITTI detection family (VOC-style, difficult objects neutral)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from nvidia_tao_deploy.arrays import Bools, Floats
from nvidia_tao_deploy.data.kitti import KittiTarget
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.predictions.nms import iou_matrix
from nvidia_tao_deploy.predictions.types import Detections

Mode = Literal["SAMPLE", "INTEGRATE"]
Setting = TypeVar("Setting")


@dataclass(frozen=True)
class BoxLimits:
    """Sizes in source pixels that count; boxes outside are neutral. 0 as a maximum: no limit."""

    minimum_width: float = 0.0
    minimum_height: float = 0.0
    maximum_width: float = 0.0
    maximum_height: float = 0.0

    def admits(self, boxes_xyxy: Floats) -> Bools:
        """(N,) whether each box lies within the limits, bounds included."""
        width, height = boxes_xyxy[:, 2] - boxes_xyxy[:, 0], boxes_xyxy[:, 3] - boxes_xyxy[:, 1]
        return np.asarray(
            (width >= self.minimum_width)
            & (height >= self.minimum_height)
            & (width <= (self.maximum_width or np.inf))
            & (height <= (self.maximum_height or np.inf))
        )


NO_LIMITS = BoxLimits()


class KittiMetric:
    """AP of every class, and their mean.

    Args:
        class_names: in id order.
        first_class_id: id of ``class_names[0]``.
        iou_threshold: least overlap of a match, for all classes or by class name (0.5 where a class is not named);
            greater than 0.
        confidence_threshold: detections below it count neither for nor against.
        mode: "SAMPLE" (11 recall points) or "INTEGRATE" (area under the envelope).
        box_limits: by class name; truth outside is neutral like difficult objects, unmatched detections outside
            are dropped.

    Raises:
        SpecError: a threshold out of (0, 1].
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        first_class_id: int = 0,
        iou_threshold: float | Mapping[str, float] = 0.5,
        confidence_threshold: float = 0.01,
        mode: Mode = "SAMPLE",
        box_limits: Mapping[str, BoxLimits] | None = None,
    ) -> None:
        self._names = list(class_names)
        self._first = first_class_id
        by_name = iou_threshold if isinstance(iou_threshold, Mapping) else dict.fromkeys(self._names, iou_threshold)
        self._iou = [float(_of_class(by_name, name, 0.5)) for name in self._names]
        if not all(0 < threshold <= 1 for threshold in self._iou):
            raise SpecError(f"IoU thresholds must lie in (0, 1]: {self._iou}")
        self._limits = [_of_class(box_limits or {}, name, NO_LIMITS) for name in self._names]
        self._confidence, self._mode = confidence_threshold, mode
        # per class, per image: (truth flags T, scores P), and the number of objects that count
        self._flags: list[list[Bools]] = [[] for _ in self._names]
        self._scores: list[list[Floats]] = [[] for _ in self._names]
        self._images = 0

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Match one image's detections with its target (:class:`KittiTarget`)."""
        target: KittiTarget = sample.target
        self._images += 1
        order = np.argsort(-prediction.scores, kind="stable")
        prediction = prediction[order]
        for index in range(len(self._names)):
            mine, theirs = prediction.class_ids == index + self._first, target.class_ids == index + self._first
            if not (mine.any() or theirs.any()):
                continue
            limits = self._limits[index]
            boxes, truth = prediction.boxes_xyxy[mine], target.boxes_xyxy[theirs]
            flags, scores = match_image(
                boxes,
                prediction.scores[mine],
                truth,
                target.difficult[theirs] | ~limits.admits(truth),
                self._iou[index],
                droppable=~limits.admits(boxes),
            )
            self._flags[index].append(flags)
            self._scores[index].append(scores)

    def compute(self) -> dict[str, float]:
        """``AP_<class>`` in id order, then ``mAP``: in [0, 1], unrounded.

        A class with neither truth nor detections has AP 0 and still counts in the mean, as in the contract.
        """
        if not self._images:
            raise DataError("no image was evaluated")
        average = SAMPLERS[self._mode]
        results = {
            f"AP_{name}": average(*precision_recall(*self._gathered(index), self._confidence))
            for index, name in enumerate(self._names)
        }
        results["mAP"] = float(np.mean(list(results.values())))
        return results

    def undefined(self) -> list[str]:
        """Classes without any object that counts: their AP of 0 says nothing about the model."""
        return [name for index, name in enumerate(self._names) if not self._gathered(index)[0].any()]

    def report(self) -> str:
        """AP per class and their mean, between two lines of stars."""
        results = self.compute()
        mean = results.pop("mAP")
        lines = ["*" * 31]
        lines += [f"{key.removeprefix('AP_'):<14}{'AP':<6}{round(ap, 5)}" for key, ap in results.items()]
        lines += [f"{'':<14}{'mAP':<6}{round(mean, 3)}", "*" * 31]
        absent = self.undefined()
        if absent:
            lines.append(f"no object of these classes in the data, they count as AP 0: {', '.join(absent)}")
        return "\n".join(lines)

    def _gathered(self, index: int) -> tuple[Bools, Floats]:
        if not self._flags[index]:
            return np.zeros(0, bool), np.zeros(0)
        return np.concatenate(self._flags[index]), np.concatenate(self._scores[index])


def _of_class(settings: Mapping[str, Setting], name: str, default: Setting) -> Setting:
    """A class's setting; names match without regard to case, as labels do."""
    return {key.lower(): value for key, value in settings.items()}.get(name.lower(), default)


def match_image(
    boxes: Floats, scores: Floats, truth: Floats, neutral: Bools, iou_threshold: float, droppable: Bools | None = None
) -> tuple[Bools, Floats]:
    """Greedy matching of one class in one image.

    Each detection in turn takes the free object it overlaps most, if by ``iou_threshold``. On a neutral object it
    is dropped and the object is used up; elsewhere it is right. Detections that find nothing are wrong, unless
    droppable. Every object still free and not neutral is appended as (True, 0.0), a miss.

    Args:
        boxes: (N, 4) by descending score.
        scores: (N,).
        truth: (M, 4), the same space.
        neutral: (M,).
        iou_threshold: in (0, 1].
        droppable: (N,) detections that do not count when they find nothing.

    Returns:
        flags (K,): True for right detections and misses; scores (K,).
    """
    flags = np.zeros(len(boxes), bool)
    keep = np.ones(len(boxes), bool) if droppable is None else ~droppable
    free = np.ones(len(truth), bool)
    if len(boxes) and len(truth):
        overlaps = iou_matrix(boxes, truth)
        for i in np.flatnonzero((overlaps >= iou_threshold).any(axis=1)):
            candidates = np.where(free, overlaps[i], 0.0)
            best = int(candidates.argmax())
            if candidates[best] < iou_threshold:
                continue
            free[best] = False
            flags[i] = keep[i] = not neutral[best]
    missed = int((free & ~neutral).sum())
    return (
        np.concatenate([flags[keep], np.ones(missed, bool)]),
        np.concatenate([scores[keep], np.zeros(missed)]),
    )


def precision_recall(flags: Bools, scores: Floats, confidence_threshold: float) -> tuple[Floats, Floats]:
    """Precision and recall (N,) after each entry by descending score (stable); 0 where undefined.

    Entries below the confidence threshold move neither counter.
    """
    order = np.argsort(-scores, kind="stable")
    flags, counted = flags[order], scores[order] >= confidence_threshold
    right, wrong = np.cumsum(flags & counted), np.cumsum(~flags & counted)
    seen, total = right + wrong, int(flags.sum())
    precision = np.divide(right, seen, out=np.zeros(len(right)), where=seen > 0)
    recall = right / total if total else np.zeros(len(right))
    return precision, recall


def sampled_average_precision(precision: Floats, recall: Floats) -> float:
    """Mean over recalls 0.0, 0.1, ... 1.0 of the best precision at that recall or beyond (VOC 2007)."""
    # k * 0.1, not k / 10: recalls are compared with the double 0.30000000000000004
    points = [precision[recall >= k * 0.1] for k in range(11)]
    return float(sum(p.max() if len(p) else 0.0 for p in points) / 11)


def integrated_average_precision(precision: Floats, recall: Floats) -> float:
    """Area under the precision envelope over recall (VOC 2010)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    envelope = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


SAMPLERS = {"SAMPLE": sampled_average_precision, "INTEGRATE": integrated_average_precision}
