"""unet: semantic segmentation as the TensorFlow 1 trainer exports it: a class, or a probability, per pixel, NHWC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.unet.spec import Spec
from nvidia_tao_deploy.cv.unet.transform import UnetTransform, on_map
from nvidia_tao_deploy.data.masks import IGNORE, ListedImages, MaskCodes, MaskPairs, paired
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families.images import batch_size_or, calibration_images
from nvidia_tao_deploy.families.segmentation import UNMAPPED, ClassMap, ListedClass, class_map
from nvidia_tao_deploy.metrics.segmentation import SemSegMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.segmentation import label_type
from nvidia_tao_deploy.predictions.segmentation_writer import SegmentationWriter, seeded_color
from nvidia_tao_deploy.predictions.types import LabelMap
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.transform import Geometry

CLASSES = "dataset_config.data_class_config.target_classes"
VANILLA_MARGIN = 184  # valid convolutions: 572 in, 388 out


def classes(spec: Spec) -> ClassMap:
    """The classes by train id; SpecError where there are none, or they contradict each other."""
    listed = spec.require(CLASSES)
    entries = [ListedClass(entry.name, entry.label_id, entry.mapping_class) for entry in listed]
    return class_map(entries, spec.where(CLASSES))


def is_grey(spec: Spec) -> bool:
    """Whether masks are black and white and images have no colour."""
    return spec.dataset_config.input_image_type == "grayscale"


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """One image in, one value per pixel out; ModelError where the model is another."""
    ports = expect((Port("input_1", channels=(1, 3)),), (Port("argmax_1"),))(inputs, outputs)
    tensor = ports.outputs["argmax_1"]
    if tensor.shape[3] not in (None, 1):
        raise ModelError(
            f"output {tensor} has {tensor.shape[3]} values per pixel; unet gives one: (N, H, W, 1)",
            remedy="Check that the file was exported for unet.",
        )
    return ports


def sources(spec: Spec, action: str) -> list[tuple[str, str]]:
    """(images, masks) of the validation data; ``<action>.image_dir`` and ``evaluate.label_dir`` win.

    Raises:
        SpecError: images or masks are missing, or not in pairs.
    """
    config = spec.dataset_config
    listed = [(source.image_path, source.masks_path) for source in config.val_data_sources.data_source]
    listed = listed or [(config.val_images_path, config.val_masks_path)]
    images: Sequence[str] = getattr(spec, action).image_dir or [image for image, _ in listed if image]
    if not images:
        raise SpecError(
            "no images are given",
            where=spec.where(f"{action}.image_dir"),
            remedy=f"Set {action}.image_dir (-i on the command line), or dataset_config.val_data_sources.",
        )
    if action == "inference":
        return [(image, "") for image in images]
    masks = spec.evaluate.label_dir or [mask for _, mask in listed if mask]
    if len(masks) != len(images):
        raise SpecError(
            f"{len(images)} sources of images and {len(masks)} of masks are given",
            where=spec.where("evaluate.label_dir"),
            remedy="Set evaluate.label_dir (-l on the command line), or masks_path of every val_data_source.",
        )
    return list(zip(images, masks, strict=True))


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: images and masks; inference: images."""
    if action == "inference":
        return ListedImages([image for image, _ in sources(spec, action)])
    first = spec.evaluate.unmapped_labels == "first_class"
    codes = MaskCodes(classes(spec).of_label, divisor=255 if is_grey(spec) else 1, unmapped=0 if first else IGNORE)
    pairs, issues = paired(sources(spec, action), strict=spec.strict)
    return MaskPairs(pairs, codes, issues)


def calibration(spec: Spec) -> Dataset:
    """The calibration folders, else the training images of the spec."""
    config = spec.dataset_config
    listed = [source.image_path for source in config.train_data_sources.data_source] or [config.train_images_path]
    if spec.gen_trt_engine.tensorrt.calibration.cal_image_dir or not any(listed):
        return calibration_images(spec)
    return ListedImages([source for source in listed if source])


def transform(spec: Spec, ports: Ports) -> UnetTransform:
    """As in training: BGR in [-1, 1] or [0, 1], or grey in [-1, 1]; stretched or padded around the centre."""
    width, height = ports.image_size("input_1")
    config, grey = spec.dataset_config, is_grey(spec)
    centred = grey or config.preprocess == "min_max_-1_1"
    vanilla = spec.model.arch == "vanilla_unet"
    rows, columns = ports.outputs["argmax_1"].shape[1:3]
    inner = (columns or width - VANILLA_MARGIN, rows or height - VANILLA_MARGIN) if vanilla else None
    return UnetTransform(
        inner=inner,
        method=config.resize_method,
        keep_aspect=config.resize_padding and not vanilla,
        fill=127.5 if grey and not vanilla else 0.0,  # training normalizes grey before it pads: 0 is mid-grey
        scale=1 / 127.5 if centred else 1 / 255,
        mean=(1.0,) if centred else (0.0,),
        color="RGB" if grey else "BGR",
        input_name=ports.inputs["input_1"].name,
        backend=spec.runtime.image_backend,
    )


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """Train ids as they are; probabilities above one half are class 1."""
    count = len(classes(spec).names)
    sigmoid = spec.model.activation == "sigmoid" and count == 2
    if spec.model.activation == "sigmoid" and not sigmoid:
        say(f"note: activation sigmoid needs two classes, the spec has {count}: read as softmax")
    if sigmoid and ports.outputs["argmax_1"].dtype.kind in "iu":
        sigmoid = False  # the export has taken the decision

    return lambda outputs, geometries: decode_maps(outputs["argmax_1"][..., 0], geometries, count, sigmoid=sigmoid)


def decode_maps(values: Array, geometries: Sequence[Geometry], count: int, *, sigmoid: bool) -> list[LabelMap]:
    """(n, H, W) train ids, or with ``sigmoid`` probabilities of class 1, as label maps of the model's size.

    Raises:
        ModelError: values are no class indices, or are NaN.
    """
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ModelError("the model's output holds NaN", remedy="Build in fp32, or keep some layers in fp32.")
    if sigmoid:
        ids = (values > 0.5).astype(np.uint8)
    else:
        if values.dtype.kind == "f" and (values != np.rint(values)).any():
            raise ModelError(
                "the model's output holds fractions, not classes",
                remedy="Was it trained with sigmoid? Then set model_config.activation, and list two classes.",
            )
        if values.size and (values.min() < 0 or values.max() >= count):
            raise ModelError(
                f"the model predicts class {int(values.max() if values.min() >= 0 else values.min())}, "
                f"the class list has {count}",
                remedy="List the classes of the training in dataset_config.data_class_config.target_classes.",
            )
        ids = values.astype(label_type(count))
    size = (values.shape[2], values.shape[1])
    return [LabelMap(row, on_map(geometry, size)) for row, geometry in zip(ids, geometries, strict=True)]


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> SegmentationWriter:
    """Label maps of the network's size, overlays of the source's."""
    count = len(classes(spec).names)
    factor = 255 if is_grey(spec) and count == 2 else 1
    colors = [seeded_color(i) for i in range(count)]
    return SegmentationWriter(folder, colors, data.root, at_source_size=False, factor=factor)


NETWORK = Network(
    spec=Spec,
    bind=bind,
    calibration=calibration,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=lambda spec, _data: SemSegMetric(classes(spec).names, UNMAPPED[spec.evaluate.unmapped_labels]),
    writer=writer,
    batch_size=batch_size_or("training_config.batch_size"),
    labels=lambda spec: classes(spec).names if spec.get(CLASSES) else (),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
