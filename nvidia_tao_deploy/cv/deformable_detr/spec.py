"""What deformable_detr reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families import detr_spec
from nvidia_tao_deploy.spec.sections import NetworkSpec


class Spec(NetworkSpec):
    """Spec of deformable_detr."""

    network: ClassVar[str] = "deformable_detr"

    model: detr_spec.Model = Field(default_factory=detr_spec.Model, description="Facts about the trained network.")
    dataset: detr_spec.NormalizedDataset = Field(
        default_factory=detr_spec.NormalizedDataset, description="Images and labels."
    )
    inference: detr_spec.Inference = Field(default_factory=detr_spec.Inference, description="Run a model on images.")
