"""What dino reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families import detr_spec


class Dataset(detr_spec.NormalizedDataset):
    """Images and labels."""

    contiguous_labels: bool = Field(
        default=False,
        description="Channel j is the j-th category of the annotation file by ascending id, and line j of the classmap "
        "names it; else channel j is category id j, and line j names channel j + 1.",
    )


class Spec(detr_spec.LargeBackboneSpec):
    """Spec of dino."""

    network: ClassVar[str] = "dino"

    model: detr_spec.BackboneModel = Field(
        default_factory=detr_spec.BackboneModel, description="Facts about the trained network."
    )
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    inference: detr_spec.Inference = Field(default_factory=detr_spec.Inference, description="Run a model on images.")
