"""YOLOv3: three scales of anchor boxes, suppressed by BatchedNMSDynamic_TRT in the exported graph."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.yolo_v3.spec import Spec
from nvidia_tao_deploy.families.yolo import yolo_network

NETWORK = yolo_network(Spec)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
