"""What nvdinov2 reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    min_height: int | None = Field(default=None, ge=1, description="Least height of a dynamic input, in pixels.")
    opt_height: int | None = Field(default=None, ge=1, description="Height the engine is tuned for.")
    max_height: int | None = Field(default=None, ge=1, description="Greatest height of a dynamic input.")
    min_width: int | None = Field(default=None, ge=1, description="Least width of a dynamic input, in pixels.")
    opt_width: int | None = Field(default=None, ge=1, description="Width the engine is tuned for.")
    max_width: int | None = Field(default=None, ge=1, description="Greatest width of a dynamic input.")


class Spec(NetworkSpec):
    """Spec of nvdinov2."""

    network: ClassVar[str] = "nvdinov2"

    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
