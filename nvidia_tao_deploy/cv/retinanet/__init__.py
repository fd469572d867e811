"""RetinaNet: as SSD over five feature maps; the plugin takes logits (confSigmoid), which is the graph's matter."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.retinanet.spec import Spec
from nvidia_tao_deploy.families.ssd import ssd_network

NETWORK = ssd_network(Spec)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
