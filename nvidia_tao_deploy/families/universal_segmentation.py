"""Universal segmentation with a label map file: mask2former, oneformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.masks import IGNORE, Truth
from nvidia_tao_deploy.data.panoptic import Category, class_indices
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.families.classification import read_json
from nvidia_tao_deploy.metrics.coco_masks import encode_segmentation
from nvidia_tao_deploy.predictions.drawing import parse_color
from nvidia_tao_deploy.predictions.segmentation_writer import seeded_color
from nvidia_tao_deploy.predictions.segments import SegmentClass

UNNAMED = SegmentClass("nan", (0, 0, 0))


def read_label_map(path: Path | str, classes: int, *, contiguous: bool, first_id: int) -> list[SegmentClass]:
    """The classes of a label map: JSON list of {id, name, color, isthing}.

    Args:
        path: the file.
        classes: of the model.
        contiguous: class index is the place in the file, else id less ``first_id``; gaps are "nan", black things.
        first_id: the id of class 0.

    Returns:
        By class index; a class without colour has one fixed by its index.

    Raises:
        DataError: the file is no label map, or an id lies outside the classes or stands twice.
    """
    rows, where = read_json(path), str(path)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and "name" in row for row in rows):
        raise DataError("not a label map", where=where, remedy='Write [{"id": 1, "name": "person", ...}, ...].')
    found: dict[int, SegmentClass] = {}
    for place, row in enumerate(rows):
        index = place if contiguous else row.get("id", -1) - first_id
        if not 0 <= index < classes:
            raise DataError(
                f"'{row['name']}' (id {row.get('id')}) would be class {index}, and the model has {classes}",
                where=where,
                remedy="Check model.sem_seg_head.num_classes and dataset.contiguous_id.",
            )
        if index in found:
            raise DataError(f"id {row['id']} stands twice", where=where)
        color = parse_color(row["color"]) if row.get("color") else seeded_color(index)
        found[index] = SegmentClass(str(row["name"]), color, bool(row.get("isthing", 1)))
    return [found.get(index, UNNAMED) for index in range(max(found) + 1)]


def label_map(spec: Any, first_id: int) -> list[SegmentClass]:
    """The classes of ``dataset.label_map``, by class index.

    Raises:
        SpecError: it is not named.
        DataError: see :func:`read_label_map`.
    """
    return read_label_map(
        spec.require("dataset.label_map"),
        spec.model.sem_seg_head.num_classes,
        contiguous=spec.dataset.contiguous_id,
        first_id=first_id,
    )


def labels(spec: Any, first_id: int) -> list[str]:
    """Class names where they are known at build time."""
    there = spec.dataset.label_map and Path(spec.dataset.label_map).is_file()
    return [entry.name for entry in label_map(spec, first_id)] if there else []


def batch_size(spec: Any, action: str) -> int:
    """``<action>.batch_size`` if it is positive, else that of ``dataset.val`` (evaluate) or ``dataset.test``."""
    own = getattr(spec, action).batch_size
    return int(own if own > 0 else (spec.dataset.val if action == "evaluate" else spec.dataset.test).batch_size)


def class_names(categories: Sequence[Category], class_of: Mapping[int, int], classes: int) -> list[str]:
    """By class index: the category's name, the index where no category is this class."""
    names = {class_of[category.id]: category.name for category in categories if category.id in class_of}
    return [names.get(index, str(index)) for index in range(classes)]


@dataclass(frozen=True)
class InstanceTruth:
    """The annotations of an image as target; the later ones lie over the earlier ones.

    Attributes:
        annotations: COCO annotations, crowds included.
        class_of: category id -> class index.
        where: for messages.
    """

    annotations: tuple[Mapping[str, Any], ...]
    class_of: Mapping[int, int]
    where: str

    def load(self, size: tuple[int, int]) -> Truth:
        """The class of every pixel; what no annotation covers does not count.

        Raises:
            DataError: a segmentation cannot be read, or is of another size.
        """
        from pycocotools import mask as codes

        labels = np.full(size[::-1], IGNORE, np.uint16)
        unmapped: dict[str, int] = {}
        for annotation in self.annotations:
            if annotation["iscrowd"] or not annotation.get("segmentation"):
                continue
            try:
                mask = codes.decode(encode_segmentation(annotation["segmentation"], size)).astype(bool)
            except DataError as error:
                raise DataError(f"annotation {annotation['id']}: {error.what}", where=self.where) from error
            index = self.class_of.get(annotation["category_id"])
            if index is None:
                name = f"category {annotation['category_id']}"
                unmapped[name] = unmapped.get(name, 0) + int(mask.sum())
            labels[mask] = IGNORE if index is None else index
        return Truth(labels, unmapped)


class InstanceMasks:
    """COCO instances as masks; targets are :class:`InstanceTruth`.

    Args:
        coco: the annotations.
        contiguous: class index is the category's place in the file, else its id less 1.
        classes: classes of the model.
    """

    def __init__(self, coco: CocoDetection, *, contiguous: bool, classes: int) -> None:
        self.coco, self.root, self.issues = coco, coco.root, coco.issues
        rows = coco.raw["categories"]
        self.categories = [Category(row["id"], str(row["name"]), True) for row in rows]
        self.class_of = class_indices(self.categories, contiguous=contiguous, first_id=1, classes=classes)
        if not self.class_of:
            raise DataError("no category of the file is a class of the model", where=str(coco.json_file))
        empty = [a["id"] for a in coco.raw["annotations"] if not a.get("segmentation")]
        if empty:
            self.issues = [*self.issues, f"{len(empty)} annotations have no segmentation and are not drawn"]

    def __len__(self) -> int:
        return len(self.coco)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.coco[index]
        target = InstanceTruth(sample.target.annotations, self.class_of, str(self.coco.json_file))
        return Sample(sample.id, sample.paths, target, sample.meta)
