"""What retinanet reads from its spec: fields of the message ``Experiment``."""

from __future__ import annotations

from typing import ClassVar

from nvidia_tao_deploy.families.kitti_detection_spec import KittiDetectionSpec


class Spec(KittiDetectionSpec):
    """Spec of retinanet."""

    network: ClassVar[str] = "retinanet"
