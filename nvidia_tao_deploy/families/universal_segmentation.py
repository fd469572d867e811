"""Universal segmentation with a label map file: mask2former, oneformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.masks import IGNORE, Truth
from nvidia_tao_deploy.data.panoptic import Category, CocoPanoptic, class_indices
from nvidia_tao_deploy.data.sample import Dataset, Listed, Sample
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.families.classification import read_json
from nvidia_tao_deploy.families.images import batch_size_or, image_network
from nvidia_tao_deploy.metrics.coco_masks import CocoMaskMetric, encode_segmentation
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.metrics.panoptic import PanopticMetric
from nvidia_tao_deploy.metrics.segmentation import IouMetric
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.drawing import parse_color
from nvidia_tao_deploy.predictions.queries import instances, panoptic_map
from nvidia_tao_deploy.predictions.segmentation_writer import seeded_color
from nvidia_tao_deploy.predictions.segments import SegmentClass, SegmentWriter
from nvidia_tao_deploy.predictions.types import Detections, LabelMap, PanopticMap

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
    good = isinstance(rows, list) and all(isinstance(row, dict) and "name" in row for row in rows)
    if not rows or not good or not all(contiguous or isinstance(row.get("id", -1), int) for row in rows):
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
        try:
            color = parse_color(row["color"]) if row.get("color") else seeded_color(index)
        except SpecError as error:
            raise DataError(f"'{row['name']}': {error.what}", where=where, remedy=error.remedy) from error
        found[index] = SegmentClass(str(row["name"]), color, bool(row.get("isthing", 1)))
    return [found.get(index, UNNAMED) for index in range(max(found) + 1)]


def label_map(spec: Any) -> list[SegmentClass]:
    """The classes of ``dataset.label_map``, by class index; ``spec.first_id`` is the category id of class 0."""
    return read_label_map(
        spec.require("dataset.label_map"),
        spec.model.sem_seg_head.num_classes,
        contiguous=spec.dataset.contiguous_id,
        first_id=spec.first_id,
    )


def labels(spec: Any) -> list[str]:
    """Class names where they are known at build time."""
    there = spec.dataset.label_map and Path(spec.dataset.label_map).is_file()
    return [entry.name for entry in label_map(spec)] if there else []


def writer(spec: Any, folder: Path, data: Dataset, _ports: Ports) -> SegmentWriter:
    """A picture per image."""
    return SegmentWriter(folder, label_map(spec), data.root)


def panoptic(spec: Any, annotations: str, images: str, pngs: str) -> CocoPanoptic:
    """The data set of a panoptic file, whose paths are under these keys of the spec."""
    return CocoPanoptic(
        spec.require(annotations),
        spec.require(images),
        spec.require(pngs),
        contiguous=spec.dataset.contiguous_id,
        first_id=spec.first_id,
        classes=spec.model.sem_seg_head.num_classes,
        strict=spec.strict,
    )


def coco_instances(spec: Any, annotations: str, images: str) -> InstanceMasks:
    """The data set of an instance file, whose paths are under these keys of the spec."""
    coco = CocoDetection(spec.require(annotations), spec.require(images), strict=spec.strict)
    contiguous, classes = spec.dataset.contiguous_id, spec.model.sem_seg_head.num_classes
    return InstanceMasks(coco, contiguous=contiguous, first_id=spec.first_id, classes=classes)


def things(spec: Any, action: str, dataset: Callable[[Any, str], Dataset]) -> list[bool]:
    """Whether class k is a thing: from the annotation file (evaluate) or the label map (inference)."""
    if action == "inference":
        return [entry.isthing for entry in label_map(spec)]
    return _things(dataset(spec, action), spec.model.sem_seg_head.num_classes)


def _things(data: Dataset, classes: int) -> list[bool]:
    assert isinstance(data, (CocoPanoptic, InstanceMasks))
    known = {data.class_of[row.id]: row.isthing for row in data.categories if row.id in data.class_of}
    return [known.get(index, True) for index in range(classes)]


def finish(mode: str, action: str, limits: Any, isthing: Sequence[bool]) -> Callable[..., Any]:
    """What makes a prediction of an image's arrays and its geometry, by mode: label map, instances or segments.

    ``limits`` has ``object_mask_threshold`` and ``overlap_threshold``; ``isthing`` is by class index.
    """
    if mode == "semantic":
        return LabelMap
    threshold = limits.object_mask_threshold
    if mode == "instance":
        # every instance counts for average precision
        return partial(instances, threshold=threshold if action == "inference" else -1.0)
    return partial(
        panoptic_map, isthing=isthing, object_threshold=threshold, overlap_threshold=limits.overlap_threshold
    )


def metric(spec: Any, data: Dataset) -> ByPrediction:
    """mIoU of label maps, mask AP of instances, PQ of segments."""
    classes = spec.model.sem_seg_head.num_classes
    assert isinstance(data, (CocoPanoptic, InstanceMasks))
    names = class_names(data.categories, data.class_of, classes)
    return ByPrediction(names, _things(data, classes), data if isinstance(data, InstanceMasks) else None)


batch_size = batch_size_or("dataset.val.batch_size", "dataset.test.batch_size")
universal_network = partial(image_network, writer=writer, batch_size=batch_size, labels=labels)
"""A :class:`Network` with what is the family's own."""


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


