"""What every network that takes images shares."""

from __future__ import annotations

from typing import Any

from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.network import Ports


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


def check_size(spec: Any, ports: Ports, role: str, width_key: str, height_key: str) -> None:
    """The image size is the model's; a spec that sets another one is about another model.

    Raises:
        SpecError: a key is set (defaults do not count) and differs from the model's input.
        ModelError: the input has a dynamic height or width.
    """
    for key, size, what in zip((width_key, height_key), ports.image_size(role), ("width", "height"), strict=True):
        section, _, name = key.rpartition(".")
        if name in spec.get(section).model_fields_set and spec.get(key) != size:
            raise SpecError(
                f"{what} {spec.get(key)} is not that of the model's input {ports.inputs[role]}",
                where=spec.where(key),
                remedy=f"Remove the key, or set it to {size}.",
            )
