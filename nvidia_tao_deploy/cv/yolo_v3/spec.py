"""What yolo_v3 reads from its spec: fields of the message ``Experiment``."""

from __future__ import annotations

from typing import ClassVar

from nvidia_tao_deploy.families.kitti_detection_spec import KittiDetectionSpec


class Spec(KittiDetectionSpec):
    """Spec of yolo_v3."""

    network: ClassVar[str] = "yolo_v3"
