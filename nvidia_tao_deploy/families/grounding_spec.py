"""The spec sections of prompted detectors: grounding_dino, mask_grounding_dino."""

from __future__ import annotations

from nvidia_tao_deploy.families import detr_spec
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import Section, StrList

BUILD = {"gen_trt_engine.tensorrt.workspace_size": 8192, "gen_trt_engine.tensorrt.max_batch_size": 4}


class InferenceData(Section):
    """Images without annotations, and what to look for."""

    image_dir: StrList = field([], "Folders of images, searched recursively. One or a list.")
    captions: StrList = field([], "Names of the classes to look for. One or a list.")


class Dataset(Section):
    """Images and labels."""

    test_data_sources: detr_spec.TestData = section(detr_spec.TestData, "Annotated images for evaluate.")
    infer_data_sources: InferenceData = section(InferenceData, "Images for inference, and what to look for.")
    batch_size: sections.BatchSize = field(4, "Images per batch where the action sets none.")
    eval_class_ids: sections.IntList | None = field(None, "Category ids to score; null is all.")
    augmentation: detr_spec.Augmentation = section(detr_spec.Augmentation, "Normalisation of images.")


class Model(detr_spec.Model):
    """Facts about the trained network."""

    text_encoder_type: str = field(
        "bert-base-uncased",
        "Tokenizer: a folder with tokenizer.json or vocab.txt, or a name found in the local Hugging Face "
        "cache. Nothing is downloaded.",
    )
    max_text_len: int = field(256, "Tokens of a caption; the model's own length counts.", ge=1)
