"""Shape profiles: the min, opt and max shape of every input (contract _engine_builder.md, section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.runtime.session import TensorInfo

Shape = tuple[int, ...]
Triple = tuple[int, int, int]
# ONNX Runtime's words for types that NumPy calls otherwise.
_NUMPY_NAMES = {"float": "float32", "double": "float64"}


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


def check_profiles(inputs: Sequence[TensorInfo], profiles: Mapping[str, Profile]) -> None:
    """Check profiles given by name against the model's inputs: the builder's own messages come late or never
    (a misspelt name is accepted until the build, a wrong rank speaks of "profile 0").

    Raises:
        BuildError: unknown or missing input, wrong rank, a static axis changed, min <= opt <= max violated.
    """
    names = [info.name for info in inputs]
    for name in profiles:
        if name not in names:
            what = f"the profile names input {name!r}, which the model does not have"
            raise BuildError(what, remedy=f"Its inputs are: {', '.join(names)}.")
    for info in inputs:
        profile = profiles.get(info.name)
        if profile is None:
            if any(size is None for size in info.shape):
                raise BuildError(f"input {info.name!r} is dynamic ({info}) and has no profile", remedy="Give it one.")
            continue
        _check_one(info, Profile(*(tuple(shape) for shape in profile)))


def _check_one(info: TensorInfo, profile: Profile) -> None:
    for which, shape in profile._asdict().items():
        if len(shape) != len(info.shape):
            what = f"input {info.name!r} has {len(info.shape)} axes, its {which} shape {shape} has {len(shape)}"
            raise BuildError(what, remedy=f"The model's input is {info}.")
    for axis, size in enumerate(info.shape):
        triple = (profile.min[axis], profile.opt[axis], profile.max[axis])
        if size is not None and set(triple) != {size}:
            what = f"input {info.name!r}: axis {axis} is fixed at {size} in the model, the profile has {triple}"
            raise BuildError(what, remedy="Fixed axes must keep their size in min, opt and max.")
        if not 0 < triple[0] <= triple[1] <= triple[2]:
            what = f"input {info.name!r}: axis {axis} is not 1 <= min <= opt <= max but {triple}"
            raise BuildError(what, remedy="Order the three shapes of this input.")


def try_shapes(
    model: Path | bytes, profiles: Mapping[str, Profile], *, shown_as: Path | None = None, plain_pairs: bool = False
) -> None:
    """Run the model once at each of the min, opt and max shapes with ONNX Runtime on the CPU, fed with zeros.

    Shows in seconds what a builder says after minutes, if at all: a shape that the model itself cannot take.

    Args:
        model: an ONNX file, or a serialized model.
        profiles: one per input.
        shown_as: the model's name in messages.
        plain_pairs: see ``graph.ort.needs_plain_pairs``.

    Raises:
        BuildError: the model fails at one of the shapes; which one, and ONNX Runtime's reason.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if plain_pairs:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    content = model if isinstance(model, bytes) else str(model)
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    words = {node.name: node.type.removeprefix("tensor(").removesuffix(")") for node in session.get_inputs()}
    types = {name: np.dtype(_NUMPY_NAMES.get(word, word)) for name, word in words.items()}
    tried: list[dict[str, Shape]] = []
    for which in Profile._fields:
        shapes = {name: tuple(getattr(profile, which)) for name, profile in profiles.items()}
        if shapes in tried:
            continue
        tried.append(shapes)
        feeds = {node.name: np.zeros(shapes[node.name], types[node.name]) for node in session.get_inputs()}
        try:
            session.run(None, feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
            reason = str(error).strip().splitlines()[0]
            raise BuildError(
                f"the model cannot run at the {which} shapes {shapes}: {reason}",
                where=str(shown_as or (model if isinstance(model, Path) else "")) or None,
                remedy="Change the profile (batch size, height, width) to shapes the model takes.",
            ) from error
