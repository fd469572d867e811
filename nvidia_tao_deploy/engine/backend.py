"""Which engine builder is used and what it offers. Everything this project knows about versions is here.

Enumeration values moved between releases, so names are looked up with ``getattr`` and nothing is compared by
number; a version is read only where the surface does not show the difference.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Literal

from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.runtime import cuda

RuntimeName = Literal["tensorrt", "tensorrt_rtx"]
Typing = Literal["weak", "optional", "strong"]

INSTALL = {
    "tensorrt": "pip install tensorrt cuda-python (or tensorrt-cu12 / tensorrt-cu13 to match the driver)",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13",
}
TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}

# TensorRT-RTX has no SM 9.0 and no SM 10.0 target: those GPUs are served by TensorRT alone.
RTX_UNSERVED = {(9, 0), (10, 0), (10, 3)}


@dataclass(frozen=True)
class Features:
    """What one builder offers. ``typing`` is how it treats the types that stand in the ONNX graph:
    "weak" (8.x: flags permit, the graph suggests), "optional" (10.x: strong when asked), "strong" (11, RTX: always)."""

    typing: Typing
    precisions: tuple[str, ...]
    int8_convolution: bool
    float16_scales: bool
    plugins: bool
    timing_cache: bool
    implicit_calibration: bool
    dla: bool
    version_compatible: bool
    hardware_compatibility: tuple[str, ...]
    optimization_level: bool
    max_aux_streams: bool
    weight_streaming: bool
    progress_monitor: bool
    native_instance_norm_flag: bool
    layer_normalization: bool
    shared_profiles: bool
    targets: tuple[tuple[int, int], ...]  # compute capabilities it can be told to build for; empty: this GPU only
    max_opset: int


@dataclass(frozen=True)
class Backend:
    """One builder: ``module`` is the imported ``tensorrt`` or ``tensorrt_rtx``."""

    name: RuntimeName
    version: str
    module: Any
    features: Features

    @property
    def title(self) -> str:
        """For reports, e.g. "TensorRT 8.5.3.1"."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def strongly_typed(self) -> bool:
        """Whether networks are built with the graph's types as they stand (whenever the builder can)."""
        return self.features.typing != "weak"


def choose_runtime(wanted: str = "auto") -> Backend:
    """The builder for ``gen_trt_engine.tensorrt.runtime``.

    ``auto``: ``tensorrt`` when it can be imported and a GPU is present, else ``tensorrt_rtx``, which builds
    ahead of time on any machine.

    Raises:
        RuntimeUnavailableError: what is asked for is not installed or lacks its GPU; says what to install.
    """
    reasons = []
    if wanted in ("auto", "tensorrt"):
        module, reason = _import("tensorrt")
        if module is not None and cuda.gpu_available():
            return describe("tensorrt", module)
        reasons.append(f"TensorRT: {reason or 'installed, but it builds only with a GPU and none is present'}")
    if wanted in ("auto", "tensorrt_rtx"):
        module, reason = _import("tensorrt_rtx")
        if module is not None:
            return describe("tensorrt_rtx", module)
        reasons.append(f"TensorRT-RTX: {reason}")
    remedy = INSTALL["tensorrt_rtx"]
    if wanted != "tensorrt_rtx" and cuda.gpu_available():
        remedy = INSTALL["tensorrt"] + (f", or {remedy}" if wanted == "auto" else "")
    elif wanted == "tensorrt":
        remedy = "set gen_trt_engine.tensorrt.runtime to tensorrt_rtx, or run on the GPU machine with TensorRT"
    what = f"no engine builder can be used: {'; '.join(reasons)}"
    raise RuntimeUnavailableError(what, remedy=f"To have one: {remedy}.")


def load(name: str) -> Backend:
    """The builder called ``name``, whether or not there is a GPU.

    Raises:
        RuntimeUnavailableError: it cannot be imported.
    """
    module, reason = _import(name)
    if module is None:
        raise RuntimeUnavailableError(f"{TITLES[name]} cannot be used: {reason}", remedy=INSTALL[name] + ".")
    return describe("tensorrt_rtx" if name == "tensorrt_rtx" else "tensorrt", module)


def _import(name: str) -> tuple[ModuleType | None, str | None]:
    try:
        return importlib.import_module(name), None
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # A wheel whose CUDA or cuDNN libraries are missing fails in one of these ways, and one that Ctrl-C cut off.
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        return None, "not installed" if absent else f"cannot be imported: {error}"


