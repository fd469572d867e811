"""Spec sections of engine builds that several networks have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, model_validator

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.drift import Drift, gib_to_mib
from nvidia_tao_deploy.spec.fields import field

FloatPrecision = Annotated[Literal["fp32", "fp16", "bf16"], BeforeValidator(lambda value: str(value).lower())]
"""Precisions of networks without int8, in any case."""


class FloatTensorRT(sections.TensorRT):
    """How the engine is built."""

    data_type: FloatPrecision = field(  # type: ignore[assignment]
        "fp32", "Precision of the engine, in any case; this network has no int8."
    )


class SensitiveTensorRT(sections.TensorRT):
    """How the engine is built; ``sensitive`` holds globs on the names of nodes that 16 bits spoil."""

    sensitive: ClassVar[Sequence[str]] = ()

    @model_validator(mode="after")
    def _sensitive_layers(self) -> SensitiveTensorRT:
        """Sensitive parts of a 16-bit build stay in fp32; what the user asks for comes first."""
        if self.data_type != "fp32":
            wanted = [*self.layers_precision, *(f"{glob}:fp32" for glob in self.sensitive)]
            # Through __dict__: an adapted default must not count as set by the user.
            self.__dict__["layers_precision"] = list(dict.fromkeys(wanted))
        return self


TF2_BUILD = {"gen_trt_engine.tensorrt.workspace_size": 2048}
PROTO_BUILD = {**TF2_BUILD, "gen_trt_engine.tensorrt.calibration.cal_batches": 10}
"""Defaults of the flags that networks with protobuf specs also have."""


# Known to the TensorFlow 2 trainers under this name, in GiB; only_if makes the rule count although it is a key.
TF2_WORKSPACE = Drift(
    "gen_trt_engine.tensorrt.max_workspace_size",
    "gen_trt_engine.tensorrt.workspace_size",
    convert=gib_to_mib,
    only_if=(int, float, str),
)
