"""DetectNet_v2: per class a coverage grid and four distance grids, clustered into boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.detectnet_v2.decode import decode as decode_grids
from nvidia_tao_deploy.cv.detectnet_v2.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.kitti import KittiDetection
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families.images import batch_size_or, image_transform
from nvidia_tao_deploy.families.kitti_detection import CanvasMetric, calibration
from nvidia_tao_deploy.metrics.kitti import BoxLimits
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.runtime.session import TensorInfo

GREEN = (0, 255, 0)


def target_classes(spec: Spec) -> list[str]:
    """Class names in channel order; evaluate's and inference's lists stand in for each other.

    Raises:
        SpecError: neither list is given.
    """
    return known_classes(spec) or list(spec.require("cost_function_config.target_classes"))


def known_classes(spec: Spec) -> list[str]:
    """The classes the spec names; [] where it names none (an engine can be built without)."""
    trained = [entry.name for entry in spec.cost_function_config.target_classes]
    return trained or list(spec.inferencer_config.target_classes)


def inference_classes(spec: Spec) -> list[str]:
    """``inferencer_config.target_classes``, else the trained classes."""
    return list(spec.inferencer_config.target_classes) or target_classes(spec)


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """Coverage and boxes are told apart by their channels: boxes have four times as many."""
    ports = expect(
        inputs=(Port("input_1", ("input_1:0",), channels=(1, 3)),),
        outputs=(
            Port("output_cov", ("output_cov/Sigmoid:0", "output_cov/Sigmoid")),
            Port("output_bbox", ("output_bbox/BiasAdd:0", "output_bbox/BiasAdd")),
        ),
    )(inputs, outputs)
    coverage, boxes = sorted(ports.outputs.values(), key=lambda tensor: tensor.shape[1] or 0)
    if boxes.shape[1] != 4 * (coverage.shape[1] or 0):
        raise ModelError(
            f"the outputs {coverage} and {boxes} are not coverage and boxes: boxes have four channels per class",
            remedy="Check that the file was exported for detectnet_v2.",
        )
    return Ports(ports.inputs, {"output_cov": coverage, "output_bbox": boxes})


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: image and label folders; inference: image folders."""
    images = spec.require(f"{action}.image_dir")
    if action == "inference":
        return ImageFolder(images, recursive=False)
    mapping = dict(spec.dataset_config.target_class_mapping) or None
    return KittiDetection(
        images,
        spec.require("evaluate.label_dir"),
        target_classes(spec),
        mapping,
        first_class_id=1,
        round_boxes=True,
        strict=spec.strict,
    )


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Clustering by class, as ``postprocessing_config`` (evaluate) or ``bbox_handler_config`` (inference) says."""
    names = target_classes(spec) if action == "evaluate" else inference_classes(spec)
    channels = ports.outputs["output_cov"].shape[1]
    if channels != len(names):
        section = "inferencer_config" if names == spec.inferencer_config.target_classes else "cost_function_config"
        raise ModelError(
            f"the model has {channels} classes and the spec names {len(names)}: {', '.join(names[:10])}",
            where=spec.where(f"{section}.target_classes"),
            remedy="List the classes of the training, in its order.",
        )
    settings = [_class_entry(spec, name, action).clustering_config for name in names]
    bbox = spec.model.objective_set.bbox
    return lambda outputs, geometries: decode_grids(
        outputs["output_cov"], outputs["output_bbox"], geometries, settings, scale=bbox.scale, offset=bbox.offset
    )


def _class_entry(spec: Spec, name: str, action: str) -> Any:
    """A class's entry, else the entry ``default``; the other action's table stands in for an empty one."""
    tables: dict[str, Mapping[str, Any]] = {
        "postprocessing_config.target_class_config": spec.postprocessing_config.target_class_config,
        "bbox_handler_config.classwise_bbox_handler_config": spec.bbox_handler_config.classwise_bbox_handler_config,
    }
    order = list(tables) if action == "evaluate" else list(tables)[::-1]
    key = next((key for key in order if tables[key]), order[0])
    entries = tables[key]
    if name not in entries and "default" not in entries:
        raise SpecError(
            f"class '{name}' has no entry, and there is no entry 'default'",
            where=spec.where(key),
            remedy=f"Add {key}.{name} with its clustering_config.",
        )
    return entries.get(name) or entries["default"]


def metric(spec: Spec, _data: Dataset) -> CanvasMetric:
    """KITTI AP by ``evaluation_config``, in source pixels."""
    config = spec.evaluation_config
    return CanvasMetric(
        target_classes(spec),
        lambda boxes, geometry: np.clip(boxes, 0, geometry.source_size * 2),
        lambda boxes, _geometry: boxes,
        keep=True,
        first_class_id=1,
        iou_threshold=dict(config.minimum_detection_ground_truth_overlap),
        mode=config.average_precision_mode,
        box_limits={name: BoxLimits(**limits.model_dump()) for name, limits in config.evaluation_box_config.items()},
    )


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> DetectionWriter:
    """Boxes over each class's confidence threshold, in its ``bbox_color``."""
    names = dict(enumerate(inference_classes(spec), 1))
    entries = {class_id: _class_entry(spec, name, "inference") for class_id, name in names.items()}
    colors = {names[class_id]: _color(entry) for class_id, entry in entries.items()}
    thresholds = {i: entry.clustering_config.dbscan_confidence_threshold for i, entry in entries.items()}
    return DetectionWriter(folder, names, thresholds, colors, data.root)


def _color(entry: Any) -> tuple[int, int, int]:
    color = getattr(entry, "bbox_color", None)
    return (color.R, color.G, color.B) if color else GREEN


NETWORK = Network(
    spec=Spec,
    bind=bind,
    dataset=dataset,
    calibration=calibration,
    transform=partial(image_transform, role="input_1", resize="stretch_lanczos", scale=1 / 255),
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size_or("training_config.batch_size_per_gpu", "inferencer_config.batch_size"),
    labels=known_classes,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
