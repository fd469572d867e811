"""What optical_inspection reads from its spec."""

from __future__ import annotations

from nvidia_tao_deploy.families.inspection_spec import PairData
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, NetworkSpec, Section


class Inference(sections.Inference):
    """Run a model on pairs."""

    batch_size: BatchSize = field(1, "Pairs per batch.")


class Model(Section):
    """Facts about the trained network."""

    margin: float = field(2.0, "A unit is defective where its distance is over this.", ge=0)


class Spec(NetworkSpec, network="optical_inspection"):
    """Spec of optical_inspection."""

    model: Model = section(Model)
    dataset: PairData = section(PairData, "Units and golden images.")
    inference: Inference = section(Inference)
