"""EfficientDet of the TensorFlow 2 trainer: COCO data, YAML specs, NHWC images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.efficientdet_tf2.label_map import read_label_map
from nvidia_tao_deploy.cv.efficientdet_tf2.spec import Spec
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.families import efficientdet as family
from nvidia_tao_deploy.families.coco_detection import class_map_labels
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.drawing import PALETTE


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: ``dataset.val_json_file`` and ``val_dirs``; inference: ``inference.image_dir``."""
    if action == "inference":
        return ImageFolder(spec.require("inference.image_dir"))
    json_file, folders = spec.require("dataset.val_json_file"), spec.require("dataset.val_dirs")
    return CocoDetection(json_file, folders, limit=spec.evaluate.num_samples, strict=spec.strict)


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> DetectionWriter:
    """What reaches ``inference.min_score_thresh``, by the names of ``inference.label_map``."""
    section = spec.inference
    names = read_label_map(section.label_map) if section.label_map else None
    return DetectionWriter(folder, names, section.min_score_thresh, PALETTE, data.root)


NETWORK = family.efficientdet(
    spec=Spec,
    dataset=dataset,
    decode=lambda spec, _ports, _action: family.decoder(spec.evaluate.max_detections_per_image, clip=False),
    writer=writer,
    labels=partial(class_map_labels, key="label_map", read=read_label_map),
    check_classes=family.class_check("dataset.num_classes"),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
