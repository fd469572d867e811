"""RT-DETR: real-time detection transformer. Contract: (B, NQ, C) logits and (B, NQ, 4) boxes from images in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.rtdetr.spec import Spec
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families import coco_detection as family
from nvidia_tao_deploy.families.images import batch_size, calibration_images
from nvidia_tao_deploy.metrics.coco import CocoMetric
from nvidia_tao_deploy.network import Decoder, Network, Ports
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.detr import decode_detr
from nvidia_tao_deploy.predictions.types import Detections
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

# The 80 COCO categories among the ids 1..90, in channel order (dataset.remap_mscoco_category).
COCO_80_IDS = np.array([i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}])


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """RGB / 255; stretched, or with the aspect kept where training did so."""
    ports.image_size("inputs")
    return ImageTransform(
        resize="longest_side" if spec.dataset.augmentation.preserve_aspect_ratio else "stretch",
        scale=1 / 255,
        input_name=ports.inputs["inputs"].name,
        backend=spec.runtime.image_backend,
    )


def decode(spec: Spec, _ports: Ports, _action: str) -> Decoder:
    """The best ``model.num_select`` (query, class) pairs of each image."""

    def run(outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry]) -> list[Detections]:
        return decode_detr(outputs["pred_logits"], outputs["pred_boxes"], geometries, spec.model.num_select)

    return run


def metric(spec: Spec, dataset: Dataset) -> CocoMetric:
    """COCO mAP; channels are category ids, or the 80 COCO categories where training remapped them."""
    assert isinstance(dataset, CocoDetection)
    remap = COCO_80_IDS if spec.dataset.remap_mscoco_category else None
    return CocoMetric(dataset, remap, eval_class_ids=spec.dataset.eval_class_ids)


def writer(spec: Spec, folder: Path, dataset: Dataset, ports: Ports) -> DetectionWriter:
    """Line i of the classmap names channel i; in a file with a line more whose first is "background", channel i-1."""
    path = spec.require("dataset.infer_data_sources.classmap")
    names = family.read_classmap(path)
    channels = ports.outputs["pred_logits"].shape[2]
    if names and names[0] == "background" and len(names) - 1 == channels:
        names = names[1:]
    if not any(names):
        raise SpecError("the classmap names no class", where=spec.where("dataset.infer_data_sources.classmap"))
    return family.writer(spec, folder, dataset, names)


NETWORK = Network(
    name="rtdetr",
    spec=Spec,
    bind=family.bind,
    dataset=family.dataset,
    calibration=calibration_images,
    transform=transform,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
