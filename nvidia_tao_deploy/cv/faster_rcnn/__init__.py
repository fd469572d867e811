"""Faster R-CNN: proposals, crops and class-wise boxes, suppressed by NMSDynamic_TRT in the exported graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.faster_rcnn.decode import decode_rois
from nvidia_tao_deploy.cv.faster_rcnn.metric import MeanOfThresholds
from nvidia_tao_deploy.cv.faster_rcnn.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.kitti import KittiDetection, class_order
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families import kitti_detection as family
from nvidia_tao_deploy.families.class_map import ClassMapWriter
from nvidia_tao_deploy.families.yolo import boxes_on_canvas, truth_on_canvas
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.normalize import CAFFE_MEAN_BGR, CAFFE_MEAN_GREY
from nvidia_tao_deploy.transforms.transform import Geometry


def classes(spec: Spec) -> list[str]:
    """Class names in id order: sorted as written, as training does.

    Raises:
        SpecError: there is no mapping, or two classes differ in case only, which labels do not tell apart.
    """
    names = class_order(spec.require(family.MAPPING), keep_case=True)
    if len({name.lower() for name in names}) < len(names):
        raise SpecError(
            f"classes differ in upper and lower case only: {some(names)}",
            where=spec.where(family.MAPPING),
            remedy="Write each class in one way.",
        )
    return names


def labels(spec: Spec) -> list[str]:
    """As :func:`classes`; [] without a mapping (an engine can be built without)."""
    return class_order(spec.dataset_config.target_class_mapping, keep_case=True)


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: images of -i or ``validation_data_source`` and labels of -l; inference: of -i or ``images_dir``.

    Raises:
        SpecError: a folder is not named.
        DataError: folders are missing, not in pairs, or hold nothing of use.
    """
    keys = {
        "evaluate": "dataset_config.validation_data_source.image_directory_path",
        "inference": "inference_config.images_dir",
    }
    images = list(getattr(spec, action).image_dir) or [folder for folder in [spec.get(keys[action])] if folder]
    if not images:
        raise SpecError(
            "no image folder is given",
            where=spec.where(f"{action}.image_dir"),
            remedy=f"Set {action}.image_dir (-i on the command line), or {keys[action]}.",
        )
    if action == "inference":
        return ImageFolder(images, recursive=False)
    folders, mapping = spec.require("evaluate.label_dir"), spec.require(family.MAPPING)
    return KittiDetection(images, folders, classes(spec), mapping, strict=spec.strict)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """(level - mean) / ``image_scaling_factor`` in ``image_channel_order``, letterboxed unless ``resize`` says else.

    Raises:
        SpecError: the mean is not for the network's channels.
        ModelError: the input's height or width is dynamic.
    """
    ports.image_size("input_image")
    image, key = spec.model.input_image_config, "model_config.input_image_config.image_channel_mean"
    grey = ports.inputs["input_image"].shape[1] == 1
    mean, order = image.image_channel_mean, "l" if grey else image.image_channel_order
    if mean and not all(channel in mean for channel in order):
        raise SpecError(
            f"image_channel_mean gives {', '.join(mean)}, but the model takes {'grey' if grey else 'colour'} images",
            where=spec.where(key),
            remedy=f"Give {', '.join(order)}.",
        )
    default = dict(zip("bgrl", CAFFE_MEAN_BGR + CAFFE_MEAN_GREY, strict=True))
    return ImageTransform(
        resize=spec.resize,
        mean=[(mean or default)[channel] for channel in order],
        std=(image.image_scaling_factor,),
        color="L" if grey else "BGR" if order == "bgr" else "RGB",
        input_name=ports.inputs["input_image"].name,
        backend=spec.runtime.image_backend,
        arithmetic="float64",
    )


def decode(spec: Spec, _ports: Ports, action: str) -> Decoder:
    """evaluate: what scores more than ``object_confidence_thres``; inference: everything."""
    names = classes(spec)
    least = spec.evaluation_config.object_confidence_thres if action == "evaluate" else -1.0

    def run(outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry]) -> list[family.PlacedDetections]:
        found = decode_rois(outputs, geometries, names, least)
        if action == "evaluate":
            return found
        sizes = (detections.geometry.source_size * 2 for detections in found)
        return [
            replace(one, boxes_xyxy=np.clip(one.boxes_xyxy, 0, size)) for one, size in zip(found, sizes, strict=True)
        ]

    return run


def metric(spec: Spec, _data: Dataset) -> Metric:
    """AP by ``evaluation_config``, averaged over its IoU thresholds."""
    config = spec.evaluation_config
    return MeanOfThresholds(
        [
            family.CanvasMetric(
                classes(spec),
                truth_on_canvas,
                boxes_on_canvas,
                iou_threshold=threshold,
                confidence_threshold=config.object_confidence_thres,
                mode="SAMPLE" if config.use_voc07_11point_metric else "INTEGRATE",
            )
            for threshold in config.iou_thresholds
        ]
    )


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> ClassMapWriter:
    """What reaches ``bbox_visualize_threshold``, in the folders of ``inference_config`` where it names any."""
    config = spec.inference_config
    made = ClassMapWriter(folder, dict(enumerate(classes(spec))), config.bbox_visualize_threshold, data.root)
    made.images_dir = Path(config.detection_image_output_dir or made.images_dir)
    made.labels_dir = Path(config.labels_dump_dir or made.labels_dir)
    return made


def batch_size(spec: Spec, action: str) -> int:
    """``<action>.batch_size``, else that of ``evaluation_config`` or ``inference_config``, else 1."""
    own = int(getattr(spec, action).batch_size)
    config = spec.evaluation_config if action == "evaluate" else spec.inference_config
    return own if own > 0 else max(1, config.batch_size)


NETWORK = Network(
    name="faster_rcnn",
    spec=Spec,
    bind=family.binder(
        Port("nms_out", ("NMS",)), Port("nms_out_1", ("NMS_1",)), image=Port("input_image", (), 4, (1, 3))
    ),
    calibration=family.calibration,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size,
    labels=labels,
    check_classes=family.check_classes,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
