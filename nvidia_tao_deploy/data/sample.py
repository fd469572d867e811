"""What a dataset hands out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Sample:
    """One dataset item. Nothing is decoded yet.

    Attributes:
        id: unique in its dataset; the image id for COCO data, else the relative path.
        paths: the files of this item, in the order of the network's inputs (one for most networks).
        target: ground truth in source coordinates, of the dataset's own type; None for inference.
        meta: facts about the item that the annotation states (e.g. ``size``: (width, height)); ``reference``: others
            are compared with it, so every part of the dataset needs it.
    """

    id: int | str
    paths: tuple[Path, ...]
    target: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The item's first (for most networks only) file."""
        return self.paths[0]


class Dataset(Protocol):
    """A finite, ordered, repeatable collection of samples.

    ``root`` is the folder that outputs mirror (a sample's label file keeps its path relative to it).
    """

    root: Path | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Listed:
    """Samples that have been found already; ``issues`` say what was left out."""

    def __init__(self, samples: Iterable[Sample], root: Path | None = None, issues: Iterable[str] = ()) -> None:
        self._samples, self.issues = list(samples), list(issues)
        self.root: Path | None = root

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self._samples[index]


def called(dataset: Dataset) -> str:
    """What people call the samples, in the plural: the dataset's ``called``, else images."""
    return getattr(dataset, "called", "images")
