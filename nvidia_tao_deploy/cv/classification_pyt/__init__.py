"""Image classification as the PyTorch trainer exports it: one image in, one row of raw logits out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.classification_pyt.spec import Spec
from nvidia_tao_deploy.data.folder import read_classes
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.families.images import batch_size, calibration_images
from nvidia_tao_deploy.metrics.topk import TopKMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.classification_writer import ClassificationWriter
from nvidia_tao_deploy.transforms.image import ImageTransform

REMEDY = "Give the classes.txt of the training in dataset.root_dir."


def classes(spec: Spec) -> family.ClassNames:
    """Lines of ``<dataset.root_dir>/classes.txt`` in file order, else the sorted class folders."""
    root = spec.dataset.root_dir
    if root and (listed := Path(root) / "classes.txt").is_file():
        return family.ClassNames(read_classes(listed), str(listed), REMEDY)
    return family.folder_classes(spec.dataset.test_dataset.images_dir, REMEDY)


def labels(spec: Spec) -> Sequence[str]:
    """Class names where they are known at build time."""
    return classes(spec).names


def dataset(spec: Spec, action: str) -> Dataset:
    """The test images; their parent folders are their classes when evaluating."""
    images = spec.require("dataset.test_dataset.images_dir")
    return family.dataset(images, classes(spec), action, strict=spec.strict)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """The trainer's: bilinear straight to the input size, (x / 255 - mean) / std."""
    ports.image_size("input")
    augmentation = spec.dataset.augmentation
    return family.rgb_transform(
        ports,
        "input",
        augmentation.mean,
        augmentation.std,
        center_crop=spec.dataset.preprocess == "center_crop",
        backend=spec.runtime.image_backend,
    )


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Softmax of the logits.

    Raises:
        ModelError: evaluate, and the model's width is not the number of classes.
    """
    if action == "evaluate":
        classes(spec).check_width(ports.outputs["output"].shape[1])
    return lambda outputs, _geometries: family.softmax(outputs["output"])


def metric(spec: Spec, data: Dataset) -> TopKMetric:
    """Top-k accuracy, k the first of ``model.head.topk``."""
    return family.metric(data, spec.model.head.topk[0])


def writer(spec: Spec, folder: Path, _data: Dataset, ports: Ports) -> ClassificationWriter:
    """result.csv."""
    return family.writer(folder, classes(spec), ports.outputs["output"].shape[1])


NETWORK = Network(
    name="classification_pyt",
    spec=Spec,
    bind=expect(inputs=(Port("input", channels=(1, 3)),), outputs=(Port("output", rank=2),)),
    calibration=calibration_images,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size,
    labels=labels,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
