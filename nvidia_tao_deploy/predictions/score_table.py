"""The report of inspection networks: the user's table with a score for every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import write_text

COLUMN = "output_score"


class ScoreTable:
    """Collects rows and writes a CSV file on close: the input's columns as they were, then ``output_score``.

    Scores are written in the shortest decimal form of their float32 value. A column of that name in the input is
    replaced.

    Args:
        path: the file.
        columns: of the input table.
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
        """Write the table as a whole.

        Raises:
            DataError: the file cannot be written.
        """
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[*self._columns, COLUMN], *self._rows])
        write_text(self.path, text.getvalue())
        return [self.path]
