"""What classification_tf1 reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.known import enum_name
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section

METHODS = {"BILINEAR": 0, "BICUBIC": 1}


def _mode(value: Any) -> Any:
    """Empty text is the message's way to leave the mode out."""
    return value.strip().lower() or "caffe" if isinstance(value, str) else value


def _whole_mean(value: dict[str, float]) -> dict[str, float]:
    strangers = sorted(set(value) - set("rgbl"))
    missing = sorted(set("rgb") - set(value)) if set(value) & set("rgb") else []
    if strangers:
        raise ValueError(f"image_mean has the keys r, g, b (colour) or l (grey), not {strangers[0]}")
    if missing:
        raise ValueError(f"image_mean lacks the key {' and '.join(missing)}")
    return value


class Evaluate(sections.Evaluate):
    """Measure a model on images in one folder per class."""

    image_dir: str | None = field(None, "Images; else eval_config.eval_dataset_path.")
    class_map: str | None = field(None, "JSON of class name to index; else the sorted folders.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1: eval_config.batch_size.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: str | None = sections.mandatory("Folder of images.")
    class_map: str | None = field(None, "JSON of class name to index; else evaluate.class_map.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1: eval_config.batch_size.")


class EvalConfig(Section):
    """How the model is measured."""

    top_k: int = field(5, "A hit is a label among the k best classes; 0 means 5.", ge=0)
    eval_dataset_path: str = field("", "Folder with one sub-folder of images per class.")
    batch_size: int = field(0, "Images per batch; 0 is unset, which is 1.", ge=0)
    enable_center_crop: bool = field(False, "Resize over the input size and cut the centre.")


class Model(Section):
    """Facts about the trained network."""

    resize_interpolation_method: Annotated[
        Literal["BILINEAR", "BICUBIC"], BeforeValidator(lambda value: enum_name(value, METHODS))
    ] = field("BILINEAR", "How images are resized.")


class Training(Section):
    """How images were prepared in training."""

    preprocess_mode: Annotated[Literal["caffe", "torch", "tf"], BeforeValidator(_mode)] = field(
        "caffe", "Arithmetic on grey levels; empty is caffe."
    )
    image_mean: Annotated[dict[str, float], AfterValidator(_whole_mean)] = field(
        {}, "Mean of mode caffe by channel, on the scale 0..255: r, g and b, or l for grey."
    )


class Spec(NetworkSpec, changes=PROTO_BUILD):
    """Spec of classification_tf1; ``model_config`` of the file is the attribute ``model``."""

    network: ClassVar[str] = "classification_tf1"

    eval_config: EvalConfig = section(EvalConfig)
    model: Model = section(Model, alias="model_config")
    train_config: Training = section(Training)
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
    inference: Inference = section(Inference)
