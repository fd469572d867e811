"""What ml_recog reads from its spec."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from nvidia_tao_deploy.families.augmentation_spec import Mean, Std
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import BatchSize, NetworkSpec, Section


class Evaluate(sections.Evaluate):
    """Measure how well queries find their class in the gallery."""

    batch_size: BatchSize = Field(default=4, description="Images per batch.")
    topk: int = Field(default=1, ge=1, description="A query is right if one of its k nearest images has its class.")


class Inference(sections.Inference):
    """Find the gallery images nearest to the user's images."""

    batch_size: BatchSize = Field(default=1, description="Images per batch.")
    topk: int = Field(default=1, ge=1, description="Neighbours written for each image.")
    input_path: str | None = sections.mandatory("Folder of images, or an image.")
    inference_input_type: Literal["classification_folder", "image_folder", "image"] = Field(
        default="classification_folder",
        description="classification_folder: with sub-folders; image_folder: without; image: one file.",
    )


class ValDataset(Section):
    """Class folders of the gallery and of the queries."""

    reference: str | None = Field(default=None, description="The gallery: one folder per class.")
    query: str | None = Field(default=None, description="Annotated queries for evaluate: one folder per class.")


class Dataset(Section):
    """Images and labels."""

    val_dataset: ValDataset = Field(default_factory=ValDataset, description="Gallery and queries.")
    class_map: str | None = Field(
        default=None, description="YAML file 'folder: shown name', or a text file with one folder name per line."
    )
    pixel_mean: Mean = Field(default=[0.485, 0.456, 0.406])
    pixel_std: Std = Field(default=[0.226, 0.226, 0.226])


class Model(Section):
    """Input of the trained network; values that are given must be the model's own."""

    input_channels: int = Field(default=3, ge=1, description="Channels.")
    input_height: int = Field(default=224, ge=1, description="Height in pixels.")
    input_width: int = Field(default=224, ge=1, description="Width in pixels.")


class Spec(NetworkSpec):
    """Spec of ml_recog."""

    network: ClassVar[str] = "ml_recog"

    model: Model = Field(default_factory=Model, description="Input of the trained network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
