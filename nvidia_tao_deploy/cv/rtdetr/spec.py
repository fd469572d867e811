"""What rtdetr reads from its spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nvidia_tao_deploy.families import detr_spec
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import Section


class Augmentation(Section):
    """Preparation of images."""

    preserve_aspect_ratio: bool = field(False, "Resize the longest side and pad right and below instead of stretching.")
    eval_spatial_size: list[Annotated[int, Field(ge=1)]] = field(
        [640, 640], "Height and width; the engine's own size counts.", min_length=2, max_length=2
    )


class Dataset(detr_spec.Dataset):
    """Images and labels."""

    remap_mscoco_category: bool = field(
        False, "Channel j is the j-th of the 80 COCO categories; else channel j is category id j."
    )
    augmentation: Augmentation = section(Augmentation)


class Spec(detr_spec.LargeBackboneSpec, network="rtdetr", changes={"gen_trt_engine.tensorrt.max_batch_size": 4}):
    """Spec of rtdetr."""

    model: detr_spec.BackboneModel = section(detr_spec.BackboneModel)
    dataset: Dataset = section(Dataset)
    inference: detr_spec.Inference = section(detr_spec.Inference)