class InstanceMasks(Listed):
    """COCO instances as masks; targets are :class:`InstanceTruth`.

    Args:
        coco: the annotations.
        contiguous: class index is the category's place in the file, else its id less ``first_id``.
        first_id: the category id of class 0, unless ``contiguous``.
        classes: classes of the model.
    """

    def __init__(self, coco: CocoDetection, *, contiguous: bool, first_id: int, classes: int) -> None:
        self.coco = coco
        rows = coco.raw["categories"]
        self.categories = [Category(row["id"], str(row["name"]), True) for row in rows]
        self.class_of = class_indices(self.categories, contiguous=contiguous, first_id=first_id, classes=classes)
        if not self.class_of:
            raise DataError("no category of the file is a class of the model", where=str(coco.json_file))
        empty = [a["id"] for a in coco.raw["annotations"] if not a.get("segmentation")]
        told = [counted(len(empty), "annotations have no segmentation and are not drawn")] if empty else []
        where, samples = str(coco.json_file), (coco[i] for i in range(len(coco)))
        super().__init__(
            (replace(s, target=InstanceTruth(s.target.annotations, self.class_of, where)) for s in samples),
            coco.root,
            [*coco.issues, *told],
        )


class ByPrediction:
    """mIoU of label maps, PQ of segments, mask AP of instances.

    ``names`` and ``isthing`` (for segments) are by class index; ``instances`` are the annotations, for instances.
    """

    def __init__(self, names: Sequence[str], isthing: Sequence[bool], instances: InstanceMasks | None = None) -> None:
        self._names, self._isthing, self._instances = names, isthing, instances
        self._metric: Metric | None = None

    def update(self, sample: Sample, prediction: LabelMap | PanopticMap | Detections) -> None:
        """Take one image."""
        if self._metric is None:
            self._metric = self._made_for(prediction)
        self._metric.update(sample, prediction)

    def compute(self) -> dict[str, Any]:
        """The numbers of the metric."""
        return self._chosen().compute()

    def report(self) -> str:
        """The table of the metric."""
        return self._chosen().report()

    def _chosen(self) -> Metric:
        if self._metric is None:
            raise DataError("no image was evaluated")
        return self._metric

    def _made_for(self, prediction: LabelMap | PanopticMap | Detections) -> Metric:
        if isinstance(prediction, LabelMap):
            return IouMetric(self._names)
        if isinstance(prediction, PanopticMap):
            return PanopticMetric(self._names, self._isthing)
        assert self._instances is not None
        category_of = {index: category for category, index in self._instances.class_of.items()}
        return CocoMaskMetric(self._instances.coco, [category_of.get(k, -1) for k in range(len(self._names))])
