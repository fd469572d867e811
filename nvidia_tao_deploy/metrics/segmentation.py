"""Metrics of label maps: confusion matrix, IoU, precision, recall, F1 (Dice)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from nvidia_tao_deploy.arrays import Array, Floats, Ints
from nvidia_tao_deploy.data.masks import IGNORE
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.topk import ClassFigures, class_figures
from nvidia_tao_deploy.predictions.segmentation import to_canvas
from nvidia_tao_deploy.predictions.types import LabelMap


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Ints:
    """(C, C) int64 counts of pixels, row = label, column = prediction.

    Args:
        labels: any shape, unsigned; pixels with a label of ``classes`` or more do not count.
        predicted: of the same shape, unsigned.
        classes: C.

    Raises:
        ValueError: a prediction is ``classes`` or more, or the shapes differ.
    """
    if labels.shape != predicted.shape:
        raise ValueError(f"labels {labels.shape} and predictions {predicted.shape} are not of one shape")
    if predicted.size and int(predicted.max()) >= classes:
        raise ValueError(f"prediction {int(predicted.max())} among {classes} classes")
    # a further row takes what does not count: cheaper than taking those pixels out
    wide = np.uint16 if (classes + 1) * classes <= 0xFFFF else np.uint32
    rows = np.minimum(labels, labels.dtype.type(min(classes, np.iinfo(labels.dtype).max)))
    cells = rows.astype(wide) * wide(classes)
    cells += predicted.astype(wide, copy=False)
    counts = np.bincount(cells.ravel(), minlength=(classes + 1) * classes)
    return counts[: classes * classes].reshape(classes, classes).astype(np.int64, copy=False)


segmentation_figures = partial(class_figures, undefined=float("nan"))
"""As :func:`class_figures`; NaN where undefined."""


def mean(values: Floats) -> float:
    """The mean of the defined values; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


class ConfusionMetric:
    """Collects the confusion matrix over images, on the networks' canvases; labels go there by the nearest pixel.

    ``unmapped_means`` says, for the report, what becomes of pixels whose value no class has.
    """

    def __init__(self, names: Sequence[str], unmapped_means: str = "they are ignored") -> None:
        self.names = list(names)
        self.matrix = np.zeros((len(self.names),) * 2, np.int64)
        self.unmapped: Counter[str] = Counter()
        self._masks_with_unmapped: list[str] = []
        self._unmapped_means = unmapped_means
        self._images = 0

    def update(self, sample: Sample, prediction: LabelMap) -> None:
        """Take one image."""
        truth = sample.target.load(prediction.geometry.source_size)
        if truth.unmapped:
            self.unmapped.update(truth.unmapped)
            self._masks_with_unmapped.append(str(sample.id))
        labels = to_canvas(truth.labels, prediction.geometry, IGNORE)
        highest = int(prediction.class_ids.max(initial=0))
        if highest >= len(self.names):
            raise ModelError(
                f"the model predicts class {highest}, the class list has {len(self.names)}: {some(self.names)}",
                remedy="Give the classes of the training.",
            )
        self.matrix += confusion_matrix(labels, prediction.class_ids, len(self.names))
        self._images += 1

    def figures(self) -> ClassFigures:
        """The figures of every class; DataError where no image was evaluated."""
        if not self._images:
            raise DataError("no image was evaluated")
        return segmentation_figures(self.matrix)

    def notes(self) -> list[str]:
        """What the labels held that has no class."""
        if not self.unmapped:
            return []
        values = some([f"{value} ({count} pixels)" for value, count in self.unmapped.most_common()], 8)
        masks = self._masks_with_unmapped
        return [
            f"{counted(self.unmapped.total(), 'pixels')} of {counted(len(masks), 'masks')} are of no class; "
            f"{self._unmapped_means}: {values}; masks: {some(masks)}"
        ]

    def table(self) -> list[str]:
        """One line per class."""
        figures = self.figures()
        width = max([len(name) for name in self.names] + [5])
        lines = [f"{'class':<{width}} {'IoU':>8}{'precision':>11}{'recall':>8}{'F1':>8}{'pixels':>14}"]
        for i, name in enumerate(self.names):
            lines.append(
                f"{name:<{width}} {figures.iou[i]:>8.4f}{figures.precision[i]:>11.4f}{figures.recall[i]:>8.4f}"
                f"{figures.f1[i]:>8.4f}{figures.support[i]:>14d}"
            )
        return lines


class SemSegMetric(ConfusionMetric):
    """Four means and four figures per class (unet, segformer)."""

    def compute(self) -> dict[str, Any]:
        """``Recall``, ``Precision``, ``F1 score``, ``Mean IOU``, ``unmapped_pixels``, then a block per class name."""
        figures = self.figures()
        means: dict[str, Any] = {
            "Recall": mean(figures.recall),
            "Precision": mean(figures.precision),
            "F1 score": mean(figures.f1),
            "Mean IOU": mean(figures.iou),
            "unmapped_pixels": self.unmapped.total(),
        }
        classes = {
            f"class {name}" if name in means else name: {
                "precision": float(figures.precision[i]),
                "Recall": float(figures.recall[i]),
                "F1 Score": float(figures.f1[i]),
                "iou": float(figures.iou[i]),
            }
            for i, name in enumerate(self.names)
        }
        return {**means, **classes}

    def report(self) -> str:
        """A line per class, then the four means as established."""
        means = self.compute()
        lines = [f"Recall : {means['Recall']}", "", f"Precision: {means['Precision']}", ""]
        lines += [f"F1 score: {means['F1 score']}", "", f"Mean IOU: {means['Mean IOU']}", ""]
        return "\n".join([*self.table(), "", *lines, *self.notes()])


class IouMetric(ConfusionMetric):
    """mIoU and pixel accuracy (mask2former, oneformer)."""

    def compute(self) -> dict[str, Any]:
        """``mIoU`` and ``ACC_all`` in [0, 1], ``unmapped_pixels``, and ``IoU`` by class name (NaN: does not occur)."""
        iou = self.figures().iou
        total = int(self.matrix.sum())
        return {
            "mIoU": mean(iou),
            "ACC_all": float(np.trace(self.matrix) / total) if total else float("nan"),
            "unmapped_pixels": self.unmapped.total(),
            "IoU": {name: float(value) for name, value in zip(self.names, iou, strict=True)},
        }

    def report(self) -> str:
        """A line per class that occurs, then the two numbers as established."""
        numbers = self.compute()
        heading, *rows = self.table()
        seen = self.matrix.sum(axis=0) + self.matrix.sum(axis=1) > 0
        rows = [row for row, occurs in zip(rows, seen, strict=True) if occurs]
        lines = [heading, *rows, "", f"mIOU: {numbers['mIoU']:2.2f}", f"Acc: {numbers['ACC_all']:2.2f}"]
        return "\n".join([*lines, *self.notes()])
