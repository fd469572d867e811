"""Detectors with protobuf specs and KITTI labels whose model ends in an NMS plugin: what they share.

Their metric compares boxes on the network's canvas, where truth is placed the way training placed it, so predictions
carry the geometry they came through. Settings are those of :mod:`nvidia_tao_deploy.families.kitti_detection_spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.arrays import Array, Floats, Ints
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.kitti import KittiDetection, KittiTarget, class_order
from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families.images import batch_size_or, calibration_images, image_transform
from nvidia_tao_deploy.metrics.kitti import KittiMetric
from nvidia_tao_deploy.network import Binder, Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.drawing import PALETTE
from nvidia_tao_deploy.predictions.types import Detections
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.sections import NetworkSpec
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.normalize import CAFFE_MEAN_BGR, CAFFE_MEAN_GREY, CAFFE_MEAN_GREY_16
from nvidia_tao_deploy.transforms.transform import Geometry

MAPPING = "dataset_config.target_class_mapping"
CAFFE_MEANS = dict(zip("bgrl", CAFFE_MEAN_BGR + CAFFE_MEAN_GREY, strict=True))
LEAST_SIDE = 1e-3  # of an object on the canvas, in its units; what is not larger has no area
IMAGE_INPUT = Port("Input", channels=(1, 3))

# Boxes (N, 4) from source pixels onto the canvas, in the units of the network's metric, or back from the model's.
Place = Callable[[Array, Geometry], Floats]


@dataclass(frozen=True, kw_only=True)
class PlacedDetections(Detections):
    """Detections in source pixels, with the geometry that leads to the canvas and back."""

    geometry: Geometry


def class_names(spec: Any, *, keep_case: bool = False) -> list[str]:
    """The network's classes in id order: the sorted targets of the mapping, lower-cased unless ``keep_case``.

    Raises:
        SpecError: there is no mapping, or two classes differ in case only, which labels do not tell apart.
    """
    names = class_order(spec.require(MAPPING), keep_case=keep_case)
    if len({name.lower() for name in names}) < len(names):
        raise SpecError(
            f"classes differ in upper and lower case only: {some(names)}",
            where=spec.where(MAPPING),
            remedy="Write each class in one way.",
        )
    return names


def known_class_names(spec: Any, *, keep_case: bool = False) -> list[str]:
    """As :func:`class_names`; [] without a mapping (an engine can be built without)."""
    return class_order(spec.dataset_config.target_class_mapping, keep_case=keep_case)


def check_classes(spec: Any, count: int) -> None:
    """Compare the mapping, if there is one, with the model's number of classes; ModelError where they differ."""
    names = known_class_names(spec)
    if names and len(names) != count:
        raise ModelError(
            f"the model has {counted(count, 'classes')}, the spec {len(names)}: {some(names)}",
            where=spec.where(MAPPING),
            remedy="Give the mapping of the training; the number of its target classes must be the model's.",
        )


def binder(*outputs: Port, image: Port = IMAGE_INPUT) -> Binder:
    """Ports by name, else by position; an exported plugin may leave the shapes of its outputs open."""
    by_name = {name: port for port in outputs for name in (port.role, *port.names)}
    strict = expect(inputs=(image,), outputs=outputs)

    def bind(model_inputs: Sequence[TensorInfo], model_outputs: Sequence[TensorInfo]) -> Ports:
        shaped = [
            replace(tensor, shape=(None,) * by_name[tensor.name].rank)
            if not tensor.shape and tensor.name in by_name
            else tensor
            for tensor in model_outputs
        ]
        return strict(model_inputs, shaped)

    return bind


def dataset(spec: Any, action: str, *, first_class_id: int) -> Dataset:
    """evaluate: image and label folders in pairs; inference: image folders. Neither is searched recursively.

    ``<action>.image_dir`` and ``evaluate.label_dir`` win over ``dataset_config.validation_data_sources``.
    """
    images = list(getattr(spec, action).image_dir) or _folders(spec, action, "image")
    if action == "inference":
        return ImageFolder(images, recursive=False)
    labels = list(spec.evaluate.label_dir) or _folders(spec, action, "label")
    mapping = spec.require(MAPPING)
    return KittiDetection(
        images, labels, class_order(mapping), mapping, first_class_id=first_class_id, strict=spec.strict
    )


