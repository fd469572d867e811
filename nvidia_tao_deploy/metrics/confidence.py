"""How scores move: F1 against threshold, score histograms, and the threshold that gives back an operating point.

A quantized model may keep its mAP and still move every score; a fixed threshold then accepts other things.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.predictions.nms import iou_matrix
from nvidia_tao_deploy.predictions.types import Classification, Detections

OVERLAP = 0.5  # IoU of a hit
KEPT = 100  # best-scored detections of an image that count, as in COCO's metric
STEPS = 101
BINS = 19
LEAST_SCORE = 0.05  # a histogram leaves out what lies below: hundreds of empty queries per image


@dataclass(frozen=True)
class Seen:
    """One image: what was found and what is there. For a classification the boxes have shape (1, 0) and mean nothing.

    Attributes:
        boxes: (N, 4) float64 xyxy, source pixels, best score first.
        scores: (N,) float64.
        class_ids: (N,) int64.
        truth_boxes: (K, 4) float64.
        truth_ids: (K,) int64.
        sample: where it came from.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    truth_boxes: NDArray[np.float64]
    truth_ids: NDArray[np.int64]
    sample: Sample

    @property
    def classified(self) -> bool:
        """Whole images, no boxes."""
        return bool(self.boxes.shape[1] == 0)


def seen(sample: Sample, prediction: Any) -> Seen | None:
    """The scored things of a prediction with their truth, by the prediction's type; None for other kinds of results.

    Crowd and difficult objects count neither as hit nor as miss of the truth; detections on them count as false.
    """
    target = sample.target
    if isinstance(prediction, Classification) and isinstance(target, (int, np.integer)):
        nothing = np.zeros((1, 0))
        score, found = prediction.scores.max(keepdims=True), np.array([prediction.class_id])
        return Seen(nothing, score, found, nothing, np.array([int(target)]), sample)
    if isinstance(prediction, Detections) and hasattr(target, "boxes_xyxy") and hasattr(target, "class_ids"):
        best = np.argsort(-prediction.scores, kind="stable")[:KEPT]
        neutral = getattr(target, "iscrowd", getattr(target, "difficult", np.zeros(len(target.class_ids), bool)))
        return Seen(
            np.asarray(prediction.boxes_xyxy, np.float64)[best],
            np.asarray(prediction.scores, np.float64)[best],
            np.asarray(prediction.class_ids, np.int64)[best],
            target.boxes_xyxy[~neutral],
            np.asarray(target.class_ids, np.int64)[~neutral],
            sample,
        )
    return None


def class_votes(images: Sequence[Seen]) -> dict[int, int]:
    """Predicted class -> the truth class it lies on most (by summed score): networks number classes their own way."""
    votes: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for image in images:
        if image.classified or not len(image.scores) or not len(image.truth_ids):
            continue
        for row, column in zip(*np.nonzero(iou_matrix(image.boxes, image.truth_boxes) >= OVERLAP), strict=True):
            votes[int(image.class_ids[row])][int(image.truth_ids[column])] += float(image.scores[row])
    return {predicted: max(sorted(found), key=found.__getitem__) for predicted, found in votes.items()}


@dataclass(frozen=True)
class Scored:
    """Everything found in a dataset.

    Attributes:
        scores: (N,) float64, best first.
        correct: (N,) bool.
        positives: objects (images, for a classification) there are to find.
    """

    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    positives: int
    _hits: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hits", np.concatenate([[0], np.cumsum(self.correct)]).astype(np.int64))

    def accepted(self, thresholds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(accepted, hits) at score >= threshold, each of the shape of ``thresholds``."""
        count = np.searchsorted(-self.scores, -thresholds, side="right")
        return count, self._hits[count]

    def f1(self, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
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

    def threshold_for_recall(self, recall: float) -> float | None:
        """The highest score at which at least ``recall`` of the positives is found; None where it is never reached."""
        wanted = int(np.ceil(recall * self.positives - 1e-9))
        if not len(self.scores) or self._hits[-1] < wanted or wanted <= 0:
            return None
        return float(self.scores[int(np.searchsorted(self._hits, wanted)) - 1])

    def histogram(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(left edges, share of the scores from 0.05 on in each of 19 bins up to 1 or the largest score)."""
        top = max(1.0, float(self.scores.max(initial=1.0)))
        counts, edges = np.histogram(self.scores, BINS, (LEAST_SCORE, top))
        return edges[:-1], counts / max(counts.sum(), 1)


def thresholds(curves: Iterable[Scored]) -> NDArray[np.float64]:
    """(101,) evenly from 0 to 1, or to the largest score where scores are no probabilities."""
    top = max((float(curve.scores.max(initial=1.0)) for curve in curves), default=1.0)
    return np.linspace(0.0, max(1.0, top), STEPS)


def scored(images: Sequence[Seen], classes: Mapping[int, int]) -> Scored:
    """Match what was found with the truth: best score first, each truth once, same class, IoU 0.5 or more.

    Args:
        images: all images of the dataset.
        classes: predicted class -> truth class; a class that is not in it stands for itself.
    """
    scores, correct = [np.zeros(0)], [np.zeros(0, bool)]
    for image in images:
        scores.append(image.scores)
        correct.append(image.class_ids == image.truth_ids if image.classified else _hits(image, classes))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    positives = sum(len(image.truth_ids) for image in images)
    return Scored(np.concatenate(scores)[order], np.concatenate(correct)[order], positives)


def _hits(image: Seen, classes: Mapping[int, int]) -> NDArray[np.bool_]:
    hits = np.zeros(len(image.scores), bool)
    if not len(image.truth_ids):
        return hits
    mapped = np.array([classes.get(int(found), int(found)) for found in image.class_ids], np.int64)
    overlap = iou_matrix(image.boxes, image.truth_boxes) * (mapped[:, None] == image.truth_ids[None])
    for row in range(len(hits)):
        best = int(overlap[row].argmax())
        if overlap[row, best] >= OVERLAP:
            hits[row] = True
            overlap[:, best] = 0.0
    return hits
