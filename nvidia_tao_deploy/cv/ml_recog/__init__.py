"""Recognition by metric learning: an image's embedding is compared with those of a gallery of known classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.ml_recog.gallery import GalleryAndQueries, GalleryClasses, NeighbourWriter, gallery_classes
from nvidia_tao_deploy.cv.ml_recog.spec import Spec
from nvidia_tao_deploy.data.folder import ClassFolder, ImageFolder
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.families.images import image_network, image_transform
from nvidia_tao_deploy.metrics.retrieval import RetrievalMetric
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.transforms.image import ImageTransform


def classes(spec: Spec) -> GalleryClasses:
    """The gallery's classes."""
    return gallery_classes(spec.require("dataset.val_dataset.reference"), spec.dataset.class_map)


def labels(spec: Spec) -> Sequence[str]:
    """Shown class names where they are known at build time."""
    reference, listed = spec.dataset.val_dataset.reference, spec.dataset.class_map
    if not reference or not Path(reference).is_dir() or (listed and not Path(listed).is_file()):
        return ()
    return gallery_classes(reference, listed).shown


def dataset(spec: Spec, action: str) -> GalleryAndQueries:
    """The gallery, then the annotated queries (evaluate) or the user's images (inference)."""
    reference = spec.require("dataset.val_dataset.reference")
    query = spec.require("dataset.val_dataset.query" if action == "evaluate" else "inference.input_path")
    names = classes(spec).folders
    if not names and Path(reference).is_dir():
        raise DataError(
            "the gallery has no class folder",
            where=spec.where("dataset.val_dataset.reference"),
            remedy=f"Put the gallery's images into {reference}/<class name>/.",
        )
    gallery = ClassFolder(reference, names, strict=spec.strict)
    topk = getattr(spec, action).topk
    if topk > len(gallery):
        raise SpecError(
            f"topk is {topk} and the gallery has {len(gallery)} images",
            where=spec.where(f"{action}.topk"),
            remedy="Lower topk, or add images.",
        )
    if action == "evaluate":
        return GalleryAndQueries(gallery, ClassFolder(query, names, strict=spec.strict))
    kind = spec.inference.inference_input_type
    if kind == "image" and not Path(query).is_file():
        raise DataError(
            "no such image file",
            where=spec.where("inference.input_path"),
            remedy="For a folder set inference.inference_input_type to image_folder or classification_folder.",
        )
    return GalleryAndQueries(gallery, ImageFolder(query, recursive=kind == "classification_folder"))


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Pillow bilinear to 1.14 times the input size, the centre cut out, (x / 255 - mean) / std."""
    width, height = ports.image_size("input")
    channels = ports.inputs["input"].shape[1]
    for key, size in (("input_width", width), ("input_height", height), ("input_channels", channels)):
        stated = getattr(spec.model, key)
        if key in spec.model.model_fields_set and stated != size:
            raise ModelError(
                f"the model's {key} is {size}, the spec says {stated}",
                where=spec.where(f"model.{key}"),
                remedy="Leave the key out, or name the model it belongs to.",
            )
    mean, std = spec.dataset.pixel_mean, spec.dataset.pixel_std
    return image_transform(spec, ports, "input", resize="enlarge_crop", scale=1 / 255, mean=mean, std=std)


def decode(_spec: Spec, _ports: Ports, _action: str) -> Decoder:
    """Embeddings (D,) float32, a copy each: a run keeps the whole gallery."""
    return lambda outputs, _geometries: [row.astype(np.float32) for row in outputs["fc_pred"]]


NETWORK = image_network(
    spec=Spec,
    bind=expect(inputs=(Port("input", channels=(1, 3)),), outputs=(Port("fc_pred", rank=2),)),
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=lambda spec, _data: RetrievalMetric(classes(spec).shown, spec.evaluate.topk),
    writer=lambda spec, folder, _data, _ports: NeighbourWriter(folder, classes(spec).shown, spec.inference.topk),
    labels=labels,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
