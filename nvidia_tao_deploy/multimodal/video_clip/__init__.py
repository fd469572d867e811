"""video_clip: clips and texts as vectors of one space; texts find clips."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families import image_text as family
from nvidia_tao_deploy.multimodal.video_clip.gallery import ClipMetric, Gallery
from nvidia_tao_deploy.multimodal.video_clip.spec import Spec
from nvidia_tao_deploy.network import Port, Ports
from nvidia_tao_deploy.predictions.embeddings import EmbeddingWriter
from nvidia_tao_deploy.transforms.towers import TowerTransform
from nvidia_tao_deploy.transforms.video import VideoTransform


def has_gallery(spec: Spec) -> bool:
    """The spec names one; ??? counts as unset."""
    return spec.dataset.val.gt_queries is not None and spec.dataset.val.metadata is not None


def gallery(spec: Spec, *, with_queries: bool) -> Gallery:
    """The clips of ``dataset.val``."""
    files = spec.require("dataset.val.gt_queries"), spec.require("dataset.val.metadata")
    val = spec.dataset.val
    return Gallery(*files, val.video_root, val.path_prefix_mapping, with_queries=with_queries)


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: the gallery and its queries; inference: the gallery, then the texts."""
    if action == "evaluate":
        return gallery(spec, with_queries=True)
    parts: list[Dataset] = [gallery(spec, with_queries=False)] if has_gallery(spec) else []
    return family.with_texts(
        spec, parts, "Set dataset.val.gt_queries and metadata, inference.text_file, or all of them."
    )


sides = family.sides_of(has_gallery)


def transform(spec: Spec, ports: Ports) -> TowerTransform:
    """Frames spread over the clip, stretched, ImageNet's constants; texts by the model's tokenizer.

    Raises:
        ModelError: frames or sides have no fixed size.
    """
    visual, video = None, ports.inputs.get("video")
    if video is not None:
        if None in video.shape[1:] or video.shape[2] != 3:
            raise ModelError(f"input {video} is no batch of RGB clips (frames, 3, height, width) of fixed size")
        visual = VideoTransform(video.name)
    known = family.trained_as(spec, ports.source)
    return family.transform(spec, ports, visual, known[1] if known else spec.model.canonicalize_text)


NETWORK = family.towers(
    Spec,
    visual=Port("video", rank=5),
    sides=sides,
    calibration=lambda spec: gallery(spec, with_queries=False),
    transform=transform,
    dataset=dataset,
    metric=lambda _spec, _data: ClipMetric(),
    writer=lambda spec, folder, _data, _ports: EmbeddingWriter(folder, "video", "chunk_ids", spec.inference.top_k),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
