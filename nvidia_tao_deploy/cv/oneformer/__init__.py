"""oneformer: segmentation told by a sentence which task to do; only the semantic task is run here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.oneformer.spec import Spec
from nvidia_tao_deploy.cv.oneformer.task import TaskTransform
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.panoptic import CocoPanoptic
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import universal_segmentation as family
from nvidia_tao_deploy.families.images import calibration_images
from nvidia_tao_deploy.metrics.segmentation import IouMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.detr import sigmoid
from nvidia_tao_deploy.predictions.masks import resized_logits
from nvidia_tao_deploy.predictions.segmentation import label_type
from nvidia_tao_deploy.predictions.segments import SegmentWriter
from nvidia_tao_deploy.predictions.types import LabelMap
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from nvidia_tao_deploy.transforms.transform import Geometry

FIRST_ID = 0  # category id of class 0, unless ids are contiguous
PIXELS_AT_ONCE = 1 << 12  # what stays in a core's cache
MAX_SEQ_LEN = "dataset.max_seq_len"


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """Tensors are told apart by rank, whatever their names and order.

    Raises:
        ModelError: the model is another, or image and tokens do not take the same batches.
    """

    def by_rank(tensors: Sequence[TensorInfo], first: int) -> list[TensorInfo]:
        return sorted(tensors, key=lambda tensor: len(tensor.shape) != first)

    ports = expect(
        (Port("inputs", channels=(3,)), Port("tokens", rank=2)),
        (Port("pred_logits", rank=3), Port("pred_masks")),
    )(by_rank(inputs, 4), by_rank(outputs, 3))
    image, tokens = ports.inputs["inputs"], ports.inputs["tokens"]
    if image.shape[0] != tokens.shape[0]:
        raise ModelError(
            f"inputs {image} and {tokens} take different batches: every image needs its own row of tokens",
            remedy="Export both with a dynamic batch, or both with the same fixed one.",
        )
    return ports


def semantic_only(spec: Spec) -> None:
    """Refuse to read other tasks' outputs as label maps.

    Raises:
        SpecError: ``export.task`` is another.
    """
    if spec.export.task != "semantic":
        raise SpecError(
            f"the task {spec.export.task} can be built, but not evaluated or run here",
            where=spec.where("export.task"),
            remedy="Set export.task to semantic.",
        )


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: ``dataset.val``; inference: ``dataset.test.images``."""
    semantic_only(spec)
    if action == "inference":
        return ImageFolder(spec.require("dataset.test.images"))
    return CocoPanoptic(
        spec.require("dataset.val.annotations"),
        spec.require("dataset.val.images"),
        spec.require("dataset.val.panoptic"),
        contiguous=spec.dataset.contiguous_id,
        first_id=FIRST_ID,
        classes=spec.model.sem_seg_head.num_classes,
        strict=spec.strict,
    )


def transform(spec: Spec, ports: Ports) -> TaskTransform:
    """Pillow bicubic stretch, ImageNet's mean and deviation, and the sentence of ``export.task``.

    Raises:
        SpecError: ``dataset.max_seq_len`` is given and is not the model's.
    """
    ports.image_size("inputs")
    length, given = ports.inputs["tokens"].shape[1], spec.dataset.max_seq_len
    if length is None:
        raise ModelError(
            f"input {ports.inputs['tokens']} has no fixed length", remedy=f"Export it with {given} tokens."
        )
    if length != given and "max_seq_len" in spec.dataset.model_fields_set:
        raise SpecError(
            f"the model takes {length} tokens, {MAX_SEQ_LEN} says {given}",
            where=spec.where(MAX_SEQ_LEN),
            remedy="Give the length of the export, or leave the key out.",
        )
    image = ImageTransform(
        resize="stretch_bicubic",
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_name=ports.inputs["inputs"].name,
        backend=spec.runtime.image_backend,
    )
    return TaskTransform(image, ports.inputs["tokens"].name, spec.export.task)


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """The class with the largest sum over queries of class probability times mask probability.

    Raises:
        ModelError: the model has more classes than the spec.
    """
    width, classes = ports.outputs["pred_logits"].shape[2], spec.model.sem_seg_head.num_classes
    if width is not None and width - 1 != classes:
        raise ModelError(
            f"the model has {width - 1} classes and no-object, model.sem_seg_head.num_classes is {classes}",
            where=spec.where("model.sem_seg_head.num_classes"),
            remedy="Give the number of classes of the training.",
        )

    def run(outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry]) -> list[LabelMap]:
        rows = zip(outputs["pred_logits"], outputs["pred_masks"], geometries, strict=True)
        return [
            LabelMap(semantic_map(logits, masks, geometry.network_size), geometry) for logits, masks, geometry in rows
        ]

    return run


def semantic_map(logits: NDArray[Any], masks: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """(H, W) class indices.

    As in training, mask logits are stretched to ``size`` (bilinear, half-pixel centres) before the sigmoid.

    Args:
        logits: (Q, C + 1), no-object last.
        masks: (Q, h, w) mask logits.
        size: (width, height).

    Raises:
        ModelError: a value is NaN.
    """
    if np.isnan(logits).any() or np.isnan(masks).any():
        raise ModelError("the model's outputs hold NaN", remedy="Build in fp32, or keep some layers in fp32.")
    odds = np.exp(logits.astype(np.float32) - logits.max(axis=1, keepdims=True).astype(np.float32))
    classes = (odds / odds.sum(axis=1, keepdims=True))[:, :-1]
    flat = np.empty((len(masks), size[0] * size[1]), np.float32)
    for row, mask in zip(flat, resized_logits(masks, size), strict=True):
        row[:] = mask.ravel()
    found = np.concatenate([(sigmoid(part).T @ classes).argmax(axis=1) for part in _parts(flat)])
    return found.astype(label_type(classes.shape[1])).reshape(size[1], size[0])


def _parts(flat: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """(Q, n) columns, a few at a time: the scores of all classes are many times as large as the masks."""
    for start in range(0, flat.shape[1], PIXELS_AT_ONCE):
        yield flat[:, start : start + PIXELS_AT_ONCE]


def metric(spec: Spec, data: Dataset) -> IouMetric:
    """mIoU and pixel accuracy."""
    assert isinstance(data, CocoPanoptic)
    return IouMetric(family.class_names(data.categories, data.class_of, spec.model.sem_seg_head.num_classes))


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> SegmentWriter:
    """A picture per image."""
    return SegmentWriter(folder, family.label_map(spec, FIRST_ID), data.root)


NETWORK = Network(
    name="oneformer",
    spec=Spec,
    bind=bind,
    calibration=calibration_images,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=family.batch_size,
    labels=partial(family.labels, first_id=FIRST_ID),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
