"""What grounding_dino reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families import detr_spec, grounding_spec
from nvidia_tao_deploy.spec.sections import NetworkSpec


class Spec(NetworkSpec):
    """Spec of grounding_dino."""

    network: ClassVar[str] = "grounding_dino"

    model: grounding_spec.Model = Field(
        default_factory=grounding_spec.Model, description="Facts about the trained network."
    )
    dataset: grounding_spec.Dataset = Field(default_factory=grounding_spec.Dataset, description="Images and labels.")
    gen_trt_engine: grounding_spec.GenTrtEngine = Field(
        default_factory=grounding_spec.GenTrtEngine, description="ONNX file in, engine file out."
    )
    inference: detr_spec.Inference = Field(default_factory=detr_spec.Inference, description="Run a model on images.")
