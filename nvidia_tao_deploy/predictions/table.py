"""Result tables as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.files import write_text


def write_table(path: Path, rows: Iterable[Iterable[Any]]) -> list[Path]:
    """Write the rows as a whole; the path as the list that a writer's ``close`` gives.

    Raises:
        DataError: the file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
    return [path]
