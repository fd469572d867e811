"""Faster R-CNN: proposals, crops and class-wise boxes, suppressed by NMSDynamic_TRT in the exported graph."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array, Floats
from nvidia_tao_deploy.cv.faster_rcnn.metric import MeanOfThresholds
from nvidia_tao_deploy.cv.faster_rcnn.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.kitti import KittiDetection
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families import kitti_detection as family
from nvidia_tao_deploy.families.images import batch_size_or
from nvidia_tao_deploy.families.yolo import boxes_on_canvas, truth_on_canvas
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.drawing import PALETTE
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

classes = partial(family.class_names, keep_case=True)


def _place(corners: Array, geometry: Geometry) -> Floats:
    """Corners divided by the canvas's width - 1 and height - 1, as the proposal layer divides them, on the source."""
    width, height = geometry.network_size
    return geometry.to_source(corners.astype(np.float64) * (width - 1, height - 1, width - 1, height - 1))


PLUGIN = family.NmsPlugin(
    outputs=(Port("nms_out", ("NMS",)), Port("nms_out_1", ("NMS_1",))),
    rows=family.nms_rows("nms_out", "nms_out_1"),
    place=_place,
)
decode_rois = partial(family.decode_nms, plugin=PLUGIN)
IMAGES = {
    "evaluate": "dataset_config.validation_data_source.image_directory_path",
    "inference": "inference_config.images_dir",
}


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: images of -i or ``validation_data_source`` and labels of -l; inference: of -i or ``images_dir``."""
    images = list(getattr(spec, action).image_dir) or list(filter(None, [spec.get(IMAGES[action])]))
    if not images:
        raise SpecError(
            "no image folder is given",
            where=spec.where(f"{action}.image_dir"),
            remedy=f"Set {action}.image_dir (-i on the command line), or {IMAGES[action]}.",
        )
    if action == "inference":
        return ImageFolder(images, recursive=False)
    folders, mapping = spec.require("evaluate.label_dir"), spec.require(family.MAPPING)
    return KittiDetection(images, folders, classes(spec), mapping, strict=spec.strict)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """(level - mean) / ``image_scaling_factor`` in ``image_channel_order``, letterboxed unless ``resize`` says else."""
    ports.image_size("input_image")
    image, key = spec.model.input_image_config, "model_config.input_image_config.image_channel_mean"
    grey = ports.inputs["input_image"].shape[1] == 1
    order = "l" if grey else image.image_channel_order
    return ImageTransform(
        resize=spec.resize,
        mean=family.channel_means(spec, key, image.image_channel_mean or family.CAFFE_MEANS, order),
        std=(image.image_scaling_factor,),
        color="L" if grey else "BGR" if order == "bgr" else "RGB",
        input_name=ports.inputs["input_image"].name,
        backend=spec.runtime.image_backend,
        arithmetic="float64",
    )


def decode(spec: Spec, _ports: Ports, action: str) -> Decoder:
    """evaluate: what scores more than ``object_confidence_thres``; inference: everything."""
    least = spec.evaluation_config.object_confidence_thres if action == "evaluate" else -1.0
    return partial(decode_rois, names=classes(spec), confidence_threshold=least, clip=action == "inference")


def metric(spec: Spec, _data: Dataset) -> Metric:
    """AP by ``evaluation_config``, averaged over its IoU thresholds."""
    config = spec.evaluation_config
    settings: dict[str, Any] = {
        "confidence_threshold": config.object_confidence_thres,
        "mode": "SAMPLE" if config.use_voc07_11point_metric else "INTEGRATE",
    }
    one = partial(family.CanvasMetric, classes(spec), truth_on_canvas, boxes_on_canvas, **settings)
    return MeanOfThresholds([one(iou_threshold=threshold) for threshold in config.iou_thresholds])


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> DetectionWriter:
    """What reaches ``bbox_visualize_threshold``, in the folders of ``inference_config`` where it names any."""
    config = spec.inference_config
    made = DetectionWriter(folder, dict(enumerate(classes(spec))), config.bbox_visualize_threshold, PALETTE, data.root)
    made.images_dir = Path(config.detection_image_output_dir or made.images_dir)
    made.labels_dir = Path(config.labels_dump_dir or made.labels_dir)
    return made


NETWORK = Network(
    spec=Spec,
    bind=family.binder(*PLUGIN.outputs, image=Port("input_image", channels=(1, 3))),
    calibration=family.calibration,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size_or("evaluation_config.batch_size", "inference_config.batch_size"),
    labels=partial(family.known_class_names, keep_case=True),
    check_classes=family.check_classes,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
