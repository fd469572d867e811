"""Deformable DETR: (B, NQ, C) logits, channel i for COCO category id i, and (B, NQ, 4) boxes from normalized images."""

from __future__ import annotations

from functools import partial

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.deformable_detr.spec import Spec
from nvidia_tao_deploy.families import coco_detection as family
from nvidia_tao_deploy.families.images import batch_size, calibration_images
from nvidia_tao_deploy.network import Network

NETWORK = Network(
    name="deformable_detr",
    spec=Spec,
    bind=family.bind,
    dataset=family.dataset,
    calibration=calibration_images,
    transform=family.transform,
    decode=family.decode,
    metric=family.metric,
    writer=partial(family.classmap_writer, first=1),  # channel 0 is unused: category ids start at 1
    batch_size=batch_size,
    labels=family.labels,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
