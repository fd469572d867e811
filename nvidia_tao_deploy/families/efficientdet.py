"""EfficientDet as both TensorFlow trainers export it: raw RGB in, the four outputs of EfficientNMS_TRT out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.classification import image_layout
from nvidia_tao_deploy.families.coco_detection import MatchedCocoMetric, class_map_labels, read_class_map
from nvidia_tao_deploy.families.images import image_network
from nvidia_tao_deploy.families.kitti_detection import binder, require_finite, valid_counts
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.drawing import PALETTE
from nvidia_tao_deploy.predictions.types import Detections
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.sections import NetworkSpec
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

MAX_DETECTIONS = 100
_ports = binder(
    Port("num_detections", rank=2),
    Port("detection_boxes", rank=3),
    Port("detection_scores", rank=2),
    Port("detection_classes", rank=2),
    image=Port("input", ("image_arrays:0",)),
)


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """An image of either layout, and counts, boxes, scores and classes."""
    ports = _ports(inputs, outputs)
    ports.image_size("input", image_layout(ports, "input", "NHWC")[0])
    return ports


def transform(spec: Any, ports: Ports) -> ImageTransform:
    """RGB levels 0..255, aspect kept, top left, the rest ImageNet's mean colour; the graph normalizes."""
    return ImageTransform(
        resize="resize_pad",
        layout=image_layout(ports, "input", "NHWC")[0],
        input_name=ports.inputs["input"].name,
        backend=spec.runtime.image_backend,
    )


def decode_efficient_nms(
    outputs: Mapping[str, Array], geometries: Sequence[Geometry], limit: int, *, clip: bool
) -> list[Detections]:
    """Decode one batch.

    Args:
        outputs: ``num_detections`` (B, 1), ``detection_boxes`` (B, K, 4) rows y1, x1, y2, x2 in network pixels,
            ``detection_scores`` (B, K), ``detection_classes`` (B, K) indices from 0.
        geometries: how each of the first ``len(geometries)`` images was placed.
        limit: detections per image.
        clip: bring boxes into the source image.

    Returns:
        Per image, in the model's order (descending score); class ids are indices + 1.

    Raises:
        ModelError: counts, classes or values that the contract does not allow.
    """
    boxes, scores, classes = (outputs[f"detection_{name}"] for name in ("boxes", "scores", "classes"))
    counts = valid_counts(outputs["num_detections"], len(geometries), scores.shape[1])
    found = []
    for image, (geometry, count) in enumerate(zip(geometries, counts.tolist(), strict=True)):
        rows = slice(0, min(count, limit))
        box, score, label = (array[image, rows] for array in (boxes, scores, classes))
        require_finite(box, score, label)
        if (label < 0).any():
            raise ModelError(f"the model detects class {label.min()}", remedy="Classes are counted from 0.")
        corners = geometry.to_source(box[:, [1, 0, 3, 2]])
        if clip:
            corners = np.clip(corners, 0.0, geometry.source_size * 2)
        found.append(Detections(corners, score.astype(np.float64), np.rint(label).astype(np.int64) + 1))
    return found


def class_check(key: str) -> Callable[[Any, int], None]:
    """Compare the number under ``key``, unless it is 0, with the model's classes; ModelError where they differ."""

    def check(spec: Any, count: int) -> None:
        wanted = spec.get(key)
        if wanted and wanted != count:
            raise ModelError(
                f"the model has {counted(count, 'classes')}, the spec {wanted}",
                where=spec.where(key),
                remedy="Give the num_classes of the training.",
            )

    return check


def metric(_spec: Any, data: Dataset) -> MatchedCocoMetric:
    """COCO mAP; class index + 1 is the category id."""
    assert isinstance(data, CocoDetection)
    return MatchedCocoMetric(data)


def efficientdet(
    spec: type[NetworkSpec],
    *,
    annotations: tuple[str, str, str],
    detections: Callable[[Any], int],
    names: str,
    threshold: str,
    num_classes: str,
    clip: bool = False,
    read: Callable[[str], Mapping[int, str]] = read_class_map,
    **more: Any,
) -> Network:
    """An EfficientDet.

    Args:
        spec: of the network.
        annotations: keys of evaluate's annotation file, of its images, and of how many of them count.
        detections: spec -> most detections of an image.
        names: key below ``inference`` of the class names, which ``read`` reads; without them classes are numbers.
        threshold: key below ``inference`` of the least score that is written.
        num_classes: key of the number of classes.
        clip: inference brings boxes into the image.
        read: see above.
        more: as in :class:`Network`.
    """

    def dataset(spec: Any, action: str) -> Dataset:
        if action == "inference":
            return ImageFolder(spec.require("inference.image_dir"))
        json_file, images = map(spec.require, annotations[:2])
        return CocoDetection(json_file, images, limit=spec.get(annotations[2]), strict=spec.strict)

    def decode(spec: Any, _ports: Ports, action: str) -> Decoder:
        return partial(decode_efficient_nms, limit=detections(spec), clip=clip and action == "inference")

    def writer(spec: Any, folder: Path, data: Dataset, _ports: Ports) -> DetectionWriter:
        listed, least = (getattr(spec.inference, key) for key in (names, threshold))
        return DetectionWriter(folder, read(listed) if listed else None, least, PALETTE, data.root)

    return image_network(
        spec=spec,
        bind=bind,
        transform=transform,
        dataset=dataset,
        decode=decode,
        metric=metric,
        writer=writer,
        labels=partial(class_map_labels, key=names, read=read),
        check_classes=class_check(num_classes),
        **more,
    )
