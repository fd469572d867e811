"""YOLOv4: as YOLOv3, and grey networks may take images of 16 bits."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.yolo_v4.spec import Spec
from nvidia_tao_deploy.families.yolo import yolo_network

NETWORK = yolo_network(Spec)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
