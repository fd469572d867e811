"""The result table of classification inference."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.predictions.table import write_table
from nvidia_tao_deploy.predictions.types import Classification


class ClassificationWriter:
    """Collects rows and writes ``result.csv`` on close: path, label, confidence; no header.

    Paths are absolute; confidence is the best score in the shortest decimal form of its float32 value. A class
    without a name is written as its index.

    Args:
        out_dir: the results folder.
        names: class names in index order.
    """

    def __init__(self, out_dir: Path | str, names: Sequence[str] = ()) -> None:
        self.path = Path(out_dir) / "result.csv"
        self._names = list(names)
        self._rows: list[tuple[str, str, str]] = []

    def write(self, sample: Sample, prediction: Classification) -> None:
        """Take one sample's row."""
        class_id = prediction.class_id
        label = self._names[class_id] if class_id < len(self._names) else str(class_id)
        confidence = str(np.float32(prediction.scores[class_id]))
        self._rows.append((os.path.abspath(sample.path), label, confidence))

    def close(self) -> list[Path]:
        """Write the table as a whole; DataError where it cannot be written."""
        return write_table(self.path, self._rows)
