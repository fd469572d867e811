"""Spec sections of models with a picture tower and a text tower: clip, video_clip."""

from __future__ import annotations

from pydantic import Field

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    max_batch_size: int = Field(default=16, ge=1, description="Largest batch of the profile.")


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")


class Model(Section):
    """The trained network; where a ``*_config.yaml`` stands beside it, that decides over type and canonicalize_text."""

    type: str = Field(default="siglip2-so400m-patch16-256", description="Kind of network: chooses the preprocessing.")
    canonicalize_text: bool = Field(
        default=False, description="Texts lose case, punctuation and repeated blanks before they are tokenized."
    )
    tokenizer: str | None = Field(
        default=None,
        description="Tokenizer folder or tokenizer.json; null: the *_tokenizer folder beside the model.",
    )


class ImageTextSpec(NetworkSpec):
    """What both networks share."""

    model: Model = Field(default_factory=Model, description="The trained network.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