def _folders(spec: Any, action: str, kind: str) -> list[str]:
    """The ``kind`` ("image" or "label") folders of the validation sources, all of which must be given."""
    key = "dataset_config.validation_data_sources"
    name, own = f"{kind}_directory_path", f"{action}.{kind}_dir"
    sources = spec.dataset_config.validation_data_sources
    if not sources:
        raise SpecError(
            f"no {kind} folder is given",
            where=spec.where(own),
            remedy=f"Set {own} (-{kind[0]} on the command line), or {key} with {name}.",
        )
    for index, source in enumerate(sources):
        if not getattr(source, name):
            records = kind == "label" and source.tfrecords_path
            raise SpecError(
                f"validation source {index + 1} has no {name}{'; labels in tfrecords cannot be read' * bool(records)}",
                where=spec.where(f"{key}[{index}]"),
                remedy=f"Set its {name}, or {own} (-{kind[0]} on the command line).",
            )
    return [getattr(source, name) for source in sources]


def calibration(spec: Any) -> Dataset:
    """The calibration folders, else the training images of ``dataset_config.data_sources``."""
    sources = [source.image_directory_path for source in spec.dataset_config.data_sources]
    if spec.gen_trt_engine.tensorrt.calibration.cal_image_dir or not any(sources):
        return calibration_images(spec)
    return ImageFolder([folder for folder in sources if folder])


def transform(spec: Any, ports: Ports, *, resize: str) -> ImageTransform:
    """BGR (or grey) levels minus ``augmentation_config.image_mean``, subtracted in float64.

    Args:
        spec: the network's spec; ``augmentation_config.output_depth``, where it has one, counts for grey networks.
        ports: the model's tensors; the input's channels decide between colour and grey.
        resize: a name of :data:`nvidia_tao_deploy.transforms.resize.PLACEMENTS`.
    """
    config, key = spec.augmentation_config, "augmentation_config.image_mean"
    depth = getattr(config, "output_depth", 8)
    grey = ports.inputs["Input"].shape[1] == 1
    if depth == 16 and not grey:
        raise SpecError(
            "output_depth is 16, but the model takes colour images, which have 8 bits",
            where=spec.where("augmentation_config.output_depth"),
            remedy="Set it to 8, or give the grey model.",
        )
    default = {"l": CAFFE_MEAN_GREY_16[0]} if depth == 16 else CAFFE_MEANS
    mean = channel_means(spec, key, config.image_mean or default, "l" if grey else "bgr")
    color = "BGR" if not grey else "I" if depth == 16 else "L"
    return image_transform(spec, ports, "Input", resize=resize, mean=mean, color=color, arithmetic="float64")


def channel_means(spec: Any, key: str, mean: Mapping[str, float], channels: str) -> list[float]:
    """The mean of each of ``channels``, letters of b, g, r and l.

    Raises:
        SpecError: ``mean``, the value of ``key``, is of other channels.
    """
    if not all(channel in mean for channel in channels):
        raise SpecError(
            f"{key.rpartition('.')[2]} gives {', '.join(mean)}, "
            f"but the model takes {'grey' if channels == 'l' else 'colour'} images",
            where=spec.where(key),
            remedy=f"Give {', '.join(channels)}.",
        )
    return [mean[channel] for channel in channels]


