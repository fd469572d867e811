"""Accuracy per task, and the table of predictions. A prediction is {task: Classification}."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nvidia_tao_deploy.arrays import Ints
from nvidia_tao_deploy.cv.multitask_classification.table import TaskClasses
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.topk import class_tables, confusion_matrix
from nvidia_tao_deploy.predictions.table import write_table
from nvidia_tao_deploy.predictions.types import Classification

Prediction = Mapping[str, Classification]


def class_name(classes: TaskClasses, task: str, class_id: int) -> str:
    """The class's name; its index where the list is shorter than the head."""
    names = classes[task]
    return names[class_id] if class_id < len(names) else str(class_id)


class TaskAccuracy:
    """Share of images whose best-scored class is the label, per task; keys are the task names in sorted order."""

    def __init__(self, classes: TaskClasses) -> None:
        self._classes = classes
        self._labels: dict[str, list[int]] = {task: [] for task in classes}
        self._predicted: dict[str, list[int]] = {task: [] for task in classes}

    def update(self, sample: Sample, prediction: Prediction) -> None:
        """Take one image's scores; ModelError where a score is NaN."""
        for task, scores in prediction.items():
            if np.isnan(scores.scores).any():
                raise ModelError(f"the model's scores of {sample.id} for task '{task}' hold NaN")
            self._labels[task].append(sample.target[task])
            self._predicted[task].append(scores.class_id)

    def compute(self) -> dict[str, float]:
        """Accuracy in [0, 1] by task; DataError where no image was evaluated."""
        if not all(self._labels.values()):
            raise DataError("no image was evaluated")
        return {task: float(np.mean(np.equal(labels, self._predicted[task]))) for task, labels in self._labels.items()}

    def mean_of_tasks(self) -> float:
        """One number for all tasks, in [0, 1]."""
        return float(np.mean(list(self.compute().values())))

    def confusion(self, task: str) -> Ints:
        """(C, C) counts, row = label, column = prediction; C covers every class that has a name or was predicted."""
        labels, predicted = (np.array(found[task], np.int64) for found in (self._labels, self._predicted))
        classes = max(len(self._classes[task]), int(predicted.max(initial=0)) + 1)
        return confusion_matrix(labels, predicted, classes)

    def report(self) -> str:
        """Accuracy, confusion matrix (up to 20 classes) and the figures of every class, per task."""
        lines = []
        for task, accuracy in self.compute().items():
            matrix = self.confusion(task)
            names = [class_name(self._classes, task, class_id) for class_id in range(len(matrix))]
            lines += [f"{task} accuracy: {accuracy:.4f}", "", class_tables(matrix, names), ""]
        return "\n".join(lines)


class TaskWriter:
    """Collects rows and writes ``result.csv`` on close: filename, then ``label (confidence)`` per task, with a header.

    Paths are absolute; confidences have 4 decimals.
    """

    def __init__(self, out_dir: Path | str, classes: TaskClasses) -> None:
        self.path = Path(out_dir) / "result.csv"
        self._classes = classes
        self._rows: list[list[str]] = []

    def write(self, sample: Sample, prediction: Prediction) -> None:
        """Take one sample's row."""
        row = [os.path.abspath(sample.path)]
        for task in self._classes:
            best = prediction[task].class_id
            row.append(f"{class_name(self._classes, task, best)} ({prediction[task].scores[best]:.4f})")
        self._rows.append(row)

    def close(self) -> list[Path]:
        """Write the table as a whole."""
        return write_table(self.path, [["filename", *self._classes], *self._rows])
