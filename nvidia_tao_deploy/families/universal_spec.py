"""Spec sections of universal segmentation: mask2former, oneformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nvidia_tao_deploy.families.build_spec import FloatTensorRT, SensitiveTensorRT
from nvidia_tao_deploy.spec.fields import field
from nvidia_tao_deploy.spec.sections import Section

# Parts whose sums and softmax 16 bits spoil; globs on node names.
SENSITIVE = (
    "*/sem_seg_head/predictor/transformer_cross_attention_layers*",
    "*/post_processor/Div*",
    "*/post_processor/ReduceSum*",
    "*/post_processor/Add*",
)


class TensorRT(FloatTensorRT, SensitiveTensorRT):
    """How the engine is built."""

    sensitive: ClassVar[Sequence[str]] = SENSITIVE


BUILD = {"gen_trt_engine.tensorrt": TensorRT}
HALF_BUILD = {**BUILD, "gen_trt_engine.tensorrt.data_type": field("fp16", "Precision of the engine, in any case.")}
"""fp16 unless told."""


class Limits(Section):
    """What becomes an object or segment."""

    object_mask_threshold: float = field(0.4, "Least score of an object or segment.", ge=0, le=1)
    overlap_threshold: float = field(
        0.5, "Least share of a segment's mask that others do not cover (panoptic).", ge=0, le=1
    )
