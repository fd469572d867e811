"""Deformable DETR: (B, NQ, C) logits, channel i for COCO category id i, and (B, NQ, 4) boxes from normalized images."""

from __future__ import annotations

from functools import partial

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.deformable_detr.spec import Spec
from nvidia_tao_deploy.families import coco_detection as family

# channel 0 is unused: category ids start at 1
NETWORK = family.detr_network(spec=Spec, writer=partial(family.classmap_writer, first=1))
gen_trt_engine, evaluate, inference = verbs(NETWORK)
