"""Mask R-CNN: boxes of GenerateDetection_TRT and a coarse mask over each of them."""

from __future__ import annotations

from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.mask_rcnn.decode import decode_masks
from nvidia_tao_deploy.cv.mask_rcnn.spec import Spec
from nvidia_tao_deploy.cv.mask_rcnn.writer import MaskWriter
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.coco_detection import MatchedCocoMetric, checked_names, class_map_labels, read_class_map
from nvidia_tao_deploy.families.images import batch_size_or, image_network
from nvidia_tao_deploy.families.kitti_detection import binder
from nvidia_tao_deploy.metrics.coco_masks import BoxesAndMasks, CocoMaskMetric
from nvidia_tao_deploy.network import Decoder, Port, Ports
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.drawing import PALETTE
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.normalize import IMAGENET_MEAN


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: ``data_config.val_json_file`` and the images of -i; inference: the images of -i."""
    if action == "inference":
        return ImageFolder(spec.require("inference.image_dir"))
    json_file, images = spec.require("data_config.val_json_file"), spec.evaluate.image_dir or None
    return CocoDetection(json_file, images, limit=spec.data_config.eval_samples, strict=spec.strict)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """RGB, aspect kept, top left, the rest ImageNet's mean colour; (x / 255 - mean) / 0.224."""
    ports.image_size("Input")
    return ImageTransform(
        resize="resize_pad",
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=(0.224,),  # the trainer's, for every channel
        input_name=ports.inputs["Input"].name,
        backend=spec.runtime.image_backend,
    )


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """Boxes and coarse masks, both of the real detections only."""
    boxes, masks = ports.outputs["generate_detections"], ports.outputs["mask_fcn_logits/BiasAdd"]
    count, wanted = masks.shape[2], spec.data_config.num_classes
    if wanted and count is not None and count != wanted:
        raise ModelError(
            f"the model has {counted(count, 'classes with the background')}, the spec {wanted}",
            where=spec.where("data_config.num_classes"),
            remedy="Give the num_classes of the training.",
        )
    config = spec.maskrcnn_config
    for key, found, named in (
        ("test_detections_per_image", boxes.shape[1], config.test_detections_per_image),
        ("mrcnn_resolution", masks.shape[3], config.mrcnn_resolution),
    ):
        if named and found is not None and named != found:
            say(f"note: maskrcnn_config.{key} says {named}, the model {found}; the model's is used")
    return decode_masks


def metric(spec: Spec, data: Dataset) -> BoxesAndMasks:
    """COCO mAP of boxes and of masks.

    Classes are category ids; where the file's ids are not 1 to n - 1 but as many, class i is the i-th of them.
    """
    assert isinstance(data, CocoDetection)
    ids, classes = list(data.categories), spec.data_config.num_classes
    ranked = len(ids) == classes - 1 and ids != list(range(1, classes))
    if ranked:
        say(f"note: class i is the i-th of the category ids {some(ids)}, which are not 1 to {classes - 1}")
    category_of_class = [-1, *ids] if ranked else None
    return BoxesAndMasks(MatchedCocoMetric(data, category_of_class), CocoMaskMetric(data, category_of_class))


def writer(spec: Spec, folder: Path, data: Dataset, ports: Ports) -> MaskWriter:
    """What reaches ``inference.threshold``, by the names of ``inference.class_map``.

    Raises:
        SpecError: no class map is given, or it names no class of the model.
    """
    path = spec.require("inference.class_map")
    names = checked_names(read_class_map(path), ports.outputs["mask_fcn_logits/BiasAdd"].shape[2], path)
    return MaskWriter(folder, names, spec.inference.threshold, PALETTE, data.root)


NETWORK = image_network(
    spec=Spec,
    bind=binder(
        Port("generate_detections", rank=3),
        Port("mask_fcn_logits/BiasAdd", ("mask_head/mask_fcn_logits/BiasAdd",), rank=5),
    ),
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size_or("eval_batch_size"),
    labels=class_map_labels,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
