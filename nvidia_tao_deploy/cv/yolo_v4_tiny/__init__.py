"""YOLOv4-tiny: two scales of anchor boxes; contract, spec and status name are yolo_v4's."""

from nvidia_tao_deploy.cv.yolo_v4 import NETWORK, evaluate, gen_trt_engine, inference

__all__ = ["NETWORK", "evaluate", "gen_trt_engine", "inference"]
