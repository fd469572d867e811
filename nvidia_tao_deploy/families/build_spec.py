"""Spec sections of engine builds that several networks have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.drift import Drift, gib_to_mib
from nvidia_tao_deploy.spec.fields import field, section

FloatPrecision = Annotated[Literal["fp32", "fp16", "bf16"], BeforeValidator(lambda value: str(value).lower())]
"""Precisions of networks without int8, in any case."""


class FloatTensorRT(sections.TensorRT):
    """How the engine is built."""

    data_type: FloatPrecision = field(  # type: ignore[assignment]
        "fp32", "Precision of the engine, in any case; this network has no int8."
    )


class ProtoGenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: sections.ProtoTensorRT = section(sections.ProtoTensorRT, "How the engine is built.")


class Tf2TensorRT(sections.TensorRT):
    """How the engine is built."""

    workspace_size: int = field(2048, "Builder workspace in MiB; 0 is TensorRT's default.", ge=0)


class Tf2GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: Tf2TensorRT = section(Tf2TensorRT)


# Known to the TensorFlow 2 trainers under this name, in GiB; only_if makes the rule count although it is a key.
TF2_WORKSPACE = Drift(
    "gen_trt_engine.tensorrt.max_workspace_size",
    "gen_trt_engine.tensorrt.workspace_size",
    convert=gib_to_mib,
    only_if=(int, float, str),
)
