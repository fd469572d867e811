"""How scores move: F1 against threshold, score histograms, and the threshold that gives back an operating point.

A quantized model may keep its mAP and still move every score; a fixed threshold then accepts other things.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nvidia_tao_deploy.arrays import Bools, Floats, Ints
from nvidia_tao_deploy.data.point_cloud import CloudTarget
from nvidia_tao_deploy.data.poses import PoseTruth
from nvidia_tao_deploy.data.text_regions import TextTruth
from nvidia_tao_deploy.predictions.cuboids import Cuboids
from nvidia_tao_deploy.predictions.nms import iou_matrix
from nvidia_tao_deploy.predictions.polygons import TextRegions
from nvidia_tao_deploy.predictions.rotated import rotated_iou
from nvidia_tao_deploy.predictions.text import Text
from nvidia_tao_deploy.predictions.types import Classification, CloudBoxes, Detections

OVERLAP = 0.5  # IoU of a hit
KEPT = 100  # best-scored detections of an image that count, as in COCO's metric
STEPS = 101
BINS = 19
LEAST_SCORE = 0.05  # a histogram leaves out what lies below: hundreds of empty queries per image
FROM_ABOVE = [0, 1, 3, 4, 6]  # of a cuboid on the ground: the rectangle


@dataclass(frozen=True)
class Seen:
    """One sample: what was found and what is there.

    Attributes:
        scores: (N,) float64, best first.
        class_ids: (N,) int64.
        truth_ids: (K,) int64, classes.
        overlap: (N, K) IoU in 0..1; of answers that are right or wrong as a whole, 1 or 0.
    """

    scores: Floats
    class_ids: Ints
    truth_ids: Ints
    overlap: Floats


def seen(target: Any, prediction: Any) -> Seen | None:
    """The scored things of a prediction with their truth, by the prediction's type; None for other kinds of results.

    Crowd, difficult and ignored objects count neither as hit nor as miss of the truth; what was found on them counts as
    false. Regions of text and cuboids in pictures are matched by the boxes around them, cuboids in clouds from above.
    """
    if isinstance(prediction, np.floating) and isinstance(target, (bool, np.bool_)):  # how defective a unit is
        scores, there = np.array([float(prediction)]), np.zeros(int(target), np.int64)
        return Seen(scores, np.zeros(1, np.int64), there, np.ones((1, len(there))))
    if isinstance(prediction, CloudBoxes) and isinstance(target, CloudTarget):
        best = np.argsort(-prediction.scores, kind="stable")[:KEPT]
        overlap = rotated_iou(prediction.boxes[best][:, FROM_ABOVE], target.boxes[:, FROM_ABOVE])
        return Seen(prediction.scores[best], prediction.class_ids[best], target.class_ids, overlap)
    found, truth = found_boxes(prediction), _true_boxes(target)
    if found is not None and truth is not None:
        return Seen(found.scores, found.class_ids, truth[1], iou_matrix(found.boxes_xyxy, truth[0]))
    return whole_answers(_answers(target, prediction))


def whole_answers(answers: Sequence[tuple[float, bool]]) -> Seen | None:
    """Answers to so many questions about one sample: (score, whether it is right) each; None for none."""
    if not answers:
        return None
    questions = np.arange(len(answers))
    return Seen(
        np.array([float(score) for score, _ in answers]),
        questions,
        questions,
        np.diag([float(ok) for _, ok in answers]),
    )


def found_boxes(prediction: Any) -> Detections | None:
    """What was found in a picture as upright boxes in source pixels, the 100 best; None for other kinds of results."""
    prediction = getattr(prediction, "detections", prediction)
    if isinstance(prediction, TextRegions):
        corners = [[*points.min(axis=0), *points.max(axis=0)] for points in prediction.polygons]
        boxes, scores = prediction.geometry.to_source(np.array(corners).reshape(-1, 4)), prediction.scores
    elif isinstance(prediction, (Detections, Cuboids)):
        boxes, scores = np.asarray(prediction.boxes_xyxy, np.float64), np.asarray(prediction.scores, np.float64)
    else:
        return None
    classes = prediction.class_ids if isinstance(prediction, Detections) else np.zeros(len(scores), np.int64)
    best = np.argsort(-scores, kind="stable")[:KEPT]
    return Detections(boxes[best], scores[best], np.asarray(classes, np.int64)[best])


def _true_boxes(target: Any) -> tuple[Floats, Ints] | None:
    """(K, 4) boxes in source pixels and their (K,) classes."""
    if isinstance(target, TextTruth):
        wanted = [points for points, ignored in zip(target.polygons, target.ignored, strict=True) if not ignored]
    elif isinstance(target, PoseTruth):
        wanted = list(target.projected[:, 1:])
    elif hasattr(target, "boxes_xyxy") and hasattr(target, "class_ids"):
        neutral = getattr(target, "iscrowd", getattr(target, "difficult", np.zeros(len(target.class_ids), bool)))
        return target.boxes_xyxy[~neutral], np.asarray(target.class_ids, np.int64)[~neutral]
    else:
        return None
    boxes = np.array([[*points.min(axis=0), *points.max(axis=0)] for points in wanted]).reshape(-1, 4)
    return boxes, np.zeros(len(wanted), np.int64)


def _answers(target: Any, prediction: Any) -> list[tuple[float, bool]]:
    if isinstance(prediction, Classification) and isinstance(target, (int, np.integer)):
        return [(float(prediction.scores.max()), prediction.class_id == int(target))]
    if isinstance(prediction, Text) and isinstance(target, str):
        return [(float(prediction.confidence), prediction.text == target)]
    if isinstance(prediction, Mapping) and isinstance(target, Mapping):
        return [answer for task, found in prediction.items() for answer in _answers(target.get(task), found)]
    return []


def class_votes(images: Sequence[Seen]) -> dict[int, int]:
    """Predicted class -> the truth class it lies on most (by summed score): networks number classes their own way."""
    votes: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for image in images:
        for row, column in zip(*np.nonzero(image.overlap >= OVERLAP), strict=True):
            votes[int(image.class_ids[row])][int(image.truth_ids[column])] += float(image.scores[row])
    return {predicted: max(sorted(found), key=found.__getitem__) for predicted, found in votes.items()}


@dataclass(frozen=True)
class Scored:
    """Everything found in a dataset.

    Attributes:
        scores: (N,) float64, best first.
        correct: (N,) bool.
        positives: objects there are to find, or questions to answer.
    """

    scores: Floats
    correct: Bools
    positives: int
    _hits: Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hits", np.concatenate([[0], np.cumsum(self.correct)]).astype(np.int64))

    def accepted(self, thresholds: Floats) -> tuple[Ints, Ints]:
        """(accepted, hits) at score >= threshold, each of the shape of ``thresholds``."""
        count = np.searchsorted(-self.scores, -thresholds, side="right")
        return count, self._hits[count]

    def f1(self, thresholds: Floats) -> Floats:
        """F1 = 2 hits / (accepted + positives) at each threshold, in [0, 1]."""
        count, hits = self.accepted(thresholds)
        whole = count + self.positives
        return np.asarray(np.divide(2.0 * hits, whole, out=np.zeros(len(thresholds)), where=whole > 0))

    def at(self, threshold: float) -> dict[str, float]:
        """precision, recall and F1 of what has at least this score."""
        count, hits = (int(value[0]) for value in self.accepted(np.array([threshold])))
        return {
            "threshold": threshold,
            "precision": hits / count if count else float("nan"),
            "recall": hits / self.positives if self.positives else float("nan"),
            "f1": float(self.f1(np.array([threshold]))[0]),
        }

    def best_threshold(self) -> float:
        """Halfway between the highest score with the best F1 and the next lower one; 1 where there are no scores."""
        if not len(self.scores):
            return 1.0
        lowest = float(self.scores[int(self.f1(self.scores).argmax())])
        return (lowest + float(self.scores[self.scores < lowest].max(initial=0.0))) / 2

    def threshold_for_recall(self, recall: float) -> float | None:
        """The highest score at which at least ``recall`` of the positives is found; None where it is never reached."""
        wanted = int(np.ceil(recall * self.positives - 1e-9))
        if not len(self.scores) or self._hits[-1] < wanted or wanted <= 0:
            return None
        return float(self.scores[int(np.searchsorted(self._hits, wanted)) - 1])

    def histogram(self) -> tuple[Floats, Floats]:
        """(left edges, share of the scores from 0.05 on in each of 19 bins up to 1 or the largest score)."""
        top = max(1.0, float(self.scores.max(initial=1.0)))
        counts, edges = np.histogram(self.scores, BINS, (LEAST_SCORE, top))
        return edges[:-1], counts / max(counts.sum(), 1)


def thresholds(curves: Iterable[Scored]) -> Floats:
    """(101,) evenly from 0 to 1, or to the largest score where scores are no probabilities."""
    return np.linspace(0.0, max((float(curve.scores.max(initial=1.0)) for curve in curves), default=1.0), STEPS)


def scored(images: Sequence[Seen], classes: Mapping[int, int]) -> Scored:
    """Match what was found with the truth: best score first, each truth once, same class, IoU 0.5 or more.

    Args:
        images: all images of the dataset.
        classes: predicted class -> truth class; a class that is not in it stands for itself.
    """
    scores, correct = [np.zeros(0)], [np.zeros(0, bool)]
    for image in images:
        scores.append(image.scores)
        correct.append(_hits(image, classes))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    positives = sum(len(image.truth_ids) for image in images)
    return Scored(np.concatenate(scores)[order], np.concatenate(correct)[order], positives)


def _hits(image: Seen, classes: Mapping[int, int]) -> Bools:
    hits = np.zeros(len(image.scores), bool)
    if not len(image.truth_ids):
        return hits
    mapped = np.array([classes.get(int(found), int(found)) for found in image.class_ids], np.int64)
    overlap = image.overlap * (mapped[:, None] == image.truth_ids[None])
    for row in range(len(hits)):
        best = int(overlap[row].argmax())
        if overlap[row, best] >= OVERLAP:
            hits[row] = True
            overlap[:, best] = 0.0
    return hits
