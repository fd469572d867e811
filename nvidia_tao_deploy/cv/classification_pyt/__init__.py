"""Image classification as the PyTorch trainer exports it: one image in, one row of raw logits out."""

from __future__ import annotations

from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.classification_pyt.spec import Spec
from nvidia_tao_deploy.data.folder import read_classes
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.network import Port, Ports, expect
from nvidia_tao_deploy.transforms.image import ImageTransform

REMEDY = "Give the classes.txt of the training in dataset.root_dir."


def classes(spec: Spec) -> family.ClassNames:
    """Lines of ``<dataset.root_dir>/classes.txt`` in file order, else the sorted class folders."""
    root = spec.dataset.root_dir
    if root and (listed := Path(root) / "classes.txt").is_file():
        return family.ClassNames(read_classes(listed), str(listed), REMEDY)
    return family.folder_classes(spec.dataset.test_dataset.images_dir, REMEDY)


def _classes_of_data(spec: Spec, _action: str) -> family.ClassNames:
    """`classes`, where the data must be here: a root_dir that is not would put the classes into another order."""
    root = spec.dataset.root_dir
    if root and not Path(root).is_dir():
        remedy = "Correct dataset.root_dir, or leave it out: the classes are then the sorted folders of the images."
        raise DataError("no such folder", where=root, remedy=remedy)
    return classes(spec)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """The trainer's bilinear stretch, or a bicubic one over the input size by 32 pixels, the centre cut out."""
    ports.image_size("input")
    augmentation = spec.dataset.augmentation
    resize = "center_crop_bicubic" if spec.dataset.preprocess == "center_crop" else "stretch_bilinear"
    return family.rgb_transform(spec, ports, "input", augmentation.mean, augmentation.std, resize)


NETWORK = family.classifier(
    Spec,
    bind=expect(inputs=(Port("input", channels=(1, 3)),), outputs=(Port("output", rank=2),)),
    output="output",
    images=lambda spec, _action: spec.require("dataset.test_dataset.images_dir"),
    classes=_classes_of_data,
    labels=lambda spec: classes(spec).names,
    transform=transform,
    finish=family.softmax,
    top_k=lambda spec: spec.model.head.topk[0],
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
