"""The spec sections of prompted detectors: grounding_dino, mask_grounding_dino."""

from __future__ import annotations

from pydantic import Field

from nvidia_tao_deploy.families import detr_spec
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import Section, StrList


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    workspace_size: int = Field(default=8192, ge=0, description="Builder workspace in MiB; 0 is TensorRT's default.")
    max_batch_size: int = Field(default=4, ge=1, description="Largest batch of the profile.")


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")


class InferenceData(Section):
    """Images without annotations, and what to look for."""

    image_dir: StrList = Field(default=[], description="Folders of images, searched recursively. One or a list.")
    captions: StrList = Field(default=[], description="Names of the classes to look for. One or a list.")


class Dataset(Section):
    """Images and labels."""

    test_data_sources: detr_spec.TestData = Field(
        default_factory=detr_spec.TestData, description="Annotated images for evaluate."
    )
    infer_data_sources: InferenceData = Field(
        default_factory=InferenceData, description="Images for inference, and what to look for."
    )
    batch_size: sections.BatchSize = Field(default=4, description="Images per batch where the action sets none.")
    eval_class_ids: sections.IntList | None = Field(default=None, description="Category ids to score; null is all.")
    augmentation: detr_spec.Augmentation = Field(
        default_factory=detr_spec.Augmentation, description="Normalisation of images."
    )


class Model(detr_spec.Model):
    """Facts about the trained network."""

    text_encoder_type: str = Field(
        default="bert-base-uncased",
        description="Tokenizer: a folder with tokenizer.json or vocab.txt, or a name found in the local Hugging Face "
        "cache. Nothing is downloaded.",
    )
    max_text_len: int = Field(default=256, ge=1, description="Tokens of a caption; the model's own length counts.")