def describe(name: RuntimeName, module: Any) -> Backend:
    """Read off ``module`` what it offers."""
    return Backend(name, str(module.__version__), module, _features(name, module))


def _features(name: RuntimeName, trt: Any) -> Features:
    rtx = name == "tensorrt_rtx"
    version = version_tuple(str(trt.__version__))

    def has(group: str, attribute: str) -> bool:
        return hasattr(getattr(trt, group, None), attribute)

    flag, config = partial(has, "BuilderFlag"), partial(has, "IBuilderConfig")
    typing: Typing = "optional" if has("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") else "weak"
    # RTX 1.4 still shows the names of the precision flags, so the surface alone would mislead there.
    if rtx or not flag("FP16"):
        typing = "strong"
    # The FP8 flag of 8.6 serves plugins only; BF16 in DataType marks 10.0.
    newer = ("bf16", "fp8") if rtx or has("DataType", "BF16") else ()
    levels = ("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY")
    return Features(
        typing=typing,
        precisions=("fp32", "fp16", "int8", *newer),
        int8_convolution=not rtx or version >= (1, 7),
        float16_scales=rtx or version >= (10, 0),
        plugins=not rtx,
        # RTX has the calls, documented as without effect.
        timing_cache=not rtx and config("create_timing_cache"),
        implicit_calibration=not rtx and hasattr(trt, "IInt8EntropyCalibrator2"),
        # DeviceType.DLA is a name that every release has; 11.0 to 11.3 have no DLA behind it.
        dla=not rtx and version < (11, 0),
        version_compatible=not rtx and flag("VERSION_COMPATIBLE"),
        hardware_compatibility=tuple(x for x in levels if not rtx and has("HardwareCompatibilityLevel", x)),
        optimization_level=config("builder_optimization_level"),
        max_aux_streams=config("max_aux_streams"),
        weight_streaming=flag("WEIGHT_STREAMING"),
        progress_monitor=hasattr(trt, "IProgressMonitor"),
        # 8.6 only: on by default from 10.0.
        native_instance_norm_flag=has("OnnxParserFlag", "NATIVE_INSTANCENORM"),
        layer_normalization=rtx or has("INetworkDefinition", "add_normalization"),
        # 8.x lets one context work in a profile at a time; from 10.0 any number may.
        shared_profiles=rtx or version >= (10, 0),
        targets=_targets(trt) if rtx else (),
        max_opset=_max_opset(rtx, version),
    )


def _targets(trt: Any) -> tuple[tuple[int, int], ...]:
    names = dir(getattr(trt, "ComputeCapability", object))
    found = [match for name in names if (match := re.fullmatch(r"SM(\d+)(\d)", name))]
    return tuple(sorted((int(match[1]), int(match[2])) for match in found))


def _max_opset(rtx: bool, version: tuple[int, ...]) -> int:
    """The newest ONNX opset whose operators the bundled parser documents."""
    if rtx:
        return 24 if version < (1, 5) else 25
    if version < (10, 0):
        return 17
    return 20 if version < (10, 5) else 24 if version < (11, 0) else 25


def version_tuple(version: str) -> tuple[int, ...]:
    """``"10.13.3.9"`` -> ``(10, 13, 3, 9)``; what is not a number ends it."""
    numbers = []
    for part in version.split("."):
        match = re.match(r"\d+", part)
        if not match:
            break
        numbers.append(int(match[0]))
    return tuple(numbers)


def known_plugins(backend: Backend) -> frozenset[str]:
    """Names of the plugins that the builder's library registers; empty for TensorRT-RTX, which has none to speak of."""
    if not backend.features.plugins:
        return frozenset()
    trt = backend.module
    trt.init_libnvinfer_plugins(trt.Logger(trt.Logger.ERROR), "")
    return registered_plugins(trt)


def registered_plugins(trt: Any) -> frozenset[str]:
    """Names of the plugins in the registry as it is."""
    registry = trt.get_plugin_registry()
    creators = getattr(registry, "all_creators", None) or getattr(registry, "plugin_creator_list", None) or []
    return frozenset(creator.name for creator in creators)


def network_flags(backend: Backend, *, strongly_typed: bool) -> int:
    """The flags for ``Builder.create_network``, composed by name: the numbers changed between releases."""
    names = backend.module.NetworkDefinitionCreationFlag
    if backend.features.typing == "strong":
        return 0
    if backend.features.typing == "optional":
        return 1 << int(names.STRONGLY_TYPED) if strongly_typed else 0
    return 1 << int(names.EXPLICIT_BATCH)
