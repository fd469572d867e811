"""Query detectors on COCO data: deformable_detr, dino, rtdetr, and in part the prompted ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import counted, read_lines, some
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.families.images import image_network, image_transform
from nvidia_tao_deploy.metrics.coco import CocoMetric
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.detr import decode_detr
from nvidia_tao_deploy.transforms.image import ImageTransform

IMAGE = Port("inputs", channels=(1, 3))
LOGITS, BOXES = Port("pred_logits", rank=3), Port("pred_boxes", rank=3)

bind = expect(inputs=(IMAGE,), outputs=(LOGITS, BOXES))


def dataset(spec: Any, action: str) -> Dataset:
    """evaluate: ``dataset.test_data_sources``; inference: the folders of ``dataset.infer_data_sources``."""
    if action == "evaluate":
        return annotated(spec)
    return ImageFolder(spec.require("dataset.infer_data_sources.image_dir"))


def annotated(spec: Any) -> CocoDetection:
    """``dataset.test_data_sources``; raises as every dataset of a :class:`Network`."""
    json_file = spec.require("dataset.test_data_sources.json_file")
    image_dir = spec.require("dataset.test_data_sources.image_dir")
    return CocoDetection(json_file, image_dir, strict=spec.strict)


def transform(spec: Any, ports: Ports) -> ImageTransform:
    """RGB stretched to the input size, (x / 255 - mean) / std of ``dataset.augmentation``, in every action."""
    augmentation = spec.dataset.augmentation
    mean, std = augmentation.input_mean, augmentation.input_std
    return image_transform(spec, ports, "inputs", scale=1 / 255, mean=mean, std=std)


def decode(spec: Any, ports: Ports, _action: str) -> Decoder:
    """The best ``model.num_select`` (query, class) pairs of each image."""
    channels, named = ports.outputs["pred_logits"].shape[2], spec.dataset.num_classes
    if named is not None and channels is not None and named != channels:
        say(f"note: the model has {counted(channels, 'classes')}, dataset.num_classes is {named}; the model's is used")
    return lambda outputs, geometries: decode_detr(
        outputs["pred_logits"], outputs["pred_boxes"], geometries, spec.model.num_select
    )


class MatchedCocoMetric(CocoMetric):
    """The COCO metric, which refuses a run in which no prediction has a class of the annotation file.

    Such a run would report AP 0 for a model that may be fine: its channels mean something else.
    """

    def compute(self) -> dict[str, float]:
        """The 12 numbers; DataError where no predicted class is a category of the annotation file."""
        known = self._dataset.categories
        predicted = self.predicted()
        if predicted and not predicted & set(known):
            raise DataError(
                f"no predicted class is a category of the annotation file: the model gives classes "
                f"{some(sorted(predicted))}, the file has category ids {some(known)}",
                where=str(self._dataset.json_file),
                remedy="Was the model trained with other category ids, or with contiguous labels?",
            )
        return super().compute()


def metric(spec: Any, data: Dataset, category_of_class: Sequence[int] | None = None) -> MatchedCocoMetric:
    """COCO mAP over ``dataset.eval_class_ids``; classes are category ids unless ``category_of_class`` maps them."""
    assert isinstance(data, CocoDetection)
    return MatchedCocoMetric(data, category_of_class, eval_class_ids=spec.dataset.eval_class_ids)


def read_classmap(path: Path | str) -> list[str | None]:
    """One class name per line, by line number; a blank line names nothing."""
    return [line.strip() or None for line in read_lines(Path(path))]


def read_class_map(path: Path | str) -> dict[int, str]:
    """Line i (from 0) names class i + 1; a blank line names nothing; SpecError where the file names no class."""
    names = {number: name for number, name in enumerate(read_classmap(path), 1) if name}
    if not names:
        raise SpecError("the class map names no class", where=str(path), remedy="Write one class name per line.")
    return names


def class_map_labels(
    spec: Any, key: str = "class_map", read: Callable[[str], Mapping[int, str]] = read_class_map
) -> Sequence[str]:
    """Names of ``inference.<key>`` where the file is there, for the manifest."""
    path = getattr(spec.inference, key)
    return list(read(path).values()) if path and Path(path).is_file() else ()


def classmap(spec: Any) -> list[str | None]:
    """The names of ``dataset.infer_data_sources.classmap``, by line.

    Raises:
        SpecError: no file is named, or it names no class.
    """
    key = "dataset.infer_data_sources.classmap"
    names = read_classmap(spec.require(key))
    if not any(names):
        raise SpecError("the classmap names no class", where=spec.where(key))
    return names


def classmap_writer(spec: Any, folder: Path, data: Dataset, ports: Ports, *, first: int) -> DetectionWriter:
    """Line i of the classmap names channel ``first`` + i; detections of channels without a name are left out.

    Raises:
        SpecError: no classmap is named, or it names no class of the model.
    """
    names = {first + line: name for line, name in enumerate(classmap(spec)) if name and first + line >= 0}
    where = spec.where("dataset.infer_data_sources.classmap")
    return writer(spec, folder, data, checked_names(names, ports.outputs["pred_logits"].shape[2], where))


def checked_names(names: dict[int, str], channels: int | None, where: str) -> dict[int, str]:
    """The names, after saying which of them are of channels that the model, which has ``channels``, does not have.

    Raises:
        SpecError: all of them are.
    """
    beyond = [name for channel, name in names.items() if channels is not None and channel >= channels]
    if len(beyond) == len(names):
        raise SpecError(f"no line of the class map names a class of the model, which has {channels}", where=where)
    if beyond:
        say(f"note: the class map names classes that the model, which has {channels}, does not know: {some(beyond)}")
    return names


def writer(
    spec: Any, folder: Path, data: Dataset, names: Mapping[int, str] | Sequence[str | None], *, tag_above: bool = False
) -> DetectionWriter:
    """Labels and pictures by ``inference.conf_threshold`` and ``inference.color_map``."""
    section = spec.inference
    colors = section.color_map or None
    return DetectionWriter(folder, names, section.conf_threshold, colors, data.root, tag_above=tag_above)


def labels(spec: Any) -> list[str]:
    """Names of the classmap where it is there, for the manifest; [] else."""
    path = spec.get("dataset.infer_data_sources.classmap")
    return [name or "" for name in read_classmap(path)] if path and Path(path).is_file() else []


detr_network = partial(
    image_network, bind=bind, dataset=dataset, transform=transform, decode=decode, metric=metric, labels=labels
)
"""A :class:`Network` of this family: it needs a spec and a writer, and replaces what it has otherwise."""
