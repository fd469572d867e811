"""Image classification as the TensorFlow 1 trainer exports it: one image in, one row of probabilities out."""

from __future__ import annotations

from functools import partial

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.classification_tf1.spec import Spec
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.families.images import batch_size_or
from nvidia_tao_deploy.network import Port, Ports
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


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Resized and normalized as ``train_config`` says, with the mean in the order b, g, r."""
    mean = spec.train_config.image_mean
    return family.mode_transform(
        spec,
        ports,
        "input_1",
        mode=spec.train_config.preprocess_mode,
        mean_bgr=[mean[channel] for channel in "bgr" if channel in mean],
        mean_grey=[mean["l"]] if "l" in mean else (),
        bicubic=spec.model.resize_interpolation_method == "BICUBIC",
        center_crop=spec.eval_config.enable_center_crop,
    )


batch_size = batch_size_or("eval_config.batch_size")

NETWORK = family.classifier(
    Spec,
    bind=partial(family.bind_image, role="input_1", scores=(Port("predictions", rank=2),)),
    output="predictions",
    images=image_dir,
    classes=classes,
    labels=lambda spec: family.labels(
        spec.evaluate.class_map or spec.inference.class_map,
        spec.evaluate.image_dir or spec.eval_config.eval_dataset_path,
    ),
    transform=transform,
    finish=family.probabilities,
    top_k=lambda spec: spec.eval_config.top_k or 5,
    batch_size=batch_size,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
