"""MAE: a masked auto-encoder's backbone, or its classifier after finetuning. Engines only."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.mae.spec import Spec
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.transforms.image import ImageTransform


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """For calibration: stretched, (x / 255 - mean) / std of ``dataset.augmentation``."""
    ports.image_size("input")
    augmentation = spec.dataset.augmentation
    return family.rgb_transform(spec, ports, "input", augmentation.mean, augmentation.std)


NETWORK = family.backbone(Spec, transform)
gen_trt_engine = verbs(NETWORK)[0]
