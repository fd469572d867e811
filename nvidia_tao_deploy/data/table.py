"""Samples that a CSV table lists, one per row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import read_text
from nvidia_tao_deploy.errors import DataError


def read_csv(path: Path, check: Callable[[Sequence[str], str], None]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, which ``check(header, its place)`` may refuse, and (line, cells) of every row that is not blank.

    Nothing is converted to numbers; short rows are filled up with empty cells.

    Raises:
        DataError: the file is missing or malformed, or a row has more cells than the header.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        (line, header), *rows = [(reader.line_num, row) for row in reader if row] or [(1, [])]
    except csv.Error as error:
        raise DataError(f"not a CSV table: {error}", where=f"{path}:{reader.line_num}") from error
    check(header, f"{path}:{line}")
    for line, row in rows:
        if len(row) > len(header):
            raise DataError(f"{len(row)} cells under {len(header)} columns", where=f"{path}:{line}")
    return header, [(line, [*row, *[""] * (len(header) - len(row))]) for line, row in rows]


class TableRows(Listed):
    """The rows that can be used, in the table's order; the others are counted and named in ``issues``."""

    def __init__(self, root: Path) -> None:
        super().__init__((), root)
        self._names: set[str] = set()

    def take(self, line: int, name: str, paths: tuple[Path, ...], target: Any, **meta: Any) -> None:
        """Add a row's sample; a name that stands twice gets the line."""
        self._samples.append(Sample(f"{name}#{line}" if name in self._names else name, paths, target, meta))
        self._names.add(name)

    def finish(self, table: Path | str, *, strict: bool) -> None:
        """All rows are taken; DataError where none is left, or with ``strict`` one is left out."""
        if not self._samples:
            raise DataError(
                f"not one row can be used; the first: {self.issues[0]}" if self.issues else "the table has no rows",
                where=str(table),
                remedy=f"File names are looked up in {self.root}.",
            )
        if strict and self.issues:
            raise DataError(self.issues[0], where=str(table), remedy="Mend the table, or leave `strict` off.")
