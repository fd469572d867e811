"""What unet reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from typing import Annotated, Literal

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.messages import empty_means
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList

SOURCES = "Folders (not searched recursively) or .txt lists of"


class Evaluate(sections.Evaluate):
    """Measure a model on images and masks."""

    image_dir: StrList = field([], f"{SOURCES} images; else dataset_config.val_data_sources.")
    label_dir: StrList = field([], f"{SOURCES} masks; else dataset_config.val_data_sources.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1: training_config.batch_size.")
    unmapped_labels: Literal["first_class", "ignore"] = field(
        "first_class", "Mask pixels whose value no class has: they count as train id 0, as in training, or not at all."
    )


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], f"{SOURCES} images; else dataset_config.val_data_sources.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1: training_config.batch_size.")


class DataSource(Section):
    """Images and their masks."""

    image_path: str = field("", "Folder of images, or .txt file with one path per line.")
    masks_path: str = field("", "Folder of masks, or .txt file with one path per line.")


class DataSources(Section):
    """Where data lies."""

    data_source: list[DataSource] = field([], "Images and their masks.")


class TargetClass(Section):
    """One class."""

    name: str = field("", "Class name.")
    label_id: int = field(0, "Its value in masks.", ge=0)
    mapping_class: str = field("", "Class it counts as; empty: itself.")


class DataClassConfig(Section):
    """The classes."""

    target_classes: list[TargetClass] = field([], "The classes of the training.")


class DatasetConfig(Section):
    """Images, masks and classes."""

    resize_padding: bool = field(False, "Keep the aspect ratio and pad around, else stretch.")
    resize_method: Annotated[Literal["BILINEAR", "BICUBIC", "AREA", "NEAREST_NEIGHBOR"], empty_means("BILINEAR")] = (
        field("BILINEAR", "How images are stretched; empty is BILINEAR, and so is padding.")
    )
    preprocess: Annotated[Literal["min_max_-1_1", "min_max_0_1", "div_by_255"], empty_means("min_max_-1_1")] = field(
        "min_max_-1_1", "Range of colour images' values; empty is min_max_-1_1."
    )
    input_image_type: Annotated[Literal["color", "grayscale"], empty_means("color")] = field(
        "color", "grayscale: x / 127.5 - 1 whatever preprocess says, mask values / 255."
    )
    data_class_config: DataClassConfig = section(DataClassConfig)
    train_data_sources: DataSources = section(
        DataSources, "Training data; its images serve calibration if none are set."
    )
    val_data_sources: DataSources = section(DataSources, "Data of evaluate, and images of inference.")
    train_images_path: str = field("", "Images, if train_data_sources names none.")
    val_images_path: str = field("", "Images, if val_data_sources names none.")
    val_masks_path: str = field("", "Masks, if val_data_sources names none.")


class Model(Section):
    """Facts about the trained network."""

    arch: Annotated[str, empty_means("resnet")] = field(
        "resnet", "vanilla_unet: the output is a smaller, central part of the input."
    )
    activation: Annotated[Literal["softmax", "sigmoid"], empty_means("softmax")] = field(
        "softmax", "softmax: the model gives classes; sigmoid (two classes): a probability."
    )


class Training(Section):
    """Facts about the training."""

    batch_size: int = field(0, "Images per batch if nothing else sets it; 0 is unset.", ge=0)


class Spec(NetworkSpec, network="unet", changes=PROTO_BUILD):
    """Spec of unet; ``model_config`` of the file is the attribute ``model``."""

    model: Model = section(Model, alias="model_config")
    dataset_config: DatasetConfig = section(DatasetConfig)
    training_config: Training = section(Training)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
