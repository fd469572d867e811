"""What rtdetr reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nvidia_tao_deploy.families import detr_spec
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import Section


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    max_batch_size: int = Field(default=4, ge=1, description="Largest batch of the profile.")


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")


class Augmentation(Section):
    """Preparation of images."""

    preserve_aspect_ratio: bool = Field(
        default=False, description="Resize the longest side and pad right and below instead of stretching."
    )
    eval_spatial_size: list[Annotated[int, Field(ge=1)]] = Field(
        default=[640, 640], min_length=2, max_length=2, description="Height and width; the engine's own size counts."
    )


class Dataset(detr_spec.Dataset):
    """Images and labels."""

    remap_mscoco_category: bool = Field(
        default=False, description="Channel j is the j-th of the 80 COCO categories; else channel j is category id j."
    )
    augmentation: Augmentation = Field(default_factory=Augmentation, description="Preparation of images.")


class Spec(detr_spec.LargeBackboneSpec):
    """Spec of rtdetr."""

    network: ClassVar[str] = "rtdetr"

    model: detr_spec.BackboneModel = Field(
        default_factory=detr_spec.BackboneModel, description="Facts about the trained network."
    )
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    inference: detr_spec.Inference = Field(default_factory=detr_spec.Inference, description="Run a model on images.")
