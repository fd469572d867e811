"""What ocrnet reads from its spec."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    test_dataset_dir: str | None = sections.mandatory("Folder that the list's file names are relative to.")
    test_dataset_gt_file: str | None = sections.mandatory("Lines of 'file transcript'.")
    input_width: int = Field(default=100, ge=1, description="Width of the model's input; if set, it must be that.")
    input_height: int = Field(default=32, ge=1, description="Height of the model's input; if set, it must be that.")
    batch_size: sections.BatchSize = Field(default=1, description="Images per batch.")


class Inference(sections.Inference):
    """Run a model on images."""

    inference_dataset_dir: StrList = Field(
        default=[], description="Folders of images. One folder or a list.", json_schema_extra={"mandatory": True}
    )
    input_width: int = Field(default=100, ge=1, description="Width of the model's input; if set, it must be that.")
    input_height: int = Field(default=32, ge=1, description="Height of the model's input; if set, it must be that.")
    batch_size: sections.BatchSize = Field(default=1, description="Images per batch.")


class Model(Section):
    """Facts about the trained network."""

    prediction: Literal["CTC", "Attn"] = Field(default="CTC", description="What the class ids mean.")


class Augmentation(Section):
    """How the training made its inputs."""

    keep_aspect_ratio: bool = Field(
        default=False, description="Resize to the model's height and repeat the last column; else stretch."
    )


class Dataset(Section):
    """Characters, and how images were made to fit."""

    character_list_file: str | None = sections.mandatory("One character per line; blank and end token are not listed.")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="How the training made its inputs.")


class Spec(NetworkSpec):
    """Spec of ocrnet."""

    network: ClassVar[str] = "ocrnet"

    model: Model = Field(default_factory=Model, description="Facts about the trained network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Characters, and how images fit.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
