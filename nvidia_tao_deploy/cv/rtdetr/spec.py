"""What rtdetr reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    max_batch_size: int = Field(default=4, ge=1, description="Largest batch of the profile.")


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")


class Inference(sections.Inference):
    """Run a model on images."""

    conf_threshold: float = Field(default=0.5, ge=0, le=1, description="Detections below this score are left out.")
    color_map: dict[str, str] | None = Field(
        default=None, description="Colour by class name; classes without one are not drawn. null draws all."
    )


class TestData(Section):
    """Annotated images."""

    image_dir: str | None = Field(default=None, description="Folder that the annotation file's names are relative to.")
    json_file: str | None = Field(default=None, description="COCO annotation file.")


class InferenceData(Section):
    """Images without annotations."""

    image_dir: StrList = Field(default=[], description="Folders of images, searched recursively. One or a list.")
    classmap: str | None = Field(
        default=None, description="Text file with one class name per line; line i names channel i."
    )


class Augmentation(Section):
    """Preparation of images."""

    preserve_aspect_ratio: bool = Field(
        default=False, description="Resize the longest side and pad right and below instead of stretching."
    )
    eval_spatial_size: list[Annotated[int, Field(ge=1)]] = Field(
        default=[640, 640], min_length=2, max_length=2, description="Height and width; the engine's own size counts."
    )


class Dataset(Section):
    """Images and labels."""

    test_data_sources: TestData = Field(default_factory=TestData, description="Annotated images for evaluate.")
    infer_data_sources: InferenceData = Field(default_factory=InferenceData, description="Images for inference.")
    batch_size: sections.BatchSize = Field(default=4, description="Images per batch where the action sets none.")
    remap_mscoco_category: bool = Field(
        default=False, description="Channel j is the j-th of the 80 COCO categories; else channel j is category id j."
    )
    eval_class_ids: sections.IntList | None = Field(default=None, description="Category ids to score; null is all.")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="Preparation of images.")


class Model(Section):
    """Facts about the trained network."""

    backbone: str = Field(default="resnet_50", description="Backbone; ViT-L needs a larger workspace.")
    num_select: int = Field(default=300, ge=1, le=1000, description="Detections kept per image in evaluate.")


class Spec(NetworkSpec):
    """Spec of rtdetr."""

    network: ClassVar[str] = "rtdetr"

    model: Model = Field(default_factory=Model, description="Facts about the trained network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
