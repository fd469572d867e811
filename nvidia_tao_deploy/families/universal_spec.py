"""Spec sections of universal segmentation: mask2former, oneformer."""

from __future__ import annotations

from pydantic import model_validator

from nvidia_tao_deploy.families.build_spec import FloatPrecision, FloatTensorRT
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section

# Parts whose sums and softmax 16 bits spoil; globs on node names.
SENSITIVE = (
    "*/sem_seg_head/predictor/transformer_cross_attention_layers*",
    "*/post_processor/Div*",
    "*/post_processor/ReduceSum*",
    "*/post_processor/Add*",
)


class TensorRT(FloatTensorRT):
    """How the engine is built."""

    @model_validator(mode="after")
    def _sensitive_layers(self) -> TensorRT:
        """Sensitive parts of a 16-bit build stay in fp32; what the user asks for comes first."""
        if self.data_type != "fp32":
            wanted = [*self.layers_precision, *(f"{glob}:fp32" for glob in SENSITIVE)]
            # Through __dict__: an adapted default must not count as set by the user.
            self.__dict__["layers_precision"] = list(dict.fromkeys(wanted))
        return self


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = section(TensorRT)


class HalfTensorRT(TensorRT):
    """How the engine is built; fp16 unless told."""

    data_type: FloatPrecision = field("fp16", "Precision of the engine, in any case.")


class HalfGenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: HalfTensorRT = section(HalfTensorRT, "How the engine is built.")


class Limits(sections.Section):
    """What becomes an object or segment."""

    object_mask_threshold: float = field(0.4, "Least score of an object or segment.", ge=0, le=1)
    overlap_threshold: float = field(
        0.5, "Least share of a segment's mask that others do not cover (panoptic).", ge=0, le=1
    )
