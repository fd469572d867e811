"""What every network that takes images shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.network import Network, Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform


def calibration_images(spec: Any) -> ImageFolder:
    """The images below ``gen_trt_engine.tensorrt.calibration.cal_image_dir``."""
    return ImageFolder(spec.require("gen_trt_engine.tensorrt.calibration.cal_image_dir"))


def batch_size_or(key: str, inference_key: str | None = None) -> Callable[[Any, str], int]:
    """``<action>.batch_size`` if it is positive, else the spec's ``key``, else 1.

    ``inference_key`` is the key of every other action than evaluate, where there are two.
    """

    def batch_size(spec: Any, action: str) -> int:
        own = getattr(spec, action).batch_size
        found = own if own > 0 else spec.get(key if action == "evaluate" else inference_key or key, 1)
        return max(1, int(found or 1))

    return batch_size


batch_size = batch_size_or("dataset.batch_size")


image_network = partial(Network, calibration=calibration_images, batch_size=batch_size)
"""A :class:`Network` of images: calibrated on a folder, in batches of ``dataset.batch_size``, unless it says else."""


def image_transform(spec: Any, ports: Ports, role: str, **settings: Any) -> ImageTransform:
    """An :class:`ImageTransform` of these settings for the NCHW input ``role``, images decoded as the spec says.

    Raises:
        ModelError: the input has a dynamic height or width.
    """
    ports.image_size(role)
    return ImageTransform(input_name=ports.inputs[role].name, backend=spec.runtime.image_backend, **settings)


class OpenInputs(dict[str, TensorInfo]):
    """A model's inputs whose dynamic height and width a run decides.

    A binder puts them into its :class:`Ports`; :meth:`set_size` may be called again, the last call counts.
    """

    def __init__(self, declared: Mapping[str, TensorInfo]) -> None:
        super().__init__(declared)
        self._declared = dict(declared)

    def set_size(self, width: int, height: int) -> None:
        """Give every NCHW input the size where the model declares none; declared sides stay."""
        for role, info in self._declared.items():
            sides = [own or given for own, given in zip(info.shape[2:4], (height, width), strict=True)]
            self[role] = replace(info, shape=(*info.shape[:2], *sides))


def set_size(ports: Ports, width: int, height: int) -> None:
    """See :meth:`OpenInputs.set_size`; the binder made the ports so."""
    assert isinstance(ports.inputs, OpenInputs)
    ports.inputs.set_size(width, height)


def check_map(ports: Ports, image: str, name: str) -> None:
    """The output ``name`` (..., H, W) has a value for every pixel of the input ``image``.

    Raises:
        ModelError: it is declared of another height or width.
    """
    size, found = ports.inputs[image].shape[-2:], ports.outputs[name].shape[-2:]
    if any(None not in pair and pair[0] != pair[1] for pair in zip(size, found, strict=True)):
        raise ModelError(
            "the model does not fit this network: its contract asks for an output of the input's height and width; "
            f"the model has {ports.inputs[image]} and gives {ports.outputs[name]}",
            remedy="Check that the file was exported for this network.",
        )


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
