"""What ocrnet reads from its spec."""

from __future__ import annotations

from typing import Literal

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    test_dataset_dir: str | None = sections.mandatory("Folder that the list's file names are relative to.")
    test_dataset_gt_file: str | None = sections.mandatory("Lines of 'file transcript'.")
    input_width: int = field(100, "Width of the model's input; if set, it must be that.", ge=1)
    input_height: int = field(32, "Height of the model's input; if set, it must be that.", ge=1)
    batch_size: sections.BatchSize = field(1, "Images per batch.")


class Inference(sections.Inference):
    """Run a model on images."""

    inference_dataset_dir: StrList = field(
        [], "Folders of images. One folder or a list.", json_schema_extra={"mandatory": True}
    )
    input_width: int = field(100, "Width of the model's input; if set, it must be that.", ge=1)
    input_height: int = field(32, "Height of the model's input; if set, it must be that.", ge=1)
    batch_size: sections.BatchSize = field(1, "Images per batch.")


class Model(Section):
    """Facts about the trained network."""

    prediction: Literal["CTC", "Attn"] = field("CTC", "What the class ids mean.")


class Augmentation(Section):
    """How the training made its inputs."""

    keep_aspect_ratio: bool = field(False, "Resize to the model's height and repeat the last column; else stretch.")


class Dataset(Section):
    """Characters, and how images were made to fit."""

    character_list_file: str | None = sections.mandatory("One character per line; blank and end token are not listed.")
    augmentation: Augmentation = section(Augmentation)


class Spec(NetworkSpec, network="ocrnet"):
    """Spec of ocrnet."""

    model: Model = section(Model)
    dataset: Dataset = section(Dataset, "Characters, and how images fit.")
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
