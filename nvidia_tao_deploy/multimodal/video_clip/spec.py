"""What video_clip reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from nvidia_tao_deploy.families import image_text_spec as family
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, Section

# Norms of the video encoder whose squares are beyond 16 bits; globs on node names.
SENSITIVE = tuple(
    f"/model/vision_encoder/blocks.*/{norm}/*/{kind}" for norm in ("norm1", "norm2") for kind in ("Pow", "ReduceMean")
)


class TensorRT(family.TensorRT):
    """How the engine is built."""

    @model_validator(mode="after")
    def _sensitive_layers(self) -> TensorRT:
        """Sensitive parts of a 16-bit build stay in fp32; what the user asks for comes first."""
        if self.data_type != "fp32":
            wanted = [*self.layers_precision, *(f"{glob}:fp32" for glob in SENSITIVE)]
            # Through __dict__: an adapted default must not count as set by the user.
            self.__dict__["layers_precision"] = list(dict.fromkeys(wanted))
        return self


class GenTrtEngine(family.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: TensorRT = section(TensorRT)


class Val(Section):
    """The gallery and its queries."""

    gt_queries: str | None = sections.mandatory("JSON of the gallery's clip ids and of queries with relevant ids.")
    metadata: str | None = sections.mandatory("JSON of videos: paths, and the clips in them.")
    video_root: str | None = field(None, "Folder of relative video paths.")
    path_prefix_mapping: dict[str, str] = field({}, "Beginnings of video paths to be replaced.")


class Dataset(Section):
    """Videos and queries."""

    val: Val = section(Val)


class Evaluate(sections.Evaluate):
    """Measure how queries find clips."""

    batch_size: BatchSize = field(8, "Clips or queries per batch.")


class Inference(sections.Inference):
    """Write embeddings of clips and texts."""

    batch_size: BatchSize = field(8, "Clips or texts per batch.")
    text_file: str | None = field(None, "Texts, one per line.")
    top_k: int = field(5, "Best matches written of each clip and text; 0: none.", ge=0)


class Spec(family.ImageTextSpec):
    """Spec of video_clip."""

    network: ClassVar[str] = "video_clip"

    dataset: Dataset = section(Dataset)
    gen_trt_engine: GenTrtEngine = section(GenTrtEngine)
    evaluate: Evaluate = section(Evaluate, "Measure a model on annotated data.")
    inference: Inference = section(Inference, "Run a model on clips and texts.")
