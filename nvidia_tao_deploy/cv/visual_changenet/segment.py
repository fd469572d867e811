"""Task segment: what changed between two pictures, per pixel."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.run import results_folder
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.visual_changenet.pictures import ChangePictures, palette, read_label
from nvidia_tao_deploy.cv.visual_changenet.spec import SegmentData, Spec
from nvidia_tao_deploy.data.pairs import ChangeFolders, ChangeList, change_pairs_below, together
from nvidia_tao_deploy.data.sample import Dataset, Listed
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families import inspection as family
from nvidia_tao_deploy.metrics.change import ChangeMetric
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Decoder, Ports
from nvidia_tao_deploy.predictions.segmentation import argmax_map
from nvidia_tao_deploy.transforms.tiled import TiledTransform, tiles
from nvidia_tao_deploy.transforms.transform import Geometry

KEY = "dataset.segment"


def _folders(data: SegmentData, root: str) -> ChangeFolders:
    return ChangeFolders(
        Path(os.path.abspath(root)),
        data.image_folder_name,
        data.change_image_folder_name,
        data.annotation_folder_name,
        data.label_suffix,
    )


def _list_file(data: SegmentData, root: str, split: str) -> Path:
    return Path(root) / data.list_folder_name / f"{split}.txt"


def dataset(spec: Spec, action: str) -> ChangeList:
    """The pairs of the action's list file."""
    data, root = spec.dataset.segment, spec.require(f"{KEY}.root_dir")
    labelled = action == "evaluate"
    listed = _list_file(data, root, data.test_split if labelled else data.predict_split)
    found = ChangeList(listed, _folders(data, root), labelled=labelled, strict=spec.strict)
    if labelled and data.label_transform == "norm" and data.num_classes > 2:
        found.issues.append(
            f"label_transform norm leaves the classes 0 and 1 of {data.num_classes}; for class indices set it to none"
        )
    return found


def calibration(spec: Spec) -> Listed:
    """Pairs below ``calibration.cal_image_dir``, else those of the first list that exists: train, test, predict."""
    data = spec.dataset.segment
    below = spec.gen_trt_engine.tensorrt.calibration.cal_image_dir
    if below:
        found = [change_pairs_below(folder, data.image_folder_name, data.change_image_folder_name) for folder in below]
        return together(found)
    root = spec.require(f"{KEY}.root_dir")
    lists = [_list_file(data, root, split) for split in (data.train_split, data.test_split, data.predict_split)]
    chosen = next((path for path in lists if path.is_file()), lists[0])
    return together([ChangeList(chosen, _folders(data, root), labelled=False)])


def transform(spec: Spec, ports: Ports) -> TiledTransform:
    """Both pictures stretched to the input size, (x / 255 - mean) / std."""
    layout, shapes = [], {}
    for role in ("before", "after"):
        name, size = ports.inputs[role].name, ports.image_size(role)
        layout += tiles(name, size, 1)
        shapes[name] = (3, size[1], size[0])
    augmentation = spec.dataset.segment.augmentation
    return TiledTransform(
        layout,
        shapes,
        resize="stretch",
        scale=1 / 255,
        mean=augmentation.mean,
        std=augmentation.std,
        backend=spec.runtime.image_backend,
    )


def decode(spec: Spec, ports: Ports) -> Decoder:
    """The class of every pixel; ModelError where the spec's classes or image size are not the model's."""
    data, channels = spec.dataset.segment, ports.outputs["output"].shape[1]
    size = ports.image_size("before")
    if channels is not None and channels != data.num_classes:
        raise ModelError(
            f"the model has {counted(channels, 'classes')}, num_classes is {data.num_classes}",
            where=spec.where(f"{KEY}.num_classes"),
            remedy=f"Set {KEY}.num_classes to {channels}, or check the model.",
        )
    if "img_size" in data.model_fields_set and size != (data.img_size, data.img_size):
        raise ModelError(
            f"the model takes pictures of {size[0]} x {size[1]} pixels, img_size is {data.img_size}",
            where=spec.where(f"{KEY}.img_size"),
            remedy="Leave the key out, or check the model.",
        )
    return class_maps


def class_maps(outputs: Mapping[str, Array], _geometries: Sequence[Geometry]) -> list[Array]:
    """(H, W) of the largest logit (n, C, H, W), the lowest class among ties; ModelError where a logit is NaN."""
    return [argmax_map(planes, len(planes)) for planes in outputs["output"]]


def metric(spec: Spec, data: Dataset) -> Metric:
    """Figures of the confusion matrix; the pictures too unless ``evaluate.visualize`` is off."""
    truth = partial(read_label, white_is_change=spec.dataset.segment.label_transform == "norm")
    found = ChangeMetric(spec.dataset.segment.num_classes, truth)
    if not spec.evaluate.visualize:
        return found
    folder = results_folder(spec, "evaluate")
    return family.ReportedMetric(found, ChangePictures(folder, colors(spec), data.root, truth))


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> ChangePictures:
    """Pictures of every pair."""
    return ChangePictures(folder, colors(spec), data.root)


def colors(spec: Spec) -> NDArray[np.uint8]:
    """(C, 3) RGB by class."""
    data = spec.dataset.segment
    given = [data.color_map[str(i)] for i in range(data.num_classes)] if data.color_map else None
    return palette(data.num_classes, data.data_name, given)
