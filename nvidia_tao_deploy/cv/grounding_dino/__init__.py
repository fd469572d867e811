"""Grounding DINO: finds the classes a caption names; one image and five text inputs, token logits and boxes."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.grounding_dino.spec import Spec
from nvidia_tao_deploy.families import grounding as family
from nvidia_tao_deploy.families.images import batch_size
from nvidia_tao_deploy.network import Network

NETWORK = Network(
    name="grounding_dino",
    spec=Spec,
    bind=family.bind,
    dataset=family.dataset,
    calibration=family.calibration,
    transform=family.transform,
    decode=family.decode,
    metric=family.metric,
    writer=family.writer,
    batch_size=batch_size,
    labels=family.labels,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
