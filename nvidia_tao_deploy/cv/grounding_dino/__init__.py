"""Grounding DINO: finds the classes a caption names; one image and five text inputs, token logits and boxes."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.grounding_dino.spec import Spec
from nvidia_tao_deploy.families.grounding import grounding_network

NETWORK = grounding_network(spec=Spec)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
