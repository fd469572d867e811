"""Images with outlines of text: ICDAR 2015 and Uber-Text label files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.folder import common_root, relative_id
from nvidia_tao_deploy.data.image import list_images
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, read_lines, some
from nvidia_tao_deploy.errors import DataError

Kind = Literal["ICDAR2015Dataset", "UberDataset"]


@dataclass(frozen=True)
class TextTruth:
    """Outlines of one image.

    Attributes:
        polygons: (K, 2) float64 corners each, source pixels.
        texts: one per polygon.
        ignored: (N,) bool, regions that count neither way.
    """

    polygons: Sequence[NDArray[np.float64]]
    texts: Sequence[str]
    ignored: NDArray[np.bool_]


def icdar_line(line: str) -> tuple[NDArray[np.float64], str]:
    """``x1,y1,...,x4,y4,text``: corners (4, 2) from the top left clockwise, and field 9.

    Raises:
        ValueError: fewer than nine fields, or coordinates that are no numbers.
    """
    fields = line.split(",")
    if len(fields) < 9:
        raise ValueError("no text" if len(fields) == 8 else counted(len(fields), "fields"))
    return clockwise(_corners(fields[:8])), fields[8]


def uber_line(line: str) -> tuple[NDArray[np.float64], str]:
    """``x1 y1 ... xk yk a b<TAB>text``: corners (K, 2), and the text, ``###`` where it has a blank.

    Raises:
        ValueError: no tab, or coordinates that are no pairs of numbers.
    """
    points, tab, text = line.partition("\t")
    if not tab:
        raise ValueError("no tab before the text")
    text = text.split("\t")[0]
    return _corners(points.split()[:-2]), "###" if " " in text else text


def clockwise(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Four corners from the top left clockwise: least and greatest x + y, least and greatest y - x.

    Where one corner is two of these, as under 45 degrees, they stay as they are.
    """
    total, difference = points.sum(axis=1), points[:, 1] - points[:, 0]
    order = [total.argmin(), difference.argmin(), total.argmax(), difference.argmax()]
    return points[order] if len(set(order)) == 4 else points


_LINES: dict[str, Callable[[str], tuple[NDArray[np.float64], str]]] = {
    "ICDAR2015Dataset": icdar_line,
    "UberDataset": uber_line,
}
_PREFIX = {"ICDAR2015Dataset": "gt_", "UberDataset": "truth_"}


class TextRegionLabels(Listed):
    """Images and their outlines, sorted by path.

    Args:
        sources: folders with ``img/`` and ``gt/``, or list files of ``image<TAB>label`` (paths relative to the
            working directory or to the list).
        kind: form of the label files.
        ignore_tags: texts of regions that count neither way.
        keep_empty: keep images without any outline (what is found there is wrong); else they are left out.
        strict: raise for what would otherwise go into ``issues``.

    Raises:
        DataError: a source or a label file of a folder is missing, nothing is left, or an issue with ``strict``.
    """

    def __init__(
        self,
        sources: Sequence[str],
        kind: Kind = "ICDAR2015Dataset",
        ignore_tags: Sequence[str] = ("*", "###"),
        *,
        keep_empty: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__(())
        pairs: list[tuple[Path, Path]] = []
        for source in sources:
            found, issues = _folder_pairs(Path(source), kind) if Path(source).is_dir() else _list_pairs(Path(source))
            pairs += found
            self.issues += issues
        self.root = common_root([image.parent for image, _ in pairs]) if pairs else None
        bad, empty = [], []
        for image, label in sorted(pairs):
            truth, wrong = read_truth(label, kind, ignore_tags)
            bad += wrong
            if not truth.polygons and not keep_empty:
                empty.append(image.name)
                continue
            self._samples.append(Sample(relative_id(image, self.root), (image,), truth))
        if bad:
            self.issues.append(f"{counted(len(bad), 'label lines are left out')}: {some(bad)}")
        if empty:
            self.issues.append(f"{counted(len(empty), 'images without any text region are left out')}: {some(empty)}")
        where = some(sources)
        if not self._samples:
            raise DataError(f"not one image with a text region; {some(self.issues or ['no source'], 2)}", where=where)
        if strict and self.issues:
            raise DataError(self.issues[0], where=where, remedy="Mend the labels, or leave `strict` off.")


def read_truth(label: Path, kind: Kind, ignore_tags: Sequence[str]) -> tuple[TextTruth, list[str]]:
    """The outlines of a label file, and the lines that are none (malformed, or without area).

    Raises:
        DataError: the file cannot be read.
    """
    import cv2

    polygons, texts, wrong = [], [], []
    for number, line in enumerate(read_lines(label), 1):
        if not line.strip():
            continue
        try:
            points, text = _LINES[kind](line.strip("\r\n"))
        except ValueError as error:
            wrong.append(f"{label.name}:{number} ({error})")
            continue
        if not cv2.contourArea(points.astype(np.float32)) > 0:
            wrong.append(f"{label.name}:{number} (no area)")
            continue
        polygons.append(points)
        texts.append(text)
    ignored = np.array([text in ignore_tags for text in texts], bool)
    return TextTruth(polygons, texts, ignored), wrong


def _corners(fields: Sequence[str]) -> NDArray[np.float64]:
    values = np.array([float(field) for field in fields])
    if len(values) % 2 or len(values) < 6 or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} coordinates" if np.isfinite(values).all() else "a coordinate is no number")
    return values.reshape(-1, 2)


def _folder_pairs(folder: Path, kind: Kind) -> tuple[list[tuple[Path, Path]], list[str]]:
    pairs = [
        (image, folder / "gt" / f"{_PREFIX[kind]}{image.name.split('.')[0]}.txt")
        for image in list_images(folder / "img", recursive=False)
    ]
    missing = [label.name for _, label in pairs if not label.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(pairs)} images have no label file: {some(missing)}",
            where=str(folder / "gt"),
            remedy=f"Every image img/NAME.* needs gt/{_PREFIX[kind]}NAME.txt; is {kind} right?",
        )
    return pairs, []


def _list_pairs(path: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    pairs, missing = [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        names = line.replace(".jpg ", ".jpg\t").strip().split("\t")
        files = [_find(name.strip(), path.parent) for name in names[:2]]
        if len(files) == 2 and all(file.is_file() and file.stat().st_size for file in files):
            pairs.append((files[0], files[1]))
        else:
            missing.append(f"line {number}")
    what = f"{counted(len(missing), 'lines')} of {path} without an image and a label file are left out: {some(missing)}"
    return pairs, [what] if missing else []


def _find(name: str, beside: Path) -> Path:
    here = Path(os.path.abspath(name))
    return here if here.is_file() else Path(os.path.abspath(beside / name))
