"""Optical inspection: how often a score over the margin is right about a defect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Bools
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError

# Names that the trainer gives the same numbers.
TRAINER_NAMES = {
    "test_acc": "total_accuracy",
    "test_fpr": "false_alarm",
    "test_fnr": "false_negative",
    "defect_acc": "defect_accuracy",
}


def inspection_figures(scores: NDArray[np.float32], defective: Bools, margin: float) -> dict[str, float]:
    """Shares in percent, 0 where there is nothing to share; a unit is predicted defective where its score > margin.

    total_accuracy: right of all; defect_accuracy: found of the defective; false_alarm: predicted defective of the
    good; false_negative: predicted good of the defective.

    Args:
        scores: (N,); larger is more different.
        defective: (N,) truth.
        margin: the largest score of a good unit.
    """
    failed = scores.astype(np.float64) > margin

    def share(part: Bools, whole: Bools) -> float:
        return 100.0 * float(np.count_nonzero(part & whole)) / max(int(np.count_nonzero(whole)), 1)

    return {
        "total_accuracy": share(failed == defective, np.ones_like(defective)),
        "defect_accuracy": share(failed, defective),
        "false_alarm": share(failed, ~defective),
        "false_negative": share(~failed, defective),
    }


class InspectionMetric:
    """Figures of :func:`inspection_figures`, ``margin``, ``count``, and the trainer's names for the same figures."""

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._scores: list[np.float32] = []
        self._defective: list[bool] = []

    def update(self, sample: Sample, prediction: np.float32) -> None:
        """Take one unit's score; its target is True for a defect; ModelError where the score is NaN."""
        if np.isnan(prediction):
            raise ModelError(f"the model's score of {sample.id} is NaN")
        self._scores.append(prediction)
        self._defective.append(bool(sample.target))

    def compute(self) -> dict[str, float]:
        """Percentages; DataError where no unit was evaluated."""
        if not self._scores:
            raise DataError("no unit was evaluated")
        figures = inspection_figures(np.array(self._scores, np.float32), np.array(self._defective), self._margin)
        trainer = {name: figures[own] for name, own in TRAINER_NAMES.items()}
        return {**figures, "margin": self._margin, "count": len(self._scores), **trainer}

    def report(self) -> str:
        """The contract's line, and how many units are defective."""
        found = self.compute()
        return (
            f"Total count: {found['count']} ({sum(self._defective)} defective), "
            f"total accuracy: {found['total_accuracy']:.2f}, false negative: {found['false_negative']:.2f}, "
            f"false alarm: {found['false_alarm']:.2f}, defect accuracy: {found['defect_accuracy']:.2f}, "
            f"margin: {self._margin:g}"
        )
