"""What yolo_v4 and yolo_v4_tiny read from their spec: fields of the message ``Experiment``."""

from __future__ import annotations

from typing import Annotated, Literal

from nvidia_tao_deploy.families import kitti_detection_spec as family
from nvidia_tao_deploy.families.kitti_detection_spec import KittiDetectionSpec
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.messages import zero_means


class AugmentationConfig(family.AugmentationConfig):
    """Preparation of images."""

    output_depth: Annotated[Literal[8, 16], zero_means(8)] = field(
        8, "Bits of the images of a grey network; 0 means 8. With 16 the mean is 30048.9216."
    )


class Spec(KittiDetectionSpec, network="yolo_v4"):
    """Spec of yolo_v4 and yolo_v4_tiny."""

    augmentation_config: AugmentationConfig = section(AugmentationConfig)
