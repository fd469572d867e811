"""Spec sections of models with a picture tower and a text tower: clip, video_clip."""

from __future__ import annotations

from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class Model(Section):
    """The trained network; where a ``*_config.yaml`` stands beside it, that decides over type and canonicalize_text."""

    type: str = field("siglip2-so400m-patch16-256", "Kind of network: chooses the preprocessing.")
    canonicalize_text: bool = field(
        False, "Texts lose case, punctuation and repeated blanks before they are tokenized."
    )
    tokenizer: str | None = field(
        None, "Tokenizer folder or tokenizer.json; null: the *_tokenizer folder beside the model."
    )


class ImageTextSpec(NetworkSpec, changes={"gen_trt_engine.tensorrt.max_batch_size": 16}):
    """What both networks share."""

    model: Model = section(Model, "The trained network.")
