"""yolo_v4_tiny reads what yolo_v4 reads."""

from nvidia_tao_deploy.cv.yolo_v4.spec import Spec

__all__ = ["Spec"]
