"""What efficientdet_tf1 reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families.build_spec import ProtoGenTrtEngine
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.flags import THRESHOLDS
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = Field(default=[], description="Folders that the annotation file's names are relative to.")
    batch_size: sections.BatchSize = Field(
        default=-1, description="Images per batch; -1 takes eval_config.eval_batch_size, else 1."
    )


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = Field(default=[], description="Folders of images, searched recursively, or one image.")
    class_map: str | None = Field(
        default=None, description="Text file, line i (from 0) names class i + 1; without it classes are numbers."
    )
    threshold: float = Field(
        default=THRESHOLDS["efficientdet_tf1"], ge=0, le=1, description="Detections below this score are left out."
    )
    batch_size: sections.BatchSize = Field(
        default=-1, description="Images per batch; -1 takes eval_config.eval_batch_size, else 1."
    )


class DatasetConfig(Section):
    """Annotations."""

    num_classes: int = Field(default=0, ge=0, description="Classes of the model; 0 is the model's own number.")
    validation_json_file: str = Field(default="", description="COCO annotation file of evaluate.")


class EvalConfig(Section):
    """How the model is measured."""

    eval_batch_size: int = Field(default=0, ge=0, description="Images per batch where the action sets none.")
    eval_samples: int = Field(default=0, ge=0, description="Evaluate the first images only; 0 is all.")
    max_detections_per_image: int = Field(default=0, ge=0, description="Detections kept per image; 0 means 100.")


class Spec(NetworkSpec):
    """Spec of efficientdet_tf1."""

    network: ClassVar[str] = "efficientdet_tf1"

    dataset_config: DatasetConfig = Field(default_factory=DatasetConfig, description="Annotations.")
    eval_config: EvalConfig = Field(default_factory=EvalConfig, description="How the model is measured.")
    gen_trt_engine: ProtoGenTrtEngine = Field(
        default_factory=ProtoGenTrtEngine, description="ONNX file in, engine file out."
    )
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
