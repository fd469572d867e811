"""What mask_grounding_dino reads from its spec."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from nvidia_tao_deploy.families import detr_spec, grounding_spec
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, StrList

Task = Literal["OD", "VG"]
TASK = "OD: find classes by name; VG: find what an expression describes."
TEXT = "Tokens above this probability make up the phrase of a detection (VG)."
NMS = "Overlap above which the weaker of two boxes is dropped (VG); 0 keeps all."
INSIDE = "Share of a mask that must lie in the model's union mask (VG)."


class TestData(detr_spec.TestData):
    """Annotated images."""

    data_type: Task = Field(default="OD", description=TASK)
    json_file: str | None = Field(
        default=None, description="COCO annotation file; for VG also .jsonl, one expression per line."
    )


class InferenceData(grounding_spec.InferenceData):
    """Images without annotations, and what to look for."""

    data_type: Task = Field(default="OD", description=TASK)
    captions: StrList = Field(
        default=[],
        description="OD: names of the classes to look for. VG: a JSON-lines file of image_path and expression.",
    )


class Dataset(grounding_spec.Dataset):
    """Images and labels."""

    test_data_sources: TestData = Field(default_factory=TestData, description="Annotated images for evaluate.")
    infer_data_sources: InferenceData = Field(
        default_factory=InferenceData, description="Images for inference, and what to look for."
    )


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    conf_threshold: float = Field(default=0.0, ge=0, le=1, description="Detections below this score are left out (VG).")
    nms_threshold: float = Field(default=0.2, ge=0, le=1, description=NMS)
    text_threshold: float = Field(default=0.3, ge=0, le=1, description=TEXT)
    ioi_threshold: float = Field(default=0.5, ge=0, le=1, description=INSIDE)


class Inference(detr_spec.Inference):
    """Run a model on images."""

    nms_threshold: float = Field(default=0.2, ge=0, le=1, description=NMS)
    text_threshold: float = Field(default=0.3, ge=0, le=1, description=TEXT)
    ioi_threshold: float = Field(default=0.5, ge=0, le=1, description=INSIDE)


class Spec(NetworkSpec):
    """Spec of mask_grounding_dino."""

    network: ClassVar[str] = "mask_grounding_dino"

    model: grounding_spec.Model = Field(
        default_factory=grounding_spec.Model, description="Facts about the trained network."
    )
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    gen_trt_engine: grounding_spec.GenTrtEngine = Field(
        default_factory=grounding_spec.GenTrtEngine, description="ONNX file in, engine file out."
    )
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
