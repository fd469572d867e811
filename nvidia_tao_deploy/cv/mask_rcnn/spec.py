"""What mask_rcnn reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.flags import THRESHOLDS
from nvidia_tao_deploy.spec.sections import NetworkSpec, ProtoTensorRT, Section, StrList


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: ProtoTensorRT = Field(default_factory=ProtoTensorRT, description="How the engine is built.")


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = Field(
        default=[], description="Folders that the annotation file's names are relative to; else its own folder."
    )
    batch_size: sections.BatchSize = Field(default=-1, description="Images per batch; -1: eval_batch_size, else 1.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = Field(default=[], description="Folders of images, searched recursively, or one image.")
    class_map: str | None = Field(default=None, description="Text file, line i (from 0) names class i + 1.")
    threshold: float = Field(
        default=THRESHOLDS["mask_rcnn"], ge=0, le=1, description="Detections below this score are left out."
    )
    include_mask: bool = Field(default=True, description="Accepted and without effect: masks are always drawn.")
    batch_size: sections.BatchSize = Field(default=-1, description="Images per batch; -1: eval_batch_size, else 1.")


class MaskRcnnConfig(Section):
    """Facts about the trained network."""

    mrcnn_resolution: int = Field(default=0, ge=0, description="Cells of a mask's side; the model's own count.")
    test_detections_per_image: int = Field(default=0, ge=0, description="Detections; the model's own number counts.")


class DataConfig(Section):
    """Annotations."""

    val_json_file: str = Field(default="", description="COCO annotation file of evaluate, with segmentations.")
    eval_samples: int = Field(default=0, ge=0, description="Evaluate the first images only; 0 is all.")
    num_classes: int = Field(default=0, ge=0, description="Classes with the background; 0 is the model's own number.")


class Spec(NetworkSpec):
    """Spec of mask_rcnn."""

    network: ClassVar[str] = "mask_rcnn"

    maskrcnn_config: MaskRcnnConfig = Field(
        default_factory=MaskRcnnConfig, description="Facts about the trained network."
    )
    data_config: DataConfig = Field(default_factory=DataConfig, description="Annotations.")
    eval_batch_size: int = Field(default=0, ge=0, description="Images per batch where the action sets none.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
