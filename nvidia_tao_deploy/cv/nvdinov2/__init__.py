"""NVDINOv2: a self-supervised ViT backbone with any number of outputs. Engines only."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.nvdinov2.spec import Spec
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """For calibration: stretched, ImageNet mean and std. Only calibration needs a fixed image size."""
    if spec.gen_trt_engine.tensorrt.calibration.cal_image_dir:
        ports.image_size("input")
    return family.rgb_transform(spec, ports, "input", IMAGENET_MEAN, IMAGENET_STD)


NETWORK = family.backbone(Spec, transform)
gen_trt_engine = verbs(NETWORK)[0]
