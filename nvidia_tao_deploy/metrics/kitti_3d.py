"""Average precision of cuboids, KITTI style: rotated overlap from above and in space, one difficulty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nvidia_tao_deploy.arrays import Array, Floats, Ints
from nvidia_tao_deploy.data.point_cloud import CloudTarget
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.predictions.cloud_boxes import BIRDS_EYE
from nvidia_tao_deploy.predictions.rotated import rotated_intersection
from nvidia_tao_deploy.predictions.types import CloudBoxes
from nvidia_tao_deploy.transforms.points import CloudTally

RECALLS = 41
IOU = 0.5
# The last takes z for the top of a box, as the training toolkit's own evaluation does.
KINDS = ("bev", "3d", "3d z_top")


def cuboid_overlaps(boxes_a: Array, boxes_b: Array) -> Floats:
    """(3, N, M) intersection over union of (N, 7) and (M, 7) cuboids, by :data:`KINDS`.

    In space: I / (V1 + V2 - I), I being the area shared from above times the height shared. z is the centre; for the
    last kind it is taken for the top, which differs wherever heights do.
    """
    a, b = np.asarray(boxes_a, np.float64), np.asarray(boxes_b, np.float64)
    area = rotated_intersection(a[:, BIRDS_EYE], b[:, BIRDS_EYE])
    ground_a, ground_b = a[:, 3] * a[:, 4], b[:, 3] * b[:, 4]
    overlaps = [area / (ground_a[:, None] + ground_b - area)]
    for above in (0.5, 0.0):  # share of the height above z
        top_a, top_b = a[:, 2] + above * a[:, 5], b[:, 2] + above * b[:, 5]
        tops, floors = np.minimum(top_a[:, None], top_b), np.maximum((top_a - a[:, 5])[:, None], top_b - b[:, 5])
        shared = area * np.maximum(tops - floors, 0)
        overlaps.append(shared / ((ground_a * a[:, 5])[:, None] + ground_b * b[:, 5] - shared))
    return np.stack(overlaps)


class Kitti3dMetric:
    """AP of every class (in id order) from above and in space, and their means, in percent.

    A detection and an object match where they overlap by more than :data:`IOU`.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = list(class_names)
        self._scores: list[list[Floats]] = [[] for _ in self._names]
        # per class: scores (D,) and overlaps (3, D, G) of the clouds where some pair matches
        self._pairs: list[list[tuple[Floats, Floats]]] = [[] for _ in self._names]
        self._objects = np.zeros(len(self._names), np.int64)
        self._clouds = 0
        self._tally = CloudTally()

    def update(self, sample: Sample, prediction: CloudBoxes) -> None:
        """Take one cloud's detections; its target is a :class:`CloudTarget`."""
        target: CloudTarget = sample.target
        self._clouds += 1
        self._tally.add(prediction.geometry)
        for index in range(len(self._names)):
            mine, theirs = prediction.class_ids == index, target.class_ids == index
            self._scores[index].append(prediction.scores[mine])
            self._objects[index] += theirs.sum()
            overlaps = cuboid_overlaps(prediction.boxes[mine], target.boxes[theirs])
            if (overlaps > IOU).any():
                self._pairs[index].append((prediction.scores[mine], overlaps))

    def compute(self) -> dict[str, float]:
        """``bev mAP`` and ``3d mAP``, ``<kind> AP <class>``, and ``3d z_top mAP``, the established formula.

        A class without objects has AP 0 and counts in the mean, as established.
        """
        if not self._clouds:
            raise DataError("no point cloud was evaluated")
        table = [[self._average_precision(index, kind) for index in range(len(self._names))] for kind in range(3)]
        bev, space, top = (float(np.mean(row)) for row in table)
        found = {"bev mAP": bev, "3d mAP": space}
        for kind, row in zip(KINDS[:2], table, strict=False):
            found |= {f"{kind} AP {name}": ap for name, ap in zip(self._names, row, strict=True)}
        detections = sum(len(scores) for of_class in self._scores for scores in of_class)
        return found | {"3d z_top mAP": top, "detections_per_cloud": detections / self._clouds}

    def report(self) -> str:
        """AP per class, their means, and what was left out."""
        found = self.compute()
        lines = []
        for name in self._names:
            lines.append(f"{name} AP@{IOU:.2f}, {IOU:.2f}:")
            lines += [f"{kind:<4} AP: {found[f'{kind} AP {name}']:.4f}" for kind in KINDS[:2]]
        lines += [f"{kind:<4} mAP: {found[f'{kind} mAP']:.4f}" for kind in KINDS[:2]]
        lines.append(f"average detections per cloud: {found['detections_per_cloud']:.3f}")
        absent = [name for name, count in zip(self._names, self._objects, strict=True) if not count]
        if absent:
            lines.append(f"no object of these classes in the data, they count as AP 0: {', '.join(absent)}")
        return "\n".join([*lines, *self._tally.notes()])

    def _average_precision(self, index: int, kind: int) -> float:
        pairs = [(scores, overlaps[kind]) for scores, overlaps in self._pairs[index]]
        right = [score for pair in pairs for score in _best_scores(*pair)]
        thresholds = score_thresholds(np.array(right), int(self._objects[index]))
        scores = np.sort(np.concatenate([np.zeros(0), *self._scores[index]]))
        seen = len(scores) - np.searchsorted(scores, thresholds)
        hits = np.zeros(len(thresholds), np.int64)
        for pair in pairs:
            hits += _matches(*pair, thresholds)
        precision = np.zeros(RECALLS)
        precision[: len(thresholds)] = np.maximum.accumulate((hits / seen)[::-1])[::-1]
        return float(precision[::4].sum() / 11 * 100)


def score_thresholds(scores: Floats, objects: int) -> Floats:
    """At most 41 of the scores of right detections, descending, at about equal steps of recall."""
    chosen: list[float] = []
    current = 0.0
    for i, score in enumerate(np.sort(scores)[::-1].tolist()):
        left = (i + 1) / objects
        right = (i + 2) / objects if i < len(scores) - 1 else left
        if right - current < current - left and i < len(scores) - 1:
            continue
        chosen.append(score)
        current += 1 / (RECALLS - 1)
    return np.array(chosen[:RECALLS])


def _best_scores(scores: Floats, overlaps: Floats) -> list[float]:
    """Each object in turn takes, of the free detections it overlaps enough, the one of the highest score."""
    free, taken = np.ones(len(scores), bool), []
    for column in (overlaps > IOU).T:
        candidates = np.flatnonzero(column & free)
        if len(candidates):
            best = candidates[scores[candidates].argmax()]
            free[best] = False
            taken.append(float(scores[best]))
    return taken


def _matches(scores: Floats, overlaps: Floats, thresholds: Floats) -> Ints:
    """(T,) objects that are matched by detections of at least each threshold; each takes the free one it overlaps
    most."""
    free = scores >= thresholds[:, None]
    hits = np.zeros(len(thresholds), np.int64)
    for column in overlaps.T[(overlaps > IOU).any(0)]:
        candidates = np.where(free & (column > IOU), column, 0.0)
        best, matched = candidates.argmax(1), candidates.any(1)
        free[matched, best[matched]] = False
        hits += matched
    return hits
