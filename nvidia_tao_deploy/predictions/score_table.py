"""The report of inspection networks: the user's table with a score for every row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.predictions.table import write_table

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
        """Write the table as a whole; DataError where it cannot be written."""
        return write_table(self.path, [[*self._columns, COLUMN], *self._rows])
