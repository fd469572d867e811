"""Spec sections of models with a picture tower and a text tower: clip, video_clip."""

from __future__ import annotations

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    max_batch_size: int = field(16, "Largest batch of the profile.", ge=1)


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = section(TensorRT)


class Model(Section):
    """The trained network; where a ``*_config.yaml`` stands beside it, that decides over type and canonicalize_text."""

    type: str = field("siglip2-so400m-patch16-256", "Kind of network: chooses the preprocessing.")
    canonicalize_text: bool = field(
        False, "Texts lose case, punctuation and repeated blanks before they are tokenized."
    )
    tokenizer: str | None = field(
        None, "Tokenizer folder or tokenizer.json; null: the *_tokenizer folder beside the model."
    )


class ImageTextSpec(NetworkSpec):
    """What both networks share."""

    model: Model = section(Model, "The trained network.")
    gen_trt_engine: GenTrtEngine = section(GenTrtEngine)
