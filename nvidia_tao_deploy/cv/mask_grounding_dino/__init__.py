"""Mask Grounding DINO: finds classes by name (OD) or what an expression describes (VG), with masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.mask_grounding_dino import expressions
from nvidia_tao_deploy.cv.mask_grounding_dino.decode import OUTPUTS, bind, decode_classes, decode_expressions
from nvidia_tao_deploy.cv.mask_grounding_dino.metric import MergedMasks
from nvidia_tao_deploy.cv.mask_grounding_dino.spec import Spec
from nvidia_tao_deploy.cv.mask_grounding_dino.writer import PhraseWriter
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import grounding as family
from nvidia_tao_deploy.families.images import calibration_images
from nvidia_tao_deploy.metrics.coco_masks import BoxesAndMasks, CocoMaskMetric, has_masks
from nvidia_tao_deploy.network import Decoder, Ports, Writer

SOURCES = {"evaluate": "dataset.test_data_sources", "inference": "dataset.infer_data_sources"}


def task(spec: Spec, action: str) -> str:
    """OD or VG: the ``data_type`` of the action's data."""
    return str(spec.get(f"{SOURCES[action]}.data_type"))


def dataset(spec: Spec, action: str) -> Dataset:
    """OD: images and class names; VG: images and expressions; SpecError where a source is not of the task's kind."""
    source = SOURCES[action]
    if task(spec, action) == "VG":
        return expressions.dataset(spec, action, source)
    key = f"{source}.{'json_file' if action == 'evaluate' else 'captions'}"
    listed = spec.require(key)
    if expressions.is_lines(listed if isinstance(listed, str) else listed[0]):
        raise SpecError(
            "JSON lines hold expressions, which are no classes",
            where=spec.where(key),
            remedy=f"Set {source}.data_type to VG, or give {'a COCO json' if action == 'evaluate' else 'class names'}.",
        )
    return family.dataset(spec, action)


def calibration(spec: Spec) -> Dataset:
    """The calibration images, asked for what the inference data, or the test data, look for."""
    for action, listed in (("inference", "captions"), ("evaluate", "json_file")):
        if task(spec, action) == "VG" and spec.get(f"{SOURCES[action]}.{listed}"):
            found = expressions.dataset(spec, action, SOURCES[action])
            return family.Prompted(calibration_images(spec), found.prompts)
    return family.calibration(spec)


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Classes with masks, or expressions; ModelError where the model has no outputs for expressions."""
    family.check_text_length(ports)
    section, num_select = getattr(spec, action), spec.model.num_select
    if task(spec, action) == "OD":
        least = section.conf_threshold if action == "inference" else 0.0  # masks of what is not shown are not made
        return partial(decode_classes, num_select=num_select, least=least)
    if OUTPUTS[-1] not in ports.outputs:
        raise ModelError(
            f"the model has no outputs for expressions, only {', '.join(map(str, ports.outputs.values()))}",
            where=spec.where(f"{SOURCES[action]}.data_type"),
            remedy=f"Set data_type to OD, or export a model with {' and '.join(OUTPUTS[3:])}.",
        )
    return partial(
        decode_expressions,
        num_select=num_select,
        least=section.conf_threshold,
        text_threshold=section.text_threshold,
        inside_threshold=section.ioi_threshold,
        nms_threshold=section.nms_threshold,
    )


def metric(spec: Spec, data: Dataset) -> MergedMasks | BoxesAndMasks:
    """OD: COCO AP of boxes, and of masks where they are annotated; VG: overlap of merged masks."""
    if isinstance(data, expressions.Expressions):
        return MergedMasks()
    truth, ids = family.truth(data)
    masks = CocoMaskMetric(truth, ids, spec.dataset.eval_class_ids) if has_masks(truth) else None
    return BoxesAndMasks(family.metric(spec, data), masks)


def writer(spec: Spec, folder: Path, data: Dataset, ports: Ports) -> Writer:
    """Labels and pictures."""
    if isinstance(data, expressions.Expressions):
        return PhraseWriter(folder, spec.inference.color_map or None, data.root)
    return family.writer(spec, folder, data, ports)


def labels(spec: Spec) -> list[str]:
    """The class names to look for, for the manifest."""
    return family.labels(spec) if task(spec, "inference") == "OD" else []


NETWORK = family.grounding_network(
    spec=Spec,
    bind=bind,
    dataset=dataset,
    calibration=calibration,
    decode=decode,
    metric=metric,
    writer=writer,
    labels=labels,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
