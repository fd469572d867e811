"""What precisions an engine really runs in, read from TensorRT's engine inspector."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

# How the inspector of one release or another spells a type: "Row major linear FP16 format", "Half", "Int8".
_SPELLINGS = (
    ("int8", r"int8"),
    ("fp8", r"fp8|e4m3"),
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"fp16|half"),
    ("fp32", r"fp32|float|tf32"),
)
_OF_ANOTHER_PROFILE = re.compile(r" \[profile [1-9]\d*\]$")
_WEIGHTED = re.compile(r"convolution|deconvolution|gemm|matri|fully.?connected", re.IGNORECASE)


def read_layers(trt: Any, logger: Any, plan: bytes) -> str | None:
    """The inspector's JSON for a plan, None when the plan cannot be loaded on this machine."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    # With open shapes 8.5 answers "N/A due to dynamic shapes" unless a context says which ones are meant.
    context = engine.create_execution_context()
    if context is not None:
        for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT and -1 in tuple(engine.get_tensor_shape(name)):
                context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
        inspector.execution_context = context
    text: str = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    del inspector, context  # before their engine
    return text


def count_precisions(text: str) -> dict[str, int]:
    """How many convolutions and matrix products run in each precision; layers of other kinds are not counted.

    A quantized layer reads and multiplies int8 and may write another type, so its input decides.
    """
    return dict(Counter(_precision(layer) for layer in _layers(text) if _is_weighted(layer)))


def opaque_layers(text: str) -> int:
    """Layers that hold many operators compiled as one, whose precisions the inspector does not tell."""
    names = [(str(layer.get("Name", "")), str(layer.get("LayerType", ""))) for layer in _layers(text)]
    return sum("ForeignNode" in name or "Myelin" in kind for name, kind in names)


def _layers(text: str) -> list[Mapping[str, Any]]:
    layers = [layer for layer in json.loads(text).get("Layers", []) if isinstance(layer, Mapping)]
    return [layer for layer in layers if not _OF_ANOTHER_PROFILE.search(str(layer.get("Name", "")))]


def _is_weighted(layer: Mapping[str, Any]) -> bool:
    return any(_WEIGHTED.search(str(layer.get(key, ""))) for key in ("ParameterType", "LayerType"))


def _precision(layer: Mapping[str, Any]) -> str:
    first = (layer.get("Inputs") or [{}])[0]
    spelled = str(first.get("Format/Datatype", "") if isinstance(first, Mapping) else "")
    return next((name for name, pattern in _SPELLINGS if re.search(pattern, spelled, re.IGNORECASE)), "other")
