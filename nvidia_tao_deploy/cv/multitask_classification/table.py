"""The CSV table of images and their class in every task, and the class mapping of the training."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvidia_tao_deploy.data.folder import relative_id
from nvidia_tao_deploy.data.table import TableRows, read_csv
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.families.classification import read_json

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif"})

TaskClasses = Mapping[str, Sequence[str]]
"""Class names in index order, by task, tasks in sorted order."""

FORMS: tuple[tuple[type[float], re.Pattern[str]], ...] = (
    (int, re.compile(r"\s*[+-]?\d+\s*")),
    (float, re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")),
)


@dataclass(frozen=True)
class Table:
    """A CSV file: ``columns`` are the tasks; ``rows`` are (line, file name, one cell per task)."""

    path: str
    columns: Sequence[str]
    rows: Sequence[tuple[int, str, Sequence[str]]]

    def classes(self) -> dict[str, list[str]]:
        """Per task the distinct values of the column, sorted; numbers by value, as the trainer reads them.

        Raises:
            DataError: a task has no value at all.
        """
        found = {}
        for column, task in sorted(enumerate(self.columns), key=lambda pair: pair[1]):
            found[task] = _ordered([cells[column] for _, _, cells in self.rows if cells[column]])
            if not found[task]:
                raise DataError(f"task '{task}' has no value in any row", where=self.path)
        return found


def read_table(path: Path | str) -> Table:
    """Read the CSV file: a header, then file name and one cell per task; blank lines are skipped.

    Raises:
        DataError: missing, malformed, a column twice, or a row with more cells than the header.
    """

    def check(header: Sequence[str], place: str) -> None:
        if not header or len(set(header[1:])) < len(header[1:]):
            raise DataError(f"the header must name the file column and each task once: {some(header, 10)}", where=place)

    header, rows = read_csv(Path(path), check)
    return Table(str(path), header[1:], [(line, name, cells) for line, (name, *cells) in rows])


def read_class_mapping(path: Path | str) -> dict[str, list[str]]:
    """The trainer's ``{"tasks": [...], "class_mapping": {task: {"0": name, ...}}}``; {} where it only lists tasks.

    Raises:
        DataError: missing, malformed, or indices other than 0 to n-1.
    """
    content = read_json(path)
    tasks = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(tasks, list) or not tasks:
        raise DataError("not a class mapping: it has no list 'tasks'", where=str(path))
    mapping = content.get("class_mapping")
    if mapping is None:
        return {}
    if not isinstance(mapping, dict) or set(mapping) != {str(task) for task in tasks}:
        raise DataError("'class_mapping' must hold one block for each of 'tasks'", where=str(path))
    found = {}
    for task in sorted(mapping):
        block = mapping[task]
        if not isinstance(block, dict) or set(block) != {str(index) for index in range(len(block))}:
            raise DataError(f"the classes of '{task}' must have the indices 0, 1, 2, ...", where=str(path))
        found[task] = [str(block[str(index)]) for index in range(len(block))]
    return found


class TaskTable(TableRows):
    """The rows whose image is there, in the table's order; targets are {task: class index}.

    Rows left out are counted and named in ``issues``: another suffix, no such file and, where labels are needed, a
    task without a value or with one that no class has.

    Args:
        table: the CSV file.
        image_dir: what its file names are relative to.
        classes: class names by task.
        labelled: whether targets are needed (evaluate).
        strict: raise for what would otherwise go into ``issues``.

    Raises:
        DataError: no row is left, a task has no column, or an issue with ``strict``.
    """

    def __init__(
        self, table: Table, image_dir: Path | str, classes: TaskClasses, *, labelled: bool, strict: bool = False
    ) -> None:
        root = Path(os.path.abspath(image_dir))
        super().__init__(root)
        self.classes = classes
        if labelled and set(table.columns) != set(classes):
            raise DataError(
                f"the table's tasks are {some(sorted(table.columns))}; the class mapping's are {some(classes)}",
                where=table.path,
            )
        index = {task: {name: i for i, name in enumerate(names)} for task, names in classes.items()}
        for line, name, cells in table.rows:
            path = Path(os.path.join(root, name))
            target = {}
            problem = _file_problem(path)
            for task, cell in zip(table.columns, cells, strict=True) if labelled and not problem else ():
                class_id = index[task].get(cell, index[task].get(_canonical(cell)))
                if class_id is None:
                    problem = f"'{cell}' is no class of task '{task}'" if cell else f"no value for task '{task}'"
                    break
                target[task] = class_id
            if problem:
                self.issues.append(f"{table.path}:{line}: {name} skipped: {problem}")
                continue
            self.take(line, relative_id(path, root), (path,), target if labelled else None)
        self.finish(table.path, strict=strict)


def _file_problem(path: Path) -> str | None:
    if path.suffix.lower() not in SUFFIXES:
        return f"the suffix is none of {' '.join(sorted(SUFFIXES))}"
    return None if path.is_file() else "no such file"


def _ordered(values: Sequence[str]) -> list[str]:
    distinct = set(values)
    for kind, form in FORMS:
        if all(form.fullmatch(value) for value in distinct):
            return [str(number) for number in sorted({kind(value) for value in distinct})]
    return sorted(distinct)


def _canonical(value: str) -> str:
    """A number in the one form that :func:`_ordered` gives it."""
    return next((str(kind(value)) for kind, form in FORMS if form.fullmatch(value)), value)
