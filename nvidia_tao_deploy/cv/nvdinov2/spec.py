"""What nvdinov2 reads from its spec."""

from __future__ import annotations

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    min_height: int | None = field(None, "Least height of a dynamic input, in pixels.", ge=1)
    opt_height: int | None = field(None, "Height the engine is tuned for.", ge=1)
    max_height: int | None = field(None, "Greatest height of a dynamic input.", ge=1)
    min_width: int | None = field(None, "Least width of a dynamic input, in pixels.", ge=1)
    opt_width: int | None = field(None, "Width the engine is tuned for.", ge=1)
    max_width: int | None = field(None, "Greatest width of a dynamic input.", ge=1)


class Spec(NetworkSpec, network="nvdinov2"):
    """Spec of nvdinov2."""

    gen_trt_engine: GenTrtEngine = section(GenTrtEngine)
