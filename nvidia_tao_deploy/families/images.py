"""What every network that takes images shares."""

from __future__ import annotations

from typing import Any

from nvidia_tao_deploy.data.folder import ImageFolder


def calibration_images(spec: Any) -> ImageFolder:
    """The images below ``gen_trt_engine.tensorrt.calibration.cal_image_dir``.

    Raises:
        SpecError: no folder is named.
        DataError: a folder is missing or holds no image.
    """
    return ImageFolder(spec.require("gen_trt_engine.tensorrt.calibration.cal_image_dir"))


def batch_size(spec: Any, action: str) -> int:
    """``<action>.batch_size`` if it is positive, else ``dataset.batch_size``, else 1."""
    own = getattr(spec, action).batch_size
    if own > 0:
        return int(own)
    return max(1, int(spec.get("dataset.batch_size", 1) or 1))
