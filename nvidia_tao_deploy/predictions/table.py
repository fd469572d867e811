"""Result tables as CSV files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import write_text
from nvidia_tao_deploy.predictions.types import Classification

COLUMN = "output_score"


def write_table(path: Path, rows: Iterable[Iterable[Any]]) -> list[Path]:
    """Write the rows as a whole; the path as the list that a writer's ``close`` gives."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
    return [path]


class ClassificationWriter:
    """Collects rows and writes ``result.csv`` on close: path, label, confidence; no header.

    Paths are absolute; confidence is the best score in the shortest decimal form of its float32 value. A class
    without a name (``names``, by index) is written as its index.
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
        """Write the table as a whole."""
        return write_table(self.path, self._rows)


class ScoreTable:
    """Collects rows and writes a CSV file on close: the input's columns as they were, then ``output_score``.

    Scores are written in the shortest decimal form of their float32 value. A column of that name in the input is
    replaced.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self._columns = [column for column in columns if column != COLUMN]
        self._rows: list[list[str]] = []

    def write(self, sample: Sample, prediction: np.float32) -> None:
        """Take one sample's score; its row is ``meta["row"]``."""
        row = sample.meta["row"]
        self._rows.append([*(row[column] for column in self._columns), str(np.float32(prediction))])

    def close(self) -> list[Path]:
        """Write the table as a whole."""
        return write_table(self.path, [[*self._columns, COLUMN], *self._rows])
