"""What deformable_detr reads from its spec."""

from __future__ import annotations

from nvidia_tao_deploy.families import detr_spec
from nvidia_tao_deploy.spec.fields import section
from nvidia_tao_deploy.spec.sections import NetworkSpec


class Spec(NetworkSpec, network="deformable_detr"):
    """Spec of deformable_detr."""

    model: detr_spec.Model = section(detr_spec.Model)
    dataset: detr_spec.NormalizedDataset = section(detr_spec.NormalizedDataset)
    inference: detr_spec.Inference = section(detr_spec.Inference)
