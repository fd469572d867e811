"""Classification accuracy: top-k, confusion matrix, precision and recall per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Floats, Ints
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.predictions.types import Classification


class TopKMetric:
    """Top-k accuracy against the sample's class index.

    Args:
        class_names: in index order; the model must give as many scores.
        k: at least 1.
    """

    def __init__(self, class_names: Sequence[str], k: int = 1) -> None:
        self._names, self._k = list(class_names), k
        self._seen: list[Ranked] = []
        self._labels: list[int] = []

    def condensed(self, sample: Sample, prediction: Classification) -> Ranked:
        """What :meth:`update` needs of a prediction; ModelError where it is none of these classes'."""
        scores = prediction.scores
        if len(scores) != len(self._names):
            raise ModelError(
                f"the model gives {len(scores)} scores, the class list has {len(self._names)} names",
                remedy="Check that model and class list belong together.",
            )
        best = int(scores.argmax())
        if isnan(scores[best]):  # the first NaN, if there is one
            raise ModelError(f"the model's scores of {sample.id} hold NaN")
        return Ranked(best, rank(scores, int(sample.target), self._k))

    def update(self, sample: Sample, prediction: Classification | Ranked) -> None:
        """Take one image's scores, condensed or not."""
        seen = prediction if isinstance(prediction, Ranked) else self.condensed(sample, prediction)
        self._seen.append(seen)
        self._labels.append(int(sample.target))

    def compute(self) -> dict[str, float]:
        """``top_k_accuracy`` in [0, 1]; DataError where no image was evaluated."""
        if not self._seen:
            raise DataError("no image was evaluated")
        return {"top_k_accuracy": float(np.mean([seen.rank < self._k for seen in self._seen]))}

    def confusion(self) -> Ints:
        """(C, C) counts: row is the true class, column the best-scored one."""
        best = np.array([seen.best for seen in self._seen], np.int64)
        return confusion_matrix(np.array(self._labels, np.int64), best, len(self._names))

    def recall_per_class(self) -> dict[str, float]:
        """Class name -> recall in [0, 1], 0 for a class without images."""
        return dict(zip(self._names, class_figures(self.confusion()).recall.tolist(), strict=True))

    def report(self) -> str:
        """Accuracy, confusion matrix (up to 20 classes) and the figures of every class."""
        results = self.compute()
        lines = [f"{key}: {value:.4f}" for key, value in results.items()]
        if self._k >= len(self._names):
            lines.append(f"k is {self._k}: of {len(self._names)} classes every one is among the {self._k} best")
        return "\n".join([*lines, "", class_tables(self.confusion(), self._names)])


class Ranked(NamedTuple):
    """An image's best class, and how many classes are before its own."""

    best: int
    rank: int


def top_k_accuracy(scores: NDArray[np.floating], labels: Ints, k: int) -> float:
    """Share of rows (N, C) whose label (N,) in [0, C) is among the k best scores, k at least 1, as :func:`rank`."""
    return float(np.mean([rank(row, int(label), k) < k for row, label in zip(scores, labels, strict=True)]))


def rank(scores: NDArray[np.floating], label: int, k: int) -> int:
    """How many of the classes (C,) are before ``label``.

    Among equal scores the highest index ranks first (the contract's and scikit-learn's order), except that two
    classes at k = 1 are decided by argmax.
    """
    if len(scores) == 2 and k == 1:
        return int(scores.argmax() != label)
    own = scores[label]
    return int(np.count_nonzero(scores > own) + np.count_nonzero(scores[label + 1 :] == own))


def confusion_matrix(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """(C, C) counts, row = label, column = prediction; every class has its row and column."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassFigures:
    """Per class: iou, precision, recall, f1 (C,) in [0, 1]; support (C,) is the true count."""

    iou: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints


def class_figures(matrix: Ints, undefined: float = 0.0) -> ClassFigures:
    """Figures from a (C, C) confusion matrix; ``undefined`` stands for 0 / 0.

    IoU = tp/(tp+fp+fn), precision = tp/(tp+fp), recall = tp/(tp+fn), F1 = Dice = 2tp/(2tp+fp+fn).
    """
    right = np.diagonal(matrix).astype(np.float64)
    predicted, support = matrix.sum(axis=0), matrix.sum(axis=1)

    def share(part: Floats, whole: Array) -> Floats:
        return np.asarray(np.divide(part, whole, out=np.full(len(part), undefined), where=whole > 0))

    return ClassFigures(
        iou=share(right, predicted + support - right),
        precision=share(right, predicted),
        recall=share(right, support),
        f1=share(2 * right, predicted + support),
        support=support,
    )


def class_tables(matrix: Ints, names: Sequence[str], columns: str = "prediction") -> str:
    """The confusion matrix, of up to 20 classes, and :func:`classification_table`."""
    table = classification_table(matrix, names)
    if len(matrix) > 20:
        return table
    return f"Confusion matrix (rows: truth, columns: {columns})\n{matrix}\n\n{table}"


def classification_table(matrix: Ints, names: Sequence[str]) -> str:
    """Precision, recall, f1 and support per class, then accuracy and both averages, as text with 2 digits."""
    figures = class_figures(matrix)
    total = int(figures.support.sum())
    columns = (figures.precision, figures.recall, figures.f1)
    width = max([len(name) for name in names] + [len("weighted avg")])
    lines = [f"{'':>{width}} {'precision':>10}{'recall':>10}{'f1-score':>10}{'support':>10}", ""]
    for i, name in enumerate(names):
        lines.append(f"{name:>{width}} " + "".join(f"{c[i]:>10.2f}" for c in columns) + f"{figures.support[i]:>10}")
    accuracy = np.trace(matrix) / total if total else 0.0
    lines += ["", f"{'accuracy':>{width}} {'':>20}{accuracy:>10.2f}{total:>10}"]
    weights = figures.support / max(total, 1)
    averages = {"macro avg": [c.mean() for c in columns], "weighted avg": [c @ weights for c in columns]}
    for label, average in averages.items():
        lines.append(f"{label:>{width}} " + "".join(f"{value:>10.2f}" for value in average) + f"{total:>10}")
    return "\n".join(lines)
