"""Image classification as the TensorFlow 1 trainer exports it: one image in, one row of probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.classification_tf1.spec import Spec
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.families.images import calibration_images
from nvidia_tao_deploy.metrics.topk import TopKMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports
from nvidia_tao_deploy.predictions.classification_writer import ClassificationWriter
from nvidia_tao_deploy.transforms.image import ImageTransform


def image_dir(spec: Spec, action: str) -> str:
    """``<action>.image_dir``; for evaluate else ``eval_config.eval_dataset_path``.

    Raises:
        SpecError: no folder is named.
    """
    if action == "evaluate":
        return spec.evaluate.image_dir or str(spec.require("eval_config.eval_dataset_path"))
    return str(spec.require("inference.image_dir"))


def classes(spec: Spec, action: str) -> family.ClassNames:
    """The class map, else the sub-folders of the images."""
    given = (action == "inference" and spec.inference.class_map) or spec.evaluate.class_map
    return family.known_classes(given, image_dir(spec, action), f"{action}.class_map")


def labels(spec: Spec) -> Sequence[str]:
    """Class names where they are known at build time."""
    folder = spec.evaluate.image_dir or spec.eval_config.eval_dataset_path
    return family.labels(spec.evaluate.class_map or spec.inference.class_map, folder)


def dataset(spec: Spec, action: str) -> Dataset:
    """The images; their parent folders are their classes when evaluating."""
    return family.dataset(image_dir(spec, action), classes(spec, action), action, strict=spec.strict)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Resized and normalized as ``train_config`` says, with the mean in the order b, g, r."""
    mean = spec.train_config.image_mean
    return family.mode_transform(
        ports,
        "input_1",
        mode=spec.train_config.preprocess_mode,
        mean_bgr=[mean[channel] for channel in "bgr" if channel in mean],
        mean_grey=[mean["l"]] if "l" in mean else (),
        bicubic=spec.model.resize_interpolation_method == "BICUBIC",
        center_crop=spec.eval_config.enable_center_crop,
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
    """Top-k accuracy, k from ``eval_config.top_k``."""
    return family.metric(data, spec.eval_config.top_k or 5)


def writer(spec: Spec, folder: Path, _data: Dataset, ports: Ports) -> ClassificationWriter:
    """result.csv."""
    return family.writer(folder, classes(spec, "inference"), ports.outputs["predictions"].shape[1])


def batch_size(spec: Spec, action: str) -> int:
    """``<action>.batch_size`` if it is positive, else ``eval_config.batch_size``, else 1."""
    return max(getattr(spec, action).batch_size, 0) or spec.eval_config.batch_size or 1


NETWORK = Network(
    name="classification_tf1",
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
