"""What classification_tf1 reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from typing import Annotated, Literal

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.families.kitti_detection_spec import ImageMean
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.messages import Interpolation, empty_means
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


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

    resize_interpolation_method: Interpolation = field("BILINEAR", "How images are resized.")


class Training(Section):
    """How images were prepared in training."""

    preprocess_mode: Annotated[Literal["caffe", "torch", "tf"], empty_means("caffe")] = field(
        "caffe", "Arithmetic on grey levels; empty is caffe."
    )
    image_mean: ImageMean = field({}, "Mean of mode caffe by channel, on the scale 0..255: r, g and b, or l for grey.")


class Spec(NetworkSpec, network="classification_tf1", changes=PROTO_BUILD):
    """Spec of classification_tf1; ``model_config`` of the file is the attribute ``model``."""

    eval_config: EvalConfig = section(EvalConfig)
    model: Model = section(Model, alias="model_config")
    train_config: Training = section(Training)
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
    inference: Inference = section(Inference)
