"""Panoptic quality (Kirillov et al., 2019): PQ = SQ x RQ, per class and over things and stuff."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Floats, Ints
from nvidia_tao_deploy.data.panoptic import Segments
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.segmentation import mean
from nvidia_tao_deploy.predictions.segmentation import to_source
from nvidia_tao_deploy.predictions.types import PanopticMap

MATCH = 0.5  # segments that overlap more than this can match one other only


@dataclass
class PanopticCounts:
    """Per class (C,): summed IoU of matched pairs, and true positives, false positives, false negatives."""

    iou: Floats
    tp: Ints
    fp: Ints
    fn: Ints
    unmapped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def zeros(cls, classes: int) -> PanopticCounts:
        """Nothing counted yet."""
        tp, fp, fn = np.zeros((3, classes), np.int64)
        return cls(np.zeros(classes), tp, fp, fn)


def count_segments(truth: Segments, segment_ids: NDArray[np.int32], class_ids: Ints, counts: PanopticCounts) -> None:
    """Add one image to ``counts``.

    Pixels without a segment (or of one whose class is unknown) are void. A pair of one class matches if its IoU, void
    left out, is over 0.5. A found segment that does not match is no false positive if over half of it is void or in
    crowds of its class.

    Args:
        truth: annotated segments (h, w).
        segment_ids: (h, w) found ones; 0 is none, k is row k - 1 of ``class_ids``.
        class_ids: (S,) in 0 to C - 1.
        counts: changed in place.
    """
    wanted, found = len(truth.class_ids) + 1, len(class_ids) + 1
    cells = truth.segment_ids.astype(np.int64) * found + segment_ids
    overlap = np.bincount(cells.ravel(), minlength=wanted * found).reshape(wanted, found)
    true_classes = np.concatenate([[-1], truth.class_ids])
    overlap[0] += overlap[true_classes < 0][1:].sum(axis=0)  # what has no class is void
    crowd = np.concatenate([[False], truth.iscrowd])
    plain = (true_classes >= 0) & ~crowd & (overlap.sum(axis=1) > 0)
    area_found = overlap[0] + overlap[(true_classes >= 0)].sum(axis=0)
    found_classes = np.concatenate([[-1], class_ids])

    same = plain[:, None] & (true_classes[:, None] == found_classes[None, :])
    union = overlap.sum(axis=1)[:, None] + area_found[None, :] - overlap - overlap[0][None, :]
    iou = np.where(same, overlap / np.maximum(union, 1), 0.0)
    rows, columns = np.nonzero(iou > MATCH)
    np.add.at(counts.iou, true_classes[rows], iou[rows, columns])
    np.add.at(counts.tp, true_classes[rows], 1)
    plain[rows] = False
    np.add.at(counts.fn, true_classes[plain], 1)

    of_crowd = crowd[:, None] & (true_classes[:, None] == found_classes[None, :])
    excused = overlap[0] + np.where(of_crowd, overlap, 0).sum(axis=0)
    wrong = (found_classes >= 0) & (area_found > 0) & (excused <= 0.5 * area_found)
    wrong[columns] = False
    np.add.at(counts.fp, found_classes[wrong], 1)


class PanopticMetric:
    """PQ, SQ and RQ over all classes that occur, over things and over stuff, in source pixels; classes by index."""

    def __init__(self, names: Sequence[str], isthing: Sequence[bool]) -> None:
        self.names, self._isthing = list(names), np.array(isthing, bool)
        self.counts = PanopticCounts.zeros(len(self.names))
        self._images = 0

    def update(self, sample: Sample, prediction: PanopticMap) -> None:
        """Take one image."""
        if prediction.class_ids.size and int(prediction.class_ids.max()) >= len(self.names):
            raise ModelError(
                f"the model predicts class {int(prediction.class_ids.max())}, of {len(self.names)} classes"
            )
        truth = sample.target.load_segments(prediction.geometry.source_size)
        self.counts.unmapped.update(truth.unmapped)
        found = to_source(prediction.segment_ids, prediction.geometry)
        count_segments(truth, found, prediction.class_ids, self.counts)
        self._images += 1

    def by_class(self) -> dict[str, Floats]:
        """PQ, SQ and RQ (C,), NaN for classes that neither occur nor are found."""
        if not self._images:
            raise DataError("no image was evaluated")
        counts = self.counts
        size = counts.tp + 0.5 * (counts.fp + counts.fn)
        nothing = np.full(len(self.names), np.nan)
        pq = np.divide(counts.iou, size, out=nothing.copy(), where=size > 0)
        rq = np.divide(counts.tp, size, out=nothing.copy(), where=size > 0)
        sq = np.divide(counts.iou, counts.tp, out=np.where(size > 0, 0.0, np.nan), where=counts.tp > 0)
        return {"PQ": pq, "SQ": sq, "RQ": rq}

    def compute(self) -> dict[str, Any]:
        """``PQ``, ``SQ``, ``RQ``, the same with ``_th`` and ``_st`` in [0, 1], ``unmapped_pixels``, ``PQ_by_class``."""
        values = self.by_class()
        groups = {"": np.ones(len(self.names), bool), "_th": self._isthing, "_st": ~self._isthing}
        numbers: dict[str, Any] = {
            f"{key}{suffix}": mean(column[chosen])
            for suffix, chosen in groups.items()
            for key, column in values.items()
        }
        by_name = {name: float(value) for name, value in zip(self.names, values["PQ"], strict=True)}
        return {**numbers, "unmapped_pixels": self.counts.unmapped.total(), "PQ_by_class": by_name}

    def report(self) -> str:
        """A line per group and per class that occurs."""
        numbers, values = self.compute(), self.by_class()
        lines = [f"{'':<24}{'PQ':>8}{'SQ':>8}{'RQ':>8}"]
        for label, suffix in (("all", ""), ("things", "_th"), ("stuff", "_st")):
            lines.append(f"{label:<24}" + "".join(f"{numbers[key + suffix]:>8.4f}" for key in values))
        lines.append("")
        for i in np.flatnonzero(~np.isnan(values["PQ"])).tolist():
            lines.append(f"{self.names[i]:<24}" + "".join(f"{column[i]:>8.4f}" for column in values.values()))
        if self.counts.unmapped:
            found = ", ".join(f"{name} ({count} pixels)" for name, count in self.counts.unmapped.most_common(8))
            lines += ["", f"{counted(self.counts.unmapped.total(), 'pixels have no class and are void')}: {found}"]
        return "\n".join(lines)
