"""mask2former: semantic, instance or panoptic segmentation; the number of the model's outputs says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.mask2former.ade import AdeMasks
from nvidia_tao_deploy.cv.mask2former.metric import ByPrediction
from nvidia_tao_deploy.cv.mask2former.spec import Spec
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.panoptic import CocoPanoptic
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import universal_segmentation as family
from nvidia_tao_deploy.families.images import calibration_images
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.queries import instances, panoptic_map
from nvidia_tao_deploy.predictions.segmentation import argmax_map
from nvidia_tao_deploy.predictions.segments import SegmentWriter
from nvidia_tao_deploy.predictions.types import LabelMap
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

FIRST_ID = 1  # category id of class 0, unless ids are contiguous
MASKS, SCORES, CLASSES = Port("pred_masks"), Port("pred_scores", rank=2), Port("pred_classes", rank=2)
MODES = {
    1: ("semantic", (MASKS,)),
    3: ("instance", (MASKS, SCORES, CLASSES)),
    4: ("panoptic", (Port("prob_masks"), MASKS, SCORES, CLASSES)),
}
DATA = {"instance": ("coco",), "panoptic": ("coco_panoptic",), "semantic": ("ade", "coco_panoptic", "coco")}


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """The outputs of one of the three modes.

    Raises:
        ModelError: the model is another.
    """
    if len(outputs) not in MODES:
        raise ModelError(
            f"the model has {len(outputs)} outputs; mask2former has 1 (semantic), 3 (instance) or 4 (panoptic)",
            remedy="Check that the file was exported for mask2former.",
        )
    return expect((Port("inputs", channels=(3,)),), MODES[len(outputs)][1])(inputs, outputs)


def data_type(spec: Spec) -> str:
    """``dataset.val.type``; whatever is not known is COCO instances."""
    return spec.dataset.val.type if spec.dataset.val.type in ("ade", "coco_panoptic") else "coco"


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: ``dataset.val`` by its type; inference: ``dataset.test.img_dir``."""
    if action == "inference":
        return ImageFolder(spec.require("dataset.test.img_dir"))
    val, classes = spec.dataset.val, spec.model.sem_seg_head.num_classes
    contiguous = spec.dataset.contiguous_id
    if data_type(spec) == "ade":
        return AdeMasks(spec.require("dataset.val.annot_file"), val.root_dir, classes, strict=spec.strict)
    images = spec.require("dataset.val.img_dir")
    if data_type(spec) == "coco":
        coco = CocoDetection(spec.require("dataset.val.instance_json"), images, strict=spec.strict)
        return family.InstanceMasks(coco, contiguous=contiguous, classes=classes)
    return CocoPanoptic(
        spec.require("dataset.val.panoptic_json"),
        images,
        spec.require("dataset.val.panoptic_dir"),
        contiguous=contiguous,
        first_id=FIRST_ID,
        classes=classes,
        strict=spec.strict,
    )


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Pillow bicubic stretch, (x / 255 - mean) / std in RGB."""
    ports.image_size("inputs")
    return ImageTransform(
        resize="stretch_bicubic",
        scale=1 / 255,
        mean=spec.dataset.pixel_mean,
        std=spec.dataset.pixel_std,
        input_name=ports.inputs["inputs"].name,
        backend=spec.runtime.image_backend,
    )


def things(spec: Spec, action: str) -> list[bool]:
    """Whether class k is a thing: from the annotation file (evaluate) or the label map (inference)."""
    if action == "inference":
        return [entry.isthing for entry in family.label_map(spec, FIRST_ID)]
    return panoptic_things(dataset(spec, action), spec.model.sem_seg_head.num_classes)


def panoptic_things(data: Dataset, classes: int) -> list[bool]:
    """By class index, from the categories of the annotation file."""
    assert isinstance(data, CocoPanoptic)
    known = {data.class_of[row.id]: row.isthing for row in data.categories if row.id in data.class_of}
    return [known.get(index, True) for index in range(classes)]


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Label maps, instances or segments.

    Raises:
        ModelError: a semantic model has more classes than the spec.
        SpecError: evaluate, and the data cannot measure this kind of model.
    """
    mode = MODES[len(ports.outputs)][0]
    channels, classes = ports.outputs["pred_masks"].shape[1], spec.model.sem_seg_head.num_classes
    if mode == "semantic" and channels is not None and channels > classes:
        raise ModelError(
            f"the model has {channels} classes, model.sem_seg_head.num_classes is {classes}",
            where=spec.where("model.sem_seg_head.num_classes"),
        )
    if action == "evaluate" and data_type(spec) not in DATA[mode]:
        raise SpecError(
            f"the model is of mode {mode}, and dataset.val.type is {spec.dataset.val.type}",
            where=spec.where("dataset.val.type"),
            remedy=f"A model of this mode is measured on {' or '.join(DATA[mode])}.",
        )
    if mode == "semantic":
        return _semantic
    if mode == "instance":
        # every instance counts for average precision
        return _instance(spec.model.object_mask_threshold if action == "inference" else -1.0)
    return _panoptic(things(spec, action), spec.model.object_mask_threshold, spec.model.overlap_threshold)


def _semantic(outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry]) -> list[LabelMap]:
    maps = zip(outputs["pred_masks"], geometries, strict=True)
    return [LabelMap(argmax_map(scores, len(scores)), geometry) for scores, geometry in maps]


def _instance(threshold: float) -> Decoder:
    def run(outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry]) -> list[Any]:
        rows = zip(outputs["pred_masks"], outputs["pred_scores"], outputs["pred_classes"], geometries, strict=True)
        return [instances(*row, threshold) for row in rows]

    return run


def _panoptic(isthing: Sequence[bool], object_threshold: float, overlap_threshold: float) -> Decoder:
    def run(outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry]) -> list[Any]:
        roles = ("prob_masks", "pred_masks", "pred_scores", "pred_classes")
        rows = zip(*(outputs[role] for role in roles), geometries, strict=True)
        return [
            panoptic_map(*row, isthing=isthing, object_threshold=object_threshold, overlap_threshold=overlap_threshold)
            for row in rows
        ]

    return run


def metric(spec: Spec, data: Dataset) -> ByPrediction:
    """mIoU of label maps, mask AP of instances, PQ of segments."""
    classes = spec.model.sem_seg_head.num_classes
    if isinstance(data, AdeMasks):
        listed = family.label_map(spec, FIRST_ID) if spec.dataset.label_map else []
        names = [entry.name for entry in listed] + [str(k + 1) for k in range(len(listed), classes)]
        return ByPrediction(names, [])
    assert isinstance(data, (CocoPanoptic, family.InstanceMasks))
    names = family.class_names(data.categories, data.class_of, classes)
    if isinstance(data, CocoPanoptic):
        return ByPrediction(names, panoptic_things(data, classes))
    return ByPrediction(names, [], data)


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> SegmentWriter:
    """A picture per image."""
    return SegmentWriter(folder, family.label_map(spec, FIRST_ID), data.root)


NETWORK = Network(
    name="mask2former",
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
