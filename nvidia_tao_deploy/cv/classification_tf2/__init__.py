"""Image classification as the TensorFlow 2 trainer exports it: one image in, one row of probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.classification_tf2.spec import Spec
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.families.images import calibration_images
from nvidia_tao_deploy.metrics.topk import TopKMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports
from nvidia_tao_deploy.predictions.classification_writer import ClassificationWriter
from nvidia_tao_deploy.transforms.image import ImageTransform


def classes(spec: Spec, action: str) -> family.ClassNames:
    """The class map, else the sub-folders of ``evaluate.dataset_path``."""
    given = (action == "inference" and spec.inference.classmap) or spec.evaluate.classmap
    return family.known_classes(given, spec.evaluate.dataset_path, f"{action}.classmap")


def labels(spec: Spec) -> Sequence[str]:
    """Class names where they are known at build time."""
    return family.labels(spec.evaluate.classmap or spec.inference.classmap, spec.evaluate.dataset_path)


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: ``evaluate.dataset_path`` by class folder; inference: ``inference.image_dir``."""
    images = spec.require("evaluate.dataset_path" if action == "evaluate" else "inference.image_dir")
    return family.dataset(images, classes(spec, action), action, strict=spec.strict)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Resized and normalized as ``dataset`` and ``model`` say."""
    mean = spec.dataset.image_mean
    return family.mode_transform(
        ports,
        "input_1",
        mode=spec.dataset.preprocess_mode,
        mean_bgr=mean * 3 if len(mean) == 1 else mean,
        mean_grey=mean if len(mean) == 1 else (),
        depth=spec.model.input_image_depth,
        bicubic=spec.model.resize_interpolation_method == "bicubic",
        center_crop=spec.dataset.augmentation.enable_center_crop,
        layout="NHWC" if spec.data_format == "channels_last" else "NCHW",
        backend=spec.runtime.image_backend,
    )


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """The model's probabilities.

    Raises:
        ModelError: evaluate, and the model's width is not the number of classes.
    """
    if action == "evaluate":
        classes(spec, action).check_width(ports.outputs["predictions"].shape[1])
    return lambda outputs, _geometries: family.probabilities(outputs["predictions"])


def metric(spec: Spec, data: Dataset) -> TopKMetric:
    """Top-k accuracy, k from ``evaluate.top_k``."""
    return family.metric(data, spec.evaluate.top_k)


def writer(spec: Spec, folder: Path, _data: Dataset, ports: Ports) -> ClassificationWriter:
    """result.csv."""
    return family.writer(folder, classes(spec, "inference"), ports.outputs["predictions"].shape[1])


def batch_size(spec: Spec, action: str) -> int:
    """``<action>.batch_size`` if it is positive, else ``evaluate.batch_size``, else 1."""
    return max(getattr(spec, action).batch_size, 0) or max(spec.evaluate.batch_size, 1)


NETWORK = Network(
    name="classification_tf2",
    spec=Spec,
    bind=partial(family.bind_image, role="input_1", scores=(Port("predictions", rank=2),)),
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
