"""EfficientDet of the TensorFlow 1 trainer: COCO data, protobuf specs, NHWC images."""

from __future__ import annotations

from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.efficientdet_tf1.spec import Spec
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.families import efficientdet as family
from nvidia_tao_deploy.families.coco_detection import class_map_labels, read_class_map
from nvidia_tao_deploy.families.images import batch_size_or
from nvidia_tao_deploy.network import Decoder, Ports
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.drawing import PALETTE


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: ``dataset_config.validation_json_file`` and the images of -i; inference: the images of -i."""
    if action == "inference":
        return ImageFolder(spec.require("inference.image_dir"))
    json_file = spec.require("dataset_config.validation_json_file")
    images = spec.require("evaluate.image_dir")
    return CocoDetection(json_file, images, limit=spec.eval_config.eval_samples, strict=spec.strict)


def decode(spec: Spec, _ports: Ports, action: str) -> Decoder:
    """The first ``eval_config.max_detections_per_image`` detections; inference clips them to the image."""
    limit = spec.eval_config.max_detections_per_image or family.MAX_DETECTIONS
    return family.decoder(limit, clip=action == "inference")


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> DetectionWriter:
    """What reaches ``inference.threshold``, by the names of ``inference.class_map``."""
    section = spec.inference
    names = read_class_map(section.class_map) if section.class_map else None
    return DetectionWriter(folder, names, section.threshold, PALETTE, data.root)


NETWORK = family.efficientdet(
    spec=Spec,
    dataset=dataset,
    decode=decode,
    writer=writer,
    batch_size=batch_size_or("eval_config.eval_batch_size"),
    labels=class_map_labels,
    check_classes=family.class_check("dataset_config.num_classes"),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
