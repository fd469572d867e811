"""oneformer: segmentation told by a sentence which task to do: semantic, instance or panoptic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.oneformer.spec import Spec
from nvidia_tao_deploy.cv.oneformer.task import TaskTransform
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import universal_segmentation as family
from nvidia_tao_deploy.families.images import image_transform
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.predictions.queries import instance_queries, panoptic_queries, semantic_map
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from nvidia_tao_deploy.transforms.transform import Geometry

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


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: ``dataset.val``, COCO instances for that task, else COCO panoptic; inference: ``dataset.test``."""
    if action == "inference":
        return ImageFolder(spec.require("dataset.test.images"))
    if spec.export.task == "instance":
        return family.coco_instances(spec, "dataset.val.annotations", "dataset.val.images")
    return family.panoptic(spec, "dataset.val.annotations", "dataset.val.images", "dataset.val.panoptic")


def transform(spec: Spec, ports: Ports) -> TaskTransform:
    """Pillow bicubic stretch, ImageNet's mean and deviation, and the sentence of ``export.task``."""
    constants = {"scale": 1 / 255, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    image = image_transform(spec, ports, "inputs", resize="stretch_bicubic", **constants)
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
    return TaskTransform(image, ports.inputs["tokens"].name, spec.export.task)


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Label maps, instances or segments, as ``export.task`` says."""
    width, classes = ports.outputs["pred_logits"].shape[2], spec.model.sem_seg_head.num_classes
    if width is not None and width - 1 != classes:
        raise ModelError(
            f"the model has {width - 1} classes and no-object, model.sem_seg_head.num_classes is {classes}",
            where=spec.where("model.sem_seg_head.num_classes"),
            remedy="Give the number of classes of the training.",
        )
    task, limits = spec.export.task, spec.model.test
    isthing = [] if task == "semantic" else family.things(spec, action, dataset)
    finish = family.finish(task, action, limits, isthing)
    arrays: dict[str, Callable[..., tuple[Array, ...]]] = {
        "semantic": lambda *row: (semantic_map(*row),),
        "instance": partial(instance_queries, top=limits.test_topk_per_image, isthing=isthing),
        "panoptic": partial(panoptic_queries, threshold=limits.object_mask_threshold),
    }

    def run(outputs: Mapping[str, Array], geometries: Sequence[Geometry]) -> list[Any]:
        rows = zip(outputs["pred_logits"], outputs["pred_masks"], geometries, strict=True)
        return [
            finish(*arrays[task](logits, masks, geometry.network_size), geometry) for logits, masks, geometry in rows
        ]

    return run


NETWORK = family.universal_network(
    spec=Spec, bind=bind, transform=transform, dataset=dataset, decode=decode, metric=family.metric
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
