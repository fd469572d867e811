"""COCO instances json: images, boxes, categories."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.folder import common_root
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted, read_text, some
from nvidia_tao_deploy.errors import DataError


@dataclass(frozen=True)
class CocoTarget:
    """The annotations of one image, in json order.

    Attributes:
        boxes_xyxy: (K, 4) float64, source pixels: x, y, x + width, y + height.
        class_ids: (K,) int64 category ids.
        iscrowd: (K,) bool.
        area: (K,) float64, square pixels, as annotated.
        annotations: the K json objects (segmentation and captions live here).
    """

    boxes_xyxy: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    iscrowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    annotations: tuple[Mapping[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.class_ids)


class CocoDetection:
    """A COCO json and the folder of its images; samples in the json's image order, ids are image ids.

    A file is looked for below ``image_dir`` (of several folders, in their order) first, then as the json names it. What
    can be read in only one way is mended and told in ``issues``: images missing on disk (skipped), boxes with NaN or
    negative size (dropped), missing or impossible ``area`` (width x height), missing ``iscrowd`` (0), unusable
    annotation ids (renumbered). Boxes of zero area, and boxes outside their image, are kept because the COCO metric
    counts them, and told as well.

    Attributes:
        raw: the json object with those changes, as pycocotools takes it.
        categories: category id -> name, ascending ids.
        image_ids: ids of the samples, in order.

    Args:
        json_file: the annotation file.
        image_dir: folder or folders that ``file_name`` is relative to; None: the json's own folder.
        limit: use the first ``limit`` images only; None or 0: all.
        strict: raise for images missing on disk instead of skipping them.

    Raises:
        DataError: the json is malformed (line and column are named), lacks a key, has ids that repeat or point
            nowhere, or none of its images exists.
    """

    def __init__(
        self,
        json_file: Path | str,
        image_dir: Path | str | Sequence[Path | str] | None = None,
        *,
        limit: int | None = None,
        strict: bool = False,
    ) -> None:
        self.json_file = Path(json_file)
        given = self.json_file.parent if image_dir is None else image_dir
        folders = [given] if isinstance(given, (str, Path)) else given
        self._folders = [Path(os.path.abspath(folder)) for folder in folders]
        self.root: Path | None = common_root(self._folders)
        self.issues: list[str] = []
        document = load_document(self.json_file)
        where = str(self.json_file)
        self.categories: dict[int, str] = _categories(document["categories"], where)
        images = _images(document["images"], where)
        annotations = _annotations(document["annotations"], images, self.categories, where, self.issues)
        self.raw: dict[str, Any] = {**document, "annotations": annotations}
        self._images = self._found_on_disk(list(images.values())[: limit or None], strict)
        self.image_ids: list[int] = [image["id"] for image, _ in self._images]
        self._of_image: dict[int, list[Mapping[str, Any]]] = {}
        for annotation in annotations:
            self._of_image.setdefault(annotation["image_id"], []).append(annotation)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Sample:
        image, path = self._images[index]
        size = (image["width"], image["height"]) if "width" in image and "height" in image else None
        meta = {"annotated_size": size} if size else {}
        return Sample(image["id"], (path,), self.target(image["id"]), meta)

    def target(self, image_id: int) -> CocoTarget:
        """The annotations of one image; empty arrays where it has none."""
        annotations = tuple(self._of_image.get(image_id, ()))
        xywh = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
        return CocoTarget(
            boxes_xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
            class_ids=np.array([a["category_id"] for a in annotations], dtype=np.int64),
            iscrowd=np.array([a["iscrowd"] for a in annotations], dtype=bool),
            area=np.array([a["area"] for a in annotations], dtype=np.float64),
            annotations=annotations,
        )

    def _found_on_disk(self, images: Sequence[dict[str, Any]], strict: bool) -> list[tuple[dict[str, Any], Path]]:
        found = [(image, path) for image in images if (path := self._path(image["file_name"])) is not None]
        if len(found) == len(images) > 0:
            return found
        kept = {image["id"] for image, _ in found}
        missing = [image["file_name"] for image in images if image["id"] not in kept]
        what = f"{len(missing)} of {len(images)} images are not on disk: {some(missing)}"
        absent = [folder for folder in self._folders if not folder.is_dir()]
        if absent and not found:
            raise DataError("no such image folder", where=some(absent), remedy="Check the image folder of the spec.")
        if strict or not found:
            raise DataError(
                what if images else "the annotation file lists no image",
                where=str(self.json_file),
                remedy=f"Files are looked for below {some(self._folders)}; check the image folder of the spec.",
            )
        self.issues.append(f"{what} (skipped)")
        return found

    def _path(self, file_name: str) -> Path | None:
        for path in (*(folder / file_name for folder in self._folders), Path(os.path.abspath(file_name))):
            if path.is_file():
                return path
        return None


def load_document(json_file: Path, kind: str = "instances") -> dict[str, Any]:
    """Parse a COCO json and check that images, annotations and categories are lists of objects.

    Raises:
        DataError: missing file, malformed json (with line and column), or a missing key.
    """
    text = read_text(json_file)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"malformed JSON: {error.msg} (line {error.lineno}, column {error.colno})",
            where=f"{json_file}:{error.lineno}",
            remedy="Is the file complete?",
        ) from error
    except RecursionError as error:
        raise DataError("malformed JSON: nested too deeply", where=str(json_file)) from error
    for key in ("images", "annotations", "categories"):
        rows = document.get(key) if isinstance(document, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(
                f"no list of objects '{key}': this is not a COCO {kind} file",
                where=str(json_file),
                remedy=f"COCO {kind} files have images, annotations and categories.",
            )
    return dict(document)


def _fields(rows: Sequence[Mapping[str, Any]], key: str, of: str, where: str) -> list[Any]:
    try:
        return [row[key] for row in rows]
    except KeyError:
        at = next(i for i, row in enumerate(rows) if key not in row)
        raise DataError(f"{of}[{at}] has no '{key}': {_short(rows[at])}", where=where) from None


def _integers(rows: Sequence[Mapping[str, Any]], key: str, of: str, where: str) -> list[int]:
    values = _fields(rows, key, of, where)
    for at, value in enumerate(values):
        if type(value) is not int:
            raise DataError(f"{of}[{at}].{key} is not an integer: {value!r}", where=where)
    return values


def _unique(ids: Sequence[int], of: str, where: str) -> None:
    if len(set(ids)) < len(ids):
        twice = [i for i, count in Counter(ids).items() if count > 1]
        raise DataError(f"{of} ids that stand more than once: {some(twice)}", where=where)


def _categories(rows: Sequence[Mapping[str, Any]], where: str) -> dict[int, str]:
    ids = _integers(rows, "id", "categories", where)
    _unique(ids, "category", where)
    if not ids:
        raise DataError("the annotation file has no category", where=where)
    names = _fields(rows, "name", "categories", where)
    return dict(sorted(zip(ids, map(str, names), strict=True)))


def _images(rows: Sequence[dict[str, Any]], where: str) -> dict[int, dict[str, Any]]:
    ids = _integers(rows, "id", "images", where)
    _unique(ids, "image", where)
    for at, name in enumerate(_fields(rows, "file_name", "images", where)):
        if not isinstance(name, str) or not name:
            raise DataError(f"images[{at}].file_name is not a file name: {name!r}", where=where)
    for at, row in enumerate(rows):
        for key in ("width", "height"):
            if type(row.get(key, 0)) not in (int, float):
                raise DataError(f"images[{at}].{key} is not a number: {row[key]!r}", where=where)
    return dict(zip(ids, rows, strict=True))


def _annotations(
    rows: Sequence[dict[str, Any]],
    images: Mapping[int, Mapping[str, Any]],
    categories: Mapping[int, str],
    where: str,
    issues: list[str],
) -> list[dict[str, Any]]:
    """The annotations the metric takes in, checked and completed; what was changed is told in ``issues``."""
    of_image = _integers(rows, "image_id", "annotations", where)
    of_category = _integers(rows, "category_id", "annotations", where)
    for key, ids, known in (("image_id", of_image, images), ("category_id", of_category, categories)):
        dangling = [i for i in ids if i not in known]
        if dangling:
            at = next(n for n, i in enumerate(ids) if i not in known)
            raise DataError(
                f"{counted(len(dangling), 'annotations name no known')} {key}: {some(dict.fromkeys(dangling))} "
                f"(first: annotations[{at}])",
                where=where,
                remedy="Do the annotations and the image or category list belong together?",
            )
    for at, row in enumerate(rows):
        if row.get("iscrowd", 0) not in (0, 1):
            raise DataError(f"annotations[{at}].iscrowd is not 0 or 1: {row['iscrowd']!r}", where=where)
    boxes = _boxes(rows, where)
    names = [row.get("id", f"annotations[{at}]") for at, row in enumerate(rows)]
    usable: NDArray[np.bool_] = np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1))
    _tell(issues, names, ~usable, "annotations dropped, their box is not finite or has a negative size")
    _tell(
        issues,
        names,
        usable & np.asarray((boxes[:, 2:] == 0).any(axis=1)),
        "annotations have a box of zero area (kept: misses)",
    )
    _tell(issues, names, usable & _outside(boxes, of_image, images), "annotations are outside their image (kept)")
    areas = [_area(row, where) for row in rows]
    without = usable & np.array([area is None for area in areas], bool)
    _tell(issues, names, without, "annotations have no usable 'area' (width x height)")
    _tell(
        issues, names, np.array(["iscrowd" not in r for r in rows], bool), "annotations have no 'iscrowd' (taken as 0)"
    )

    own_ids = [row.get("id") for row in rows]
    # The COCO metric marks a match by the annotation's id, so that 0 and repeated ids make it count wrongly.
    renumber = any(type(i) is not int or i <= 0 for i in own_ids) or len(set(own_ids)) < len(own_ids)
    if renumber:
        issues.append("annotation ids are missing, repeated or not positive: renumbered from 1")
    kept: list[dict[str, Any]] = []
    for row, area, keep in zip(rows, areas, usable.tolist(), strict=True):
        if keep:
            own = row["bbox"][2] * row["bbox"][3] if area is None else area
            kept.append({"iscrowd": 0, **row, "area": float(own), **({"id": len(kept) + 1} if renumber else {})})
    if all(row["iscrowd"] for row in kept):
        issues.append("no annotation counts, there are none but crowds: every number is -1, undefined")
    return kept


def _boxes(rows: Sequence[Mapping[str, Any]], where: str) -> NDArray[np.float64]:
    values = _fields(rows, "bbox", "annotations", where)
    for at, box in enumerate(values):
        if not isinstance(box, list) or len(box) != 4 or not all(type(v) in (int, float) for v in box):
            raise DataError(f"annotations[{at}].bbox is not [x, y, width, height]: {_short(box)}", where=where)
    return np.array(values, dtype=np.float64).reshape(-1, 4)


def _outside(
    boxes: NDArray[np.float64], of_image: Sequence[int], images: Mapping[int, Mapping[str, Any]]
) -> NDArray[np.bool_]:
    """Whether no part of a box lies in its image, as far as the json states the image's size."""
    sizes = [(images[i].get("width"), images[i].get("height")) for i in of_image]
    limits = np.array([(w or np.inf, h or np.inf) for w, h in sizes], dtype=np.float64).reshape(-1, 2)
    return np.asarray(((boxes[:, :2] >= limits) | (boxes[:, :2] + boxes[:, 2:] < 0)).any(axis=1))


def _tell(issues: list[str], names: Sequence[object], mask: NDArray[np.bool_], what: str) -> None:
    if mask.any():
        issues.append(f"{counted(int(mask.sum()), what)}: {some([names[i] for i in np.flatnonzero(mask).tolist()])}")


def _area(row: Mapping[str, Any], where: str) -> float | None:
    """The annotated area, None where there is none, or one that is not finite or negative."""
    value = math.nan if row.get("area") is None else row["area"]
    if type(value) not in (int, float):
        raise DataError(f"area is not a number: {_short(row)}", where=where)
    return float(value) if 0 <= value < math.inf else None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