def valid_counts(counts: Array, images: int, limit: int) -> Ints:
    """(images,) rows that hold a detection, from a plugin's count output, of any shape with ``images`` or more values.

    ``NMSDynamic_TRT`` stores int32 bits in an output that engines declare as float32; a true float count is taken as
    well, which no bits of a count can be mistaken for.

    Raises:
        ModelError: a count is not in 0..``limit``.
    """
    flat = np.ascontiguousarray(counts).reshape(-1)[:images]
    values = flat.astype(np.float64)
    if flat.dtype == np.float32:
        bits = flat.view(np.int32)
        values = np.where((bits >= 0) & (bits <= limit), bits, values)
    # NaN fails every comparison
    if not np.all((values >= 0) & (values <= limit) & (values == np.rint(values))):
        raise ModelError(
            f"the model reports {some(values.tolist())} detections in outputs of {limit} rows",
            remedy="Check that the file was exported for this network.",
        )
    return np.asarray(values, np.int64)


@dataclass(frozen=True)
class NmsPlugin:
    """What the NMS plugin at the end of a model gives.

    Attributes:
        outputs: its ports.
        rows: outputs by role -> labels (B, K), scores (B, K), corners (B, K, 4), and counts (:func:`valid_counts`).
        place: the rows' corners (N, 4) float32 onto source pixels.
        first_class_id: id of the first class.
    """

    outputs: Sequence[Port]
    rows: Callable[[Mapping[str, Array]], Sequence[Array]]
    place: Place
    first_class_id: int = 0


def decode_nms(
    outputs: Mapping[str, Array],
    geometries: Sequence[Geometry],
    names: Sequence[str],
    confidence_threshold: float,
    *,
    plugin: NmsPlugin,
    clip: bool = False,
) -> list[PlacedDetections]:
    """Decode one batch: per image, in the model's order (descending score).

    Args:
        outputs: of the plugin, by role.
        geometries: how each of the first ``len(geometries)`` images was placed.
        names: the classes.
        confidence_threshold: detections must score more, compared in float32.
        plugin: what the outputs hold.
        clip: bring boxes into the source image; a box may reach into the canvas's borders.

    Raises:
        ModelError: counts, classes or values that the contract does not allow.
    """
    *columns, counts = plugin.rows(outputs)
    labels, scores, corners = (column[: len(geometries)].astype(np.float32, copy=False) for column in columns)
    rows = np.arange(scores.shape[1]) < valid_counts(counts, len(geometries), scores.shape[1])[:, None]
    require_finite(scores[rows])
    kept = rows & (scores > np.float32(confidence_threshold))
    detections = []
    for image, (mine, geometry) in enumerate(zip(kept, geometries, strict=True)):
        box = corners[image][mine]
        class_ids = check_detections(labels[image][mine], box, names, plugin.first_class_id)
        placed = plugin.place(box, geometry)
        if clip:
            placed = np.clip(placed, 0.0, geometry.source_size * 2)
        score = scores[image][mine].astype(np.float64)
        detections.append(PlacedDetections(placed, score, class_ids, geometry=geometry))
    return detections


def nms_rows(rows: str, counts: str) -> Callable[[Mapping[str, Array]], Sequence[Array]]:
    """Of NMSDynamic_TRT: the output ``rows`` (B, 1, K, 7) of image index, class, score, corners, and the counts."""

    def columns(outputs: Mapping[str, Array]) -> Sequence[Array]:
        table = outputs[rows][:, 0]
        return table[..., 1], table[..., 2], table[..., 3:], outputs[counts]

    return columns


def check_detections(labels: Array, boxes: Array, names: Sequence[str], first_class_id: int) -> Ints:
    """Class ids (N,) of valid rows.

    Raises:
        ModelError: a class that the spec does not have, or values that are not finite.
    """
    require_finite(labels, boxes)
    class_ids: Ints = np.rint(labels).astype(np.int64)
    outside = (class_ids < first_class_id) | (class_ids >= first_class_id + len(names))
    if outside.any():
        raise ModelError(
            f"the model detects class {class_ids[outside][0]}, but the spec's classes are "
            f"{first_class_id} to {first_class_id + len(names) - 1}: {some(names)}",
            where=MAPPING,
            remedy="Give the mapping of the training; the number of its target classes must be the model's.",
        )
    return class_ids


