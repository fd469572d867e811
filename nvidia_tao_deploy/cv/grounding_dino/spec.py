"""What grounding_dino reads from its spec."""

from __future__ import annotations

from nvidia_tao_deploy.families import detr_spec, grounding_spec
from nvidia_tao_deploy.spec.fields import section
from nvidia_tao_deploy.spec.sections import NetworkSpec


class Spec(NetworkSpec, network="grounding_dino", changes=grounding_spec.BUILD):
    """Spec of grounding_dino."""

    model: grounding_spec.Model = section(grounding_spec.Model)
    dataset: grounding_spec.Dataset = section(grounding_spec.Dataset)
    inference: detr_spec.Inference = section(detr_spec.Inference)
