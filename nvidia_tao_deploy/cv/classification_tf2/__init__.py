"""Image classification as the TensorFlow 2 trainer exports it: one image in, one row of probabilities out."""

from __future__ import annotations

from functools import partial

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.classification_tf2.spec import Spec
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.families.images import batch_size_or
from nvidia_tao_deploy.network import Port, Ports
from nvidia_tao_deploy.transforms.image import ImageTransform


def classes(spec: Spec, action: str) -> family.ClassNames:
    """The class map, else the sub-folders of ``evaluate.dataset_path``."""
    given = (action == "inference" and spec.inference.classmap) or spec.evaluate.classmap
    return family.known_classes(given, spec.evaluate.dataset_path, f"{action}.classmap")


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Resized and normalized as ``dataset`` and ``model`` say."""
    mean = spec.dataset.image_mean
    return family.mode_transform(
        spec,
        ports,
        "input_1",
        mode=spec.dataset.preprocess_mode,
        mean_bgr=mean * 3 if len(mean) == 1 else mean,
        mean_grey=mean if len(mean) == 1 else (),
        depth=spec.model.input_image_depth,
        bicubic=spec.model.resize_interpolation_method == "bicubic",
        center_crop=spec.dataset.augmentation.enable_center_crop,
        layout="NHWC" if spec.data_format == "channels_last" else "NCHW",
    )


batch_size = batch_size_or("evaluate.batch_size")

NETWORK = family.classifier(
    Spec,
    bind=partial(family.bind_image, role="input_1", scores=(Port("predictions", rank=2),)),
    output="predictions",
    images=lambda spec, action: spec.require(
        "evaluate.dataset_path" if action == "evaluate" else "inference.image_dir"
    ),
    classes=classes,
    labels=lambda spec: family.labels(spec.evaluate.classmap or spec.inference.classmap, spec.evaluate.dataset_path),
    transform=transform,
    finish=family.probabilities,
    top_k=lambda spec: spec.evaluate.top_k,
    batch_size=batch_size,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
