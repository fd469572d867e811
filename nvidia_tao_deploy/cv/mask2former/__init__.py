"""mask2former: semantic, instance or panoptic segmentation; the number of the model's outputs says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.mask2former.ade import AdeMasks
from nvidia_tao_deploy.cv.mask2former.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import universal_segmentation as family
from nvidia_tao_deploy.families.images import check_map, image_transform
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.predictions.segmentation import argmax_map
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

MASKS, SCORES, CLASSES = Port("pred_masks", floats=True), Port("pred_scores", rank=2), Port("pred_classes", rank=2)
MODES = {
    1: ("semantic", (MASKS,)),
    3: ("instance", (MASKS, SCORES, CLASSES)),
    4: ("panoptic", (Port("prob_masks"), MASKS, SCORES, CLASSES)),
}
DATA = {"instance": ("coco",), "panoptic": ("coco_panoptic",), "semantic": ("ade", "coco_panoptic", "coco")}


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """The outputs of one of the three modes; ModelError where the model is another."""
    if len(outputs) not in MODES:
        raise ModelError(
            f"the model has {len(outputs)} outputs; mask2former has 1 (semantic), 3 (instance) or 4 (panoptic)",
            remedy="Check that the file was exported for mask2former.",
        )
    ports = expect((Port("inputs", channels=(3,)),), MODES[len(outputs)][1])(inputs, outputs)
    check_map(ports, "inputs", "pred_masks")
    if len(outputs) == 1 and ports.outputs["pred_masks"].shape[1] == 1:
        raise ModelError(
            f"output {outputs[0]} has one channel, and a semantic model has one per class: with one class alone every "
            "pixel would be of it",
            remedy="Check that the file was exported for mask2former; ocdnet's models, for one, look like this.",
        )
    return ports


def data_type(spec: Spec) -> str:
    """``dataset.val.type``; whatever is not known is COCO instances."""
    return spec.dataset.val.type if spec.dataset.val.type in ("ade", "coco_panoptic") else "coco"


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: ``dataset.val`` by its type; inference: ``dataset.test.img_dir``."""
    if action == "inference":
        return ImageFolder(spec.require("dataset.test.img_dir"))
    val, classes = spec.dataset.val, spec.model.sem_seg_head.num_classes
    if data_type(spec) == "ade":
        return AdeMasks(spec.require("dataset.val.annot_file"), val.root_dir, classes, strict=spec.strict)
    if data_type(spec) == "coco":
        return family.coco_instances(spec, "dataset.val.instance_json", "dataset.val.img_dir")
    return family.panoptic(spec, "dataset.val.panoptic_json", "dataset.val.img_dir", "dataset.val.panoptic_dir")


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Pillow bicubic stretch, (x / 255 - mean) / std in RGB."""
    mean, std = spec.dataset.pixel_mean, spec.dataset.pixel_std
    return image_transform(spec, ports, "inputs", resize="stretch_bicubic", scale=1 / 255, mean=mean, std=std)


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Label maps, instances or segments."""
    mode = MODES[len(ports.outputs)][0]
    channels, classes = ports.outputs["pred_masks"].shape[1], spec.model.sem_seg_head.num_classes
    if mode == "semantic" and channels is not None and channels > classes:
        raise ModelError(
            f"the model has {counted(channels, 'classes')}, model.sem_seg_head.num_classes is {classes}",
            where=spec.where("model.sem_seg_head.num_classes"),
        )
    if action == "evaluate" and data_type(spec) not in DATA[mode]:
        raise SpecError(
            f"the model is of mode {mode}, and dataset.val.type is {spec.dataset.val.type}",
            where=spec.where("dataset.val.type"),
            remedy=f"A model of this mode is measured on {' or '.join(DATA[mode])}.",
        )
    isthing = family.things(spec, action, dataset) if mode == "panoptic" else []
    finish = family.finish(mode, action, spec.model, isthing)
    roles = [port.role for port in MODES[len(ports.outputs)][1]]

    def run(outputs: Mapping[str, Array], geometries: Sequence[Geometry]) -> list[Any]:
        rows = zip(*(outputs[role] for role in roles), geometries, strict=True)
        if mode == "semantic":
            return [finish(argmax_map(scores, len(scores)), geometry) for scores, geometry in rows]
        return [finish(*row) for row in rows]

    return run


def metric(spec: Spec, data: Dataset) -> family.ByPrediction:
    """mIoU of label maps, mask AP of instances, PQ of segments."""
    if not isinstance(data, AdeMasks):
        return family.metric(spec, data)
    classes = spec.model.sem_seg_head.num_classes
    listed = family.label_map(spec) if spec.dataset.label_map else []
    return family.ByPrediction([entry.name for entry in listed] + [str(k + 1) for k in range(len(listed), classes)], [])


NETWORK = family.universal_network(
    spec=Spec, bind=bind, transform=transform, dataset=dataset, decode=decode, metric=metric
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
