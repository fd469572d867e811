"""What unet reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from nvidia_tao_deploy.families.build_spec import ProtoGenTrtEngine
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList

SOURCES = "Folders (not searched recursively) or .txt lists of"


def _lowered(default: str) -> BeforeValidator:
    """Empty text is unset, as in a message; case does not matter."""
    return BeforeValidator(lambda value: (value.strip().lower() or default) if isinstance(value, str) else value)


def _upper(value: Any) -> Any:
    return (value.strip().upper() or "BILINEAR") if isinstance(value, str) else value


class Evaluate(sections.Evaluate):
    """Measure a model on images and masks."""

    image_dir: StrList = Field(default=[], description=f"{SOURCES} images; else dataset_config.val_data_sources.")
    label_dir: StrList = Field(default=[], description=f"{SOURCES} masks; else dataset_config.val_data_sources.")
    batch_size: sections.BatchSize = Field(default=-1, description="Images per batch; -1: training_config.batch_size.")
    unmapped_labels: Literal["first_class", "ignore"] = Field(
        default="first_class",
        description="Mask pixels whose value no class has: they count as train id 0, as in training, or not at all.",
    )


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = Field(default=[], description=f"{SOURCES} images; else dataset_config.val_data_sources.")
    batch_size: sections.BatchSize = Field(default=-1, description="Images per batch; -1: training_config.batch_size.")


class DataSource(Section):
    """Images and their masks."""

    image_path: str = Field(default="", description="Folder of images, or .txt file with one path per line.")
    masks_path: str = Field(default="", description="Folder of masks, or .txt file with one path per line.")


class DataSources(Section):
    """Where data lies."""

    data_source: list[DataSource] = Field(default=[], description="Images and their masks.")


class TargetClass(Section):
    """One class."""

    name: str = Field(default="", description="Class name.")
    label_id: int = Field(default=0, ge=0, description="Its value in masks.")
    mapping_class: str = Field(default="", description="Class it counts as; empty: itself.")


class DataClassConfig(Section):
    """The classes."""

    target_classes: list[TargetClass] = Field(default=[], description="The classes of the training.")


class DatasetConfig(Section):
    """Images, masks and classes."""

    resize_padding: bool = Field(default=False, description="Keep the aspect ratio and pad around, else stretch.")
    resize_method: Annotated[Literal["BILINEAR", "BICUBIC", "AREA", "NEAREST_NEIGHBOR"], BeforeValidator(_upper)] = (
        Field(default="BILINEAR", description="How images are stretched; empty is BILINEAR, and so is padding.")
    )
    preprocess: Annotated[Literal["min_max_-1_1", "min_max_0_1", "div_by_255"], _lowered("min_max_-1_1")] = Field(
        default="min_max_-1_1", description="Range of colour images' values; empty is min_max_-1_1."
    )
    input_image_type: Annotated[Literal["color", "grayscale"], _lowered("color")] = Field(
        default="color", description="grayscale: x / 127.5 - 1 whatever preprocess says, mask values / 255."
    )
    data_class_config: DataClassConfig = Field(default_factory=DataClassConfig, description="The classes.")
    train_data_sources: DataSources = Field(
        default_factory=DataSources, description="Training data; its images serve calibration if none are set."
    )
    val_data_sources: DataSources = Field(
        default_factory=DataSources, description="Data of evaluate, and images of inference."
    )
    train_images_path: str = Field(default="", description="Images, if train_data_sources names none.")
    val_images_path: str = Field(default="", description="Images, if val_data_sources names none.")
    val_masks_path: str = Field(default="", description="Masks, if val_data_sources names none.")


class Model(Section):
    """Facts about the trained network."""

    arch: Annotated[str, _lowered("resnet")] = Field(
        default="resnet", description="vanilla_unet: the output is a smaller, central part of the input."
    )
    activation: Annotated[Literal["softmax", "sigmoid"], _lowered("softmax")] = Field(
        default="softmax", description="softmax: the model gives classes; sigmoid (two classes): a probability."
    )


class Training(Section):
    """Facts about the training."""

    batch_size: int = Field(default=0, ge=0, description="Images per batch if nothing else sets it; 0 is unset.")


class Spec(NetworkSpec):
    """Spec of unet; ``model_config`` of the file is the attribute ``model``."""

    network: ClassVar[str] = "unet"

    model: Model = Field(default_factory=Model, alias="model_config", description="Facts about the trained network.")
    dataset_config: DatasetConfig = Field(default_factory=DatasetConfig, description="Images, masks and classes.")
    training_config: Training = Field(default_factory=Training, description="Facts about the training.")
    gen_trt_engine: ProtoGenTrtEngine = Field(
        default_factory=ProtoGenTrtEngine, description="ONNX file in, engine file out."
    )
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on images and masks.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
