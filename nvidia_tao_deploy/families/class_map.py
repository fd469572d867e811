"""Class maps by line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families.coco_detection import read_classmap


def read_class_map(path: Path | str) -> dict[int, str]:
    """Line i (from 0) names class i + 1; a blank line names nothing.

    Raises:
        SpecError: the file names no class.
        DataError: the file is missing or not text.
    """
    names = {number: name for number, name in enumerate(read_classmap(path), 1) if name}
    if not names:
        raise SpecError("the class map names no class", where=str(path), remedy="Write one class name per line.")
    return names


def labels(
    spec: Any, key: str = "class_map", read: Callable[[str], Mapping[int, str]] = read_class_map
) -> Sequence[str]:
    """Names of ``inference.<key>`` where the file is there, for the manifest."""
    path = getattr(spec.inference, key)
    return list(read(path).values()) if path and Path(path).is_file() else ()
