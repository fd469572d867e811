"""Change maps against labelled pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nvidia_tao_deploy.arrays import Array, Ints
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.metrics.segmentation import confusion_matrix

# The contract adds the float32 epsilon to every denominator.
EPSILON = float(np.finfo(np.float32).eps)

Truth = Callable[[Sample, tuple[int, int]], Array]
"""(sample, (width, height)) -> unsigned labels (H, W)."""


def change_figures(matrix: Ints) -> dict[str, float]:
    """acc, miou, mf1, then iou, F1, precision and recall of every class, then mprecision and mrecall, all in [0, 1].

    From a (C, C) matrix with tp on the diagonal, row sums r and column sums c: recall = tp / r, precision = tp / c,
    F1 = 2 P R / (P + R), iou = tp / (r + c - tp), each denominator plus :data:`EPSILON`. Means are over all C classes,
    so an absent class counts as 0.
    """
    right = np.diagonal(matrix).astype(np.float64)
    rows, columns = matrix.sum(axis=1), matrix.sum(axis=0)
    recall, precision = right / (rows + EPSILON), right / (columns + EPSILON)
    f1 = 2 * precision * recall / (precision + recall + EPSILON)
    iou = right / (rows + columns - right + EPSILON)
    found = {"acc": right.sum() / (matrix.sum() + EPSILON), "miou": iou.mean(), "mf1": f1.mean()}
    for name, values in (("iou", iou), ("F1", f1), ("precision", precision), ("recall", recall)):
        found.update({f"{name}_{i}": value for i, value in enumerate(values)})
    found.update(mprecision=precision.mean(), mrecall=recall.mean())
    return {name: float(value) for name, value in found.items()}


class ChangeMetric:
    """Figures of :func:`change_figures` over all pixels of all samples; pixels whose label is no class do not count.

    ``truth`` reads a sample's labels at the prediction's size.
    """

    def __init__(self, classes: int, truth: Truth) -> None:
        self._matrix = np.zeros((classes, classes), np.int64)
        self._truth = truth
        self._pixels = 0

    def update(self, sample: Sample, prediction: Array) -> None:
        """Take one class map (H, W); DataError where the sample's label cannot be read."""
        height, width = prediction.shape
        truth = self._truth(sample, (width, height))
        self._matrix += confusion_matrix(truth, prediction, len(self._matrix))
        self._pixels += truth.size

    def compute(self) -> dict[str, float]:
        """Figures in [0, 1]; DataError where no labelled pixel carries a class."""
        if not self._matrix.any():
            raise DataError(
                f"not one of {self._pixels} label pixels is a class from 0 to {len(self._matrix) - 1}",
                remedy="Check the label files, num_classes and label_transform.",
            )
        return change_figures(self._matrix)

    def report(self) -> str:
        """One line per class, the means, how many pixels carry no class, and classes that no pixel carries."""
        found = self.compute()
        kinds = ("iou", "F1", "precision", "recall")
        lines = [f"{'class':>6}" + "".join(f"{kind:>11}" for kind in kinds)]
        for i in range(len(self._matrix)):
            lines.append(f"{i:>6}" + "".join(f"{found[f'{kind}_{i}']:>11.4f}" for kind in kinds))
        means = ("miou", "mf1", "mprecision", "mrecall")
        lines += [f"{'mean':>6}" + "".join(f"{found[name]:>11.4f}" for name in means), f"acc: {found['acc']:.4f}"]
        absent = np.flatnonzero(self._matrix.sum(axis=1) == 0)
        if len(absent):
            lines.append(f"no label pixel is of class {some(absent)}: check label_transform if there should be some")
        ignored = self._pixels - int(self._matrix.sum())
        if ignored:
            share = 100 * ignored / self._pixels
            lines.append(f"{ignored} pixels ({share:.1f} %) do not count: their label is no class of the model")
        return "\n".join(lines)
