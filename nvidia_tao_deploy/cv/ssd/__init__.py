"""SSD: prior boxes over six feature maps, decoded and suppressed by NMSDynamic_TRT in the exported graph."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.families.kitti_detection_spec import KittiDetectionSpec
from nvidia_tao_deploy.families.ssd import ssd_network


class Spec(KittiDetectionSpec, network="ssd"):
    """Spec of ssd and dssd."""


NETWORK = ssd_network(Spec)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
