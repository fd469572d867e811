"""Image classification as the PyTorch trainer exports it: one image in, one row of raw logits out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.classification_pyt.spec import Spec
from nvidia_tao_deploy.data.folder import ClassFolder, ImageFolder, read_classes
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.images import batch_size, calibration_images
from nvidia_tao_deploy.metrics.topk import TopKMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.classification_writer import ClassificationWriter
from nvidia_tao_deploy.predictions.types import Classification
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry


def class_names(spec: Spec) -> list[str]:
    """Lines of ``<dataset.root_dir>/classes.txt`` in file order, else the sorted class folders; [] if neither is there."""
    root, images = spec.dataset.root_dir, spec.dataset.test_dataset.images_dir
    if root and (listed := Path(root) / "classes.txt").is_file():
        return read_classes(listed)
    if images and Path(images).is_dir():
        return sorted(entry.name for entry in os.scandir(images) if entry.is_dir())
    return []


def dataset(spec: Spec, action: str) -> Dataset:
    """The test images; their parent folders are their classes when evaluating."""
    images = spec.require("dataset.test_dataset.images_dir")
    if action == "evaluate":
        return ClassFolder(images, class_names(spec) or None, strict=spec.strict)
    return ImageFolder(images)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """The trainer's: bilinear straight to the input size, (x / 255 - mean) / std."""
    ports.image_size("input")
    augmentation = spec.dataset.augmentation
    return ImageTransform(
        resize="center_crop_bicubic" if spec.dataset.preprocess == "center_crop" else "stretch_bilinear",
        scale=1 / 255,
        mean=augmentation.mean,
        std=augmentation.std,
        input_name=ports.inputs["input"].name,
        backend=spec.runtime.image_backend,
    )


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Softmax of the logits.

    Raises:
        ModelError: the model's width is not the number of classes.
    """
    width, names = ports.outputs["output"].shape[1], class_names(spec)
    if action == "evaluate" and width is not None and names and width != len(names):
        raise ModelError(
            f"the model has {width} classes and the data names {len(names)}: {', '.join(names[:10])}",
            where=spec.where("dataset.root_dir"),
            remedy="Give the classes.txt of the training.",
        )

    def run(outputs: Mapping[str, NDArray[Any]], _geometries: Sequence[Geometry]) -> list[Classification]:
        logits = outputs["output"].astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [Classification(row) for row in odds / odds.sum(axis=1, keepdims=True)]

    return run


def metric(spec: Spec, data: Dataset) -> TopKMetric:
    """Top-k accuracy, k the first of ``model.head.topk``."""
    assert isinstance(data, ClassFolder)
    return TopKMetric(data.class_names, k=spec.model.head.topk[0] if spec.model.head.topk else 1)


def writer(spec: Spec, folder: Path, _data: Dataset, _ports: Ports) -> ClassificationWriter:
    """result.csv."""
    return ClassificationWriter(folder, class_names(spec))


NETWORK = Network(
    name="classification_pyt",
    spec=Spec,
    bind=expect(inputs=(Port("input", channels=(1, 3)),), outputs=(Port("output", rank=2),)),
    dataset=dataset,
    calibration=calibration_images,
    transform=transform,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size,
    labels=class_names,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