def require_finite(*arrays: Array) -> None:
    """Refuse NaN and infinity; ModelError where a value is not finite."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise ModelError(
            "the model's outputs hold values that are not finite",
            remedy="A layer overflows in reduced precision: build in fp32.",
        )


class CanvasMetric(KittiMetric):
    """KITTI AP of boxes on the network's canvas; objects without area there are left out, counted and told.

    Args:
        place_truth: where an object lies on the canvas, clipped as training does.
        place_boxes: where a detection lies on the canvas.
        keep: match every object where it is annotated; those without area are told only.
        settings: of :class:`~nvidia_tao_deploy.metrics.kitti.KittiMetric`.
    """

    def __init__(
        self, names: Sequence[str], place_truth: Place, place_boxes: Place, *, keep: bool = False, **settings: Any
    ) -> None:
        super().__init__(names, **settings)
        self._place_truth, self._place_boxes, self._keep = place_truth, place_boxes, keep
        self._flat: list[str] = []

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Match one image's :class:`PlacedDetections` with its :class:`KittiTarget`, both in source pixels."""
        assert isinstance(prediction, PlacedDetections)
        target: KittiTarget = sample.target
        truth = self._place_truth(target.boxes_xyxy, prediction.geometry)
        kept = ((truth[:, 2:] - truth[:, :2]) > LEAST_SIDE).all(axis=1)
        self._flat += [str(sample.id)] * int((~kept).sum())
        placed = target if self._keep else KittiTarget(truth[kept], target.class_ids[kept], target.difficult[kept])
        boxes = self._place_boxes(prediction.boxes_xyxy, prediction.geometry)
        super().update(replace(sample, target=placed), Detections(boxes, prediction.scores, prediction.class_ids))

    def report(self) -> str:
        """The table of :class:`KittiMetric`, and how many objects have no area."""
        if not self._flat:
            return super().report()
        what = (
            "have no area in their image (kept: misses)" if self._keep else "left out, they have no area on the canvas"
        )
        told = counted(len(self._flat), f"objects {what}")
        return f"{super().report()}\n{told}: {some(dict.fromkeys(self._flat))}"


def nms_network(
    spec: type[NetworkSpec],
    *,
    plugin: NmsPlugin,
    resize: str,
    places: tuple[Place, Place],
) -> Network:
    """A detector whose model ends in an NMS plugin.

    AP goes by ``eval_config``; files hold what reaches ``inference.threshold``, in the family's five colours.

    Args:
        spec: of the network.
        plugin: at its end.
        resize: a name of :data:`nvidia_tao_deploy.transforms.resize.PLACEMENTS`.
        places: where an object (clipped as training does) and a detection lie on the canvas.
    """

    def decode(spec: Any, _ports: Ports, action: str) -> Decoder:
        names, least = class_names(spec), spec.nms_config.confidence_threshold
        clip = action == "inference"
        return partial(decode_nms, names=names, confidence_threshold=least, plugin=plugin, clip=clip)

    def metric(spec: Any, _data: Dataset) -> CanvasMetric:
        return CanvasMetric(
            class_names(spec),
            *places,
            first_class_id=plugin.first_class_id,
            iou_threshold=spec.eval_config.matching_iou_threshold,
            confidence_threshold=spec.nms_config.confidence_threshold,
            mode=spec.eval_config.average_precision_mode,
        )

    def writer(spec: Any, folder: Path, data: Dataset, _ports: Ports) -> DetectionWriter:
        names = dict(enumerate(class_names(spec), plugin.first_class_id))
        return DetectionWriter(folder, names, spec.inference.threshold, PALETTE, data.root)

    return Network(
        spec=spec,
        bind=binder(*plugin.outputs),
        dataset=partial(dataset, first_class_id=plugin.first_class_id),
        calibration=calibration,
        transform=partial(transform, resize=resize),
        decode=decode,
        metric=metric,
        writer=writer,
        batch_size=batch_size_or("eval_config.batch_size"),
        labels=known_class_names,
        check_classes=check_classes,
    )
