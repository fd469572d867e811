"""What optical_inspection reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families.inspection_spec import PairData
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import BatchSize, NetworkSpec, Section


class Inference(sections.Inference):
    """Run a model on pairs."""

    batch_size: BatchSize = Field(default=1, description="Pairs per batch.")


class Model(Section):
    """Facts about the trained network."""

    margin: float = Field(default=2.0, description="A unit is defective where its distance is over this.")


class Spec(NetworkSpec):
    """Spec of optical_inspection."""

    network: ClassVar[str] = "optical_inspection"

    model: Model = Field(default_factory=Model, description="Facts about the trained network.")
    dataset: PairData = Field(default_factory=PairData, description="Units and golden images.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on pairs.")
