"""What dino reads from its spec."""

from __future__ import annotations

from nvidia_tao_deploy.families import detr_spec
from nvidia_tao_deploy.spec.fields import field, section


class Dataset(detr_spec.NormalizedDataset):
    """Images and labels."""

    contiguous_labels: bool = field(
        False,
        "Channel j is the j-th category of the annotation file by ascending id, and line j of the classmap "
        "names it; else channel j is category id j, and line j names channel j + 1.",
    )


class Spec(detr_spec.LargeBackboneSpec, network="dino"):
    """Spec of dino."""

    model: detr_spec.BackboneModel = section(detr_spec.BackboneModel)
    dataset: Dataset = section(Dataset)
    inference: detr_spec.Inference = section(detr_spec.Inference)
