"""What video_clip reads from its spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nvidia_tao_deploy.families.build_spec import SensitiveTensorRT
from nvidia_tao_deploy.families.image_text_spec import ImageTextSpec
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, Section

# Norms of the video encoder whose squares are beyond 16 bits; globs on node names.
SENSITIVE = tuple(
    f"/model/vision_encoder/blocks.*/{norm}/*/{kind}" for norm in ("norm1", "norm2") for kind in ("Pow", "ReduceMean")
)


class TensorRT(SensitiveTensorRT):
    """How the engine is built."""

    sensitive: ClassVar[Sequence[str]] = SENSITIVE
    max_batch_size: int = field(16, "Largest batch of the profile.", ge=1)


class Val(Section):
    """The gallery and its queries."""

    gt_queries: str | None = sections.mandatory("JSON of the gallery's clip ids and of queries with relevant ids.")
    metadata: str | None = sections.mandatory("JSON of videos: paths, and the clips in them.")
    video_root: str | None = field(None, "Folder of relative video paths.")
    path_prefix_mapping: dict[str, str] = field({}, "Beginnings of video paths to be replaced.")


class Dataset(Section):
    """Videos and queries."""

    val: Val = section(Val)


class Inference(sections.Inference):
    """Write embeddings of clips and texts."""

    batch_size: BatchSize = field(8, "Clips or texts per batch.")
    text_file: str | None = field(None, "Texts, one per line.")
    top_k: int = field(5, "Best matches written of each clip and text; 0: none.", ge=0)


CHANGES = {
    "gen_trt_engine.tensorrt": TensorRT,
    "evaluate.batch_size": field(8, "Clips or queries per batch."),
    "model.type": "internvideo2-clip-l14",
}


class Spec(ImageTextSpec, network="video_clip", changes=CHANGES):
    """Spec of video_clip."""

    dataset: Dataset = section(Dataset)
    inference: Inference = section(Inference, "Run a model on clips and texts.")
