"""YOLOv3: three scales of anchor boxes, suppressed by BatchedNMSDynamic_TRT in the exported graph."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.families.kitti_detection_spec import KittiDetectionSpec
from nvidia_tao_deploy.families.yolo import yolo_network


class Spec(KittiDetectionSpec, network="yolo_v3"):
    """Spec of yolo_v3."""


NETWORK = yolo_network(Spec)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
