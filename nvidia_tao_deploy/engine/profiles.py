"""Shape profiles: the min, opt and max shape of every input (contract _engine_builder.md, section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.runtime.session import TensorInfo

Shape = tuple[int, ...]
Triple = tuple[int, int, int]


class Profile(NamedTuple):
    """The smallest, the tuned-for and the largest shape of one input."""

    min: Shape
    opt: Shape
    max: Shape


def propose(
    inputs: Sequence[TensorInfo],
    min_batch: int = 1,
    opt_batch: int = 1,
    max_batch: int = 1,
    *,
    heights: Triple | None = None,
    widths: Triple | None = None,
) -> dict[str, Profile]:
    """One profile per input.

    Static axes stand as they are; a dynamic axis 0 takes the batch sizes; of inputs with rank >= 4 the last two
    axes take ``heights`` and ``widths`` (min, opt, max) when dynamic. A scalar input has the shape ().

    Raises:
        BuildError: sizes not ordered min <= opt <= max or below 1, inputs that disagree about axis 0, or a
            dynamic axis for which no size is given (names the input and the axis).
    """
    sizes = {"batch size": (min_batch, opt_batch, max_batch), "height": heights, "width": widths}
    for name, triple in sizes.items():
        if triple is not None and not 1 <= triple[0] <= triple[1] <= triple[2]:
            what = "the {} profile (min {}, opt {}, max {}) is not 1 <= min <= opt <= max".format(name, *triple)
            remedy = f"Set the min, opt and max {name} of gen_trt_engine.tensorrt in rising order."
            raise BuildError(what, remedy=remedy)
    _check_batch_axis(inputs)
    axes = {info.name: _axes(info, sizes) for info in inputs}
    return {
        name: Profile(*(tuple(axis[which] for axis in found) for which in range(3))) for name, found in axes.items()
    }


def static_batch(inputs: Sequence[TensorInfo]) -> int | None:
    """The fixed size of axis 0, None when it is dynamic or there is no input with axes."""
    return next((info.shape[0] for info in inputs if info.shape), None)


def _check_batch_axis(inputs: Sequence[TensorInfo]) -> None:
    leading = {info.name: info.shape[0] for info in inputs if info.shape}
    if len(set(leading.values())) > 1:
        listing = ", ".join(f"{name}: {'dynamic' if size is None else size}" for name, size in leading.items())
        what = f"the inputs disagree about axis 0, the batch ({listing})"
        raise BuildError(what, remedy="Export the model so that axis 0 of every input is the same batch axis.")


def _axes(info: TensorInfo, sizes: Mapping[str, Triple | None]) -> list[Triple]:
    """The smallest, tuned-for and largest size of each axis."""
    triples: list[Triple] = []
    rank = len(info.shape)
    names = {0: "batch size", **({rank - 2: "height", rank - 1: "width"} if rank >= 4 else {})}
    for axis, size in enumerate(info.shape):
        name = names.get(axis, "")
        triple = sizes.get(name) if size is None else (size, size, size)
        if triple is None:
            remedy = "Give its profile by name, or export the model with this axis fixed."
            if name:
                remedy = f"Set gen_trt_engine.tensorrt.min_{name}, opt_{name} and max_{name}."
            what = f"input {info.name!r}: axis {axis} is dynamic and no size is given for it ({info})"
            raise BuildError(what, remedy=remedy)
        triples.append(triple)
    return triples
