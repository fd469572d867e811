"""RT-DETR: real-time detection transformer. Contract: (B, NQ, C) logits and (B, NQ, 4) boxes from images in [0, 1]."""

from __future__ import annotations

from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.rtdetr.spec import Spec
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.families import coco_detection as family
from nvidia_tao_deploy.families.images import image_transform
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.transforms.image import ImageTransform

# The 80 COCO categories among the ids 1..90, in channel order (dataset.remap_mscoco_category).
COCO_80_IDS = [i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """RGB / 255; stretched, or with the aspect kept where training did so."""
    resize = "longest_side" if spec.dataset.augmentation.preserve_aspect_ratio else "stretch"
    return image_transform(spec, ports, "inputs", resize=resize, scale=1 / 255)


def metric(spec: Spec, data: Dataset) -> family.MatchedCocoMetric:
    """COCO mAP; channels are category ids, or the 80 COCO categories where training remapped them."""
    return family.metric(spec, data, COCO_80_IDS if spec.dataset.remap_mscoco_category else None)


def writer(spec: Spec, folder: Path, data: Dataset, ports: Ports) -> DetectionWriter:
    """Line i of the classmap names channel i; in a file with a line more whose first is "background", channel i-1."""
    names, channels = family.classmap(spec), ports.outputs["pred_logits"].shape[2]
    shifted = names[0] == "background" and len(names) - 1 == channels
    return family.classmap_writer(spec, folder, data, ports, first=-1 if shifted else 0)


NETWORK = family.detr_network(spec=Spec, transform=transform, metric=metric, writer=writer)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
