"""Shape profiles of a build: from the spec, else from the dataset's images; tried before minutes are spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any

import numpy as np

from nvidia_tao_deploy.errors import BuildError, SpecError, TaoDeployError
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import say

if TYPE_CHECKING:
    from onnx import ModelProto

    from nvidia_tao_deploy.actions.prepare import Prepared
    from nvidia_tao_deploy.engine.profiles import Profile, Triple

WHICH = ("min", "opt", "max")
LOOKED_AT = 500  # images whose size is read for a proposal
# A trial on the CPU should take seconds: above this it is left to the builder.
TRIAL_WEIGHT_BYTES = 64 * 2**20
TRIAL_ELEMENTS = 8 * 2**20


def choose_profiles(network: Network, spec: Any, prepared: Prepared) -> dict[str, Profile]:
    """A profile per input of the prepared model.

    The batch comes from ``tensorrt.{min,opt,max}_batch_size``; a dynamic height or width from
    ``gen_trt_engine.{min,opt,max}_{height,width}`` where the network's spec has these keys, and where all three are
    unset from the sizes of the dataset's images, which is said.

    Raises:
        SpecError: some of the three sizes are set and some are not.
        BuildError: an axis has no size, or sizes are not in order.
    """
    from nvidia_tao_deploy.engine.profiles import propose
    from nvidia_tao_deploy.graph.load import model_inputs

    inputs = model_inputs(prepared.model)
    options = spec.gen_trt_engine.tensorrt
    open_axes = [
        side
        for axis, side in ((-2, "height"), (-1, "width"))
        if any(len(info.shape) >= 4 and info.shape[axis] is None for info in inputs)
    ]
    sizes = {side: _from_spec(spec, side) for side in open_axes}
    missing = [side for side, triple in sizes.items() if triple is None]
    if missing:
        found = _from_images(_image_paths(network, spec, prepared), network.stride(prepared.ports))
        for side in missing:
            sizes[side] = found.get(side)
            if sizes[side] is not None:
                say(f"note: {side} profile (min, opt, max) {sizes[side]}: proposed from the dataset's image sizes")
    return propose(
        inputs,
        options.min_batch_size,
        options.opt_batch_size,
        options.max_batch_size,
        heights=sizes.get("height"),
        widths=sizes.get("width"),
    )


def _from_spec(spec: Any, side: str) -> Triple | None:
    section = spec.gen_trt_engine
    values: list[Any] = [getattr(section, f"{which}_{side}", None) for which in WHICH]
    if not any(values):
        return None
    if not all(values):
        unset = ", ".join(f"{which}_{side}" for which, value in zip(WHICH, values, strict=True) if not value)
        raise SpecError(
            f"the model's {side} is dynamic and {unset} is not set",
            where=spec.where("gen_trt_engine"),
            remedy=f"Set min_{side}, opt_{side} and max_{side}, or none of them to take the dataset's sizes.",
        )
    return int(values[0]), int(values[1]), int(values[2])


def _image_paths(network: Network, spec: Any, prepared: Prepared) -> Iterable[Path]:
    if prepared.images is not None:
        return [sample.path for sample in prepared.images.samples]
    try:
        dataset = network.dataset(spec, "evaluate")
        return [dataset[i].path for i in range(min(len(dataset), LOOKED_AT))]
    except TaoDeployError:  # no dataset in this spec: the message about the open axis says what to set
        return []


def _from_images(paths: Iterable[Path], stride: int) -> dict[str, Triple]:
    """{"height": (min, opt, max), "width": ...} over the images, in multiples of ``stride``: min down, opt to the
    nearest of the median, max up. Empty without a readable image."""
    from PIL import Image, UnidentifiedImageError

    sizes = []
    for path in list(paths)[:LOOKED_AT]:
        try:
            with Image.open(path) as image:
                sizes.append(image.size)
        except (OSError, UnidentifiedImageError):
            continue
    if not sizes:
        return {}
    result: dict[str, Triple] = {}
    for side, values in zip(("width", "height"), zip(*sizes, strict=True), strict=True):
        low, high = max(1, min(values) // stride) * stride, -(-max(values) // stride) * stride
        middle = round(median_low(values) / stride) * stride
        result[side] = (low, min(max(middle, low), high), high)
    return result


def check_shapes(prepared: Prepared, profiles: Mapping[str, Profile], shown_as: Path) -> None:
    """Run the prepared graph with ONNX Runtime at the min, opt and max shapes, where that takes seconds.

    Shows at once what a builder says after minutes, if at all: a shape that the model itself cannot take.

    Raises:
        BuildError: the model cannot run at one of them.
    """
    from nvidia_tao_deploy.graph.runnable import runnable
    from nvidia_tao_deploy.graph.tensors import serialized_size

    if all(profile.min == profile.max for profile in profiles.values()):
        return
    elements = sum(prod(profile.max) for profile in profiles.values())
    if serialized_size(prepared.model) > TRIAL_WEIGHT_BYTES or elements > TRIAL_ELEMENTS:
        say("note: the shapes are not tried with ONNX Runtime first, the model is large")
        return
    try_shapes(runnable(prepared.model), profiles, shown_as)


def try_shapes(model: ModelProto, profiles: Mapping[str, Profile], shown_as: Path) -> None:
    """Run the model once at each of the min, opt and max shapes with ONNX Runtime on the CPU, fed with zeros.

    Raises:
        BuildError: the model fails at one of the shapes; which one, and ONNX Runtime's reason.
    """
    from nvidia_tao_deploy.graph.load import model_inputs
    from nvidia_tao_deploy.graph.ort import open_session

    session = open_session(model)
    tried: list[dict[str, Any]] = []
    for which in WHICH:
        shapes = {name: tuple(getattr(profile, which)) for name, profile in profiles.items()}
        if shapes in tried:
            continue
        tried.append(shapes)
        try:
            session.run(None, {info.name: np.zeros(shapes[info.name], info.dtype) for info in model_inputs(model)})
        except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
            reason = str(error).strip().splitlines()[0]
            raise BuildError(
                f"the model cannot run at the {which} shapes {shapes}: {reason}",
                where=str(shown_as),
                remedy="Change the profile (batch size, height, width) to shapes the model takes.",
            ) from error
