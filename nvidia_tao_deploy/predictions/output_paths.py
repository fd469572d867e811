"""Where a sample's outputs go: the dataset's folder tree, mirrored."""

from __future__ import annotations

import os
from pathlib import Path


class OutputPaths:
    """Relative output paths, unique within one run.

    A file keeps its path below ``root``, so equal names in two folders do not meet; a file from elsewhere keeps its
    name. Where two sources would still share an output (``a.jpg`` and ``a.png`` share ``a.txt``), the later one
    keeps its suffix in the stem: ``a.png.txt``.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = None if root is None else os.path.abspath(root)
        self._taken: dict[Path, Path] = {}

    def relative(self, source: Path) -> Path:
        """The source's path below root, or its name."""
        if self._root is not None:
            relative = os.path.relpath(os.path.abspath(source), self._root)
            if not relative.startswith(os.pardir) and not os.path.isabs(relative):
                return Path(relative)
        return Path(source.name)

    def __call__(self, source: Path, suffix: str) -> Path:
        """The relative path of an output of this source with another suffix (".txt"), or with its own ("")."""
        relative = self.relative(source)
        wanted = relative.with_suffix(suffix) if suffix else relative
        candidate, number = wanted, 1
        while self._taken.setdefault(Path(suffix) / candidate, source) != source:
            ending = suffix or relative.suffix
            stem = relative.name if number == 1 and suffix else f"{relative.stem}_{number}"
            candidate, number = relative.with_name(f"{stem}{ending}"), number + 1
        return candidate
