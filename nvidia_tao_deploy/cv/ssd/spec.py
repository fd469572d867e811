"""What ssd and dssd read from their spec: fields of the message ``Experiment``."""

from __future__ import annotations

from typing import ClassVar

from nvidia_tao_deploy.families.kitti_detection_spec import KittiDetectionSpec


class Spec(KittiDetectionSpec):
    """Spec of ssd and dssd."""

    network: ClassVar[str] = "ssd"
