"""What ml_recog reads from its spec."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvidia_tao_deploy.families.augmentation_spec import Mean, Std
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, NetworkSpec, Section


class Evaluate(sections.Evaluate):
    """Measure how well queries find their class in the gallery."""

    batch_size: BatchSize = field(4, "Images per batch.")
    topk: int = field(1, "A query is right if one of its k nearest images has its class.", ge=1)


class Inference(sections.Inference):
    """Find the gallery images nearest to the user's images."""

    batch_size: BatchSize = field(1, "Images per batch.")
    topk: int = field(1, "Neighbours written for each image.", ge=1)
    input_path: str | None = sections.mandatory("Folder of images, or an image.")
    inference_input_type: Literal["classification_folder", "image_folder", "image"] = field(
        "classification_folder", "classification_folder: with sub-folders; image_folder: without; image: one file."
    )


class ValDataset(Section):
    """Class folders of the gallery and of the queries."""

    reference: str | None = field(None, "The gallery: one folder per class.")
    query: str | None = field(None, "Annotated queries for evaluate: one folder per class.")


class Dataset(Section):
    """Images and labels."""

    val_dataset: ValDataset = section(ValDataset, "Gallery and queries.")
    class_map: str | None = field(None, "YAML file 'folder: shown name', or a text file with one folder name per line.")
    pixel_mean: Mean = Field(default=[0.485, 0.456, 0.406])
    pixel_std: Std = Field(default=[0.226, 0.226, 0.226])


class Model(Section):
    """Input of the trained network; values that are given must be the model's own."""

    input_channels: int = field(3, "Channels.", ge=1)
    input_height: int = field(224, "Height in pixels.", ge=1)
    input_width: int = field(224, "Width in pixels.", ge=1)


class Spec(NetworkSpec, network="ml_recog"):
    """Spec of ml_recog."""

    model: Model = section(Model, "Input of the trained network.")
    dataset: Dataset = section(Dataset)
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
    inference: Inference = section(Inference, "Run a model on images.")
