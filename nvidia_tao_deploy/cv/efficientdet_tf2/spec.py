"""What efficientdet_tf2 reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families.build_spec import TF2_WORKSPACE, Tf2GenTrtEngine
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    batch_size: sections.BatchSize = Field(default=8, description="Images per batch.")
    num_samples: int = Field(default=5000, ge=0, description="Evaluate the first images only; 0 is all.")
    max_detections_per_image: int = Field(default=100, ge=1, description="Detections kept per image, in every action.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = Field(default=[], description="Folders of images, searched recursively, or one image.")
    batch_size: sections.BatchSize = Field(default=1, description="Images per batch.")
    min_score_thresh: float = Field(default=0.3, ge=0, le=1, description="Detections below this score are left out.")
    label_map: str = Field(
        default="",
        description="Names of classes: a YAML file of id: name, a text file whose line i (from 0) names class i + 1, "
        "or coco, voc, waymo. Empty: classes are numbers.",
    )


class Dataset(Section):
    """Images and labels."""

    num_classes: int = Field(default=0, ge=0, description="Classes of the model; 0 is the model's own number.")
    val_json_file: str = Field(default="", description="COCO annotation file of evaluate.")
    val_dirs: StrList = Field(default=[], description="Folders that its file names are relative to, tried in order.")


class Spec(NetworkSpec):
    """Spec of efficientdet_tf2."""

    network: ClassVar[str] = "efficientdet_tf2"
    drift = (TF2_WORKSPACE,)

    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    gen_trt_engine: Tf2GenTrtEngine = Field(
        default_factory=Tf2GenTrtEngine, description="ONNX file in, engine file out."
    )
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
