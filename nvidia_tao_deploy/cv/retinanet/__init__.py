"""RetinaNet: as SSD over five feature maps; the plugin takes logits (confSigmoid), which is the graph's matter."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.families.kitti_detection_spec import KittiDetectionSpec
from nvidia_tao_deploy.families.ssd import ssd_network


class Spec(KittiDetectionSpec, network="retinanet"):
    """Spec of retinanet."""


NETWORK = ssd_network(Spec)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
