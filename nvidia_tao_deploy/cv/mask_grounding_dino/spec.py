"""What mask_grounding_dino reads from its spec."""

from __future__ import annotations

from typing import Literal

from nvidia_tao_deploy.families import detr_spec, grounding_spec
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, StrList

Task = Literal["OD", "VG"]
TASK = "OD: find classes by name; VG: find what an expression describes."
TEXT = "Tokens above this probability make up the phrase of a detection (VG)."
NMS = "Overlap above which the weaker of two boxes is dropped (VG); 0 keeps all."
INSIDE = "Share of a mask that must lie in the model's union mask (VG)."


class TestData(detr_spec.TestData):
    """Annotated images."""

    data_type: Task = field("OD", TASK)
    json_file: str | None = field(None, "COCO annotation file; for VG also .jsonl, one expression per line.")


class InferenceData(grounding_spec.InferenceData):
    """Images without annotations, and what to look for."""

    data_type: Task = field("OD", TASK)
    captions: StrList = field(
        [], "OD: names of the classes to look for. VG: a JSON-lines file of image_path and expression."
    )


class Dataset(grounding_spec.Dataset):
    """Images and labels."""

    test_data_sources: TestData = section(TestData, "Annotated images for evaluate.")
    infer_data_sources: InferenceData = section(InferenceData, "Images for inference, and what to look for.")


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    conf_threshold: float = field(0.0, "Detections below this score are left out (VG).", ge=0, le=1)
    nms_threshold: float = field(0.2, NMS, ge=0, le=1)
    text_threshold: float = field(0.3, TEXT, ge=0, le=1)
    ioi_threshold: float = field(0.5, INSIDE, ge=0, le=1)


class Inference(detr_spec.Inference):
    """Run a model on images."""

    nms_threshold: float = field(0.2, NMS, ge=0, le=1)
    text_threshold: float = field(0.3, TEXT, ge=0, le=1)
    ioi_threshold: float = field(0.5, INSIDE, ge=0, le=1)


class Spec(NetworkSpec, network="mask_grounding_dino", changes=grounding_spec.BUILD):
    """Spec of mask_grounding_dino."""

    model: grounding_spec.Model = section(grounding_spec.Model)
    dataset: Dataset = section(Dataset)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
