"""Mask Grounding DINO: finds classes by name (OD) or what an expression describes (VG), with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.mask_grounding_dino import expressions
from nvidia_tao_deploy.cv.mask_grounding_dino.decode import decode_classes, decode_expressions
from nvidia_tao_deploy.cv.mask_grounding_dino.metric import MergedMasks, latest
from nvidia_tao_deploy.cv.mask_grounding_dino.spec import Spec
from nvidia_tao_deploy.cv.mask_grounding_dino.writer import PhraseWriter
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import grounding as family
from nvidia_tao_deploy.families.images import batch_size, calibration_images
from nvidia_tao_deploy.metrics.coco_masks import BoxesAndMasks, CocoMaskMetric, has_masks
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, Writer, expect
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.runtime.session import TensorInfo

OUTPUTS = ("pred_logits", "pred_boxes", "pred_masks", "no_targets", "union_mask_logits")
SOURCES = {"evaluate": "test_data_sources", "inference": "infer_data_sources"}


def task(spec: Spec, action: str) -> str:
    """OD or VG: the ``data_type`` of the action's data."""
    return str(getattr(spec.dataset, SOURCES[action]).data_type)


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """Six inputs; the outputs of expressions (the last two) are there only in models that were exported for them."""
    names = OUTPUTS if len(outputs) >= len(OUTPUTS) else OUTPUTS[:3]
    by_name = {tensor.name: tensor for tensor in outputs}
    found = [by_name.get(name, tensor) for name, tensor in zip(names, outputs, strict=False)]
    # masks come with and without an axis of one, and "no target" in any shape
    masks_rank = max(4, min(5, len(found[2].shape))) if len(found) > 2 else 5
    ranks = [3, 3, masks_rank, *([len(found[3].shape), 4] if len(found) > 3 else [])]
    ports = tuple(Port(name, rank=rank) for name, rank in zip(names, ranks, strict=True))
    return expect(inputs=family.INPUTS, outputs=ports)(inputs, outputs)


def dataset(spec: Spec, action: str) -> Dataset:
    """OD: images and class names; VG: images and expressions.

    Raises:
        SpecError: a source is not named, or not of the task's kind.
        DataError: files are missing or malformed.
    """
    source = f"dataset.{SOURCES[action]}"
    if action == "inference":
        if task(spec, action) == "OD":
            return family.dataset(spec, action)
        lines = spec.require(f"{source}.captions")[0]
        found = expressions.to_find(lines, spec.require(f"{source}.image_dir"), strict=spec.strict)
        for issue in found.issues:
            say(f"note: {issue}")
        return found
    json_file = spec.require(f"{source}.json_file")
    is_lines = Path(json_file).suffix.lower() == ".jsonl"
    if task(spec, action) == "VG":
        read = expressions.from_lines if is_lines else expressions.from_coco
        return read(json_file, spec.require(f"{source}.image_dir"), strict=spec.strict)
    if is_lines:
        raise SpecError(
            f"{json_file} holds expressions, which are no classes",
            where=spec.where(f"{source}.json_file"),
            remedy=f"Set {source}.data_type to VG, or give a COCO json.",
        )
    return family.dataset(spec, action)


def calibration(spec: Spec) -> Dataset:
    """The calibration images, asked for what the inference data, or the test data, look for."""
    for action, listed in (("inference", "captions"), ("evaluate", "json_file")):
        if task(spec, action) == "VG" and getattr(getattr(spec.dataset, SOURCES[action]), listed):
            found = dataset(spec, action)
            assert isinstance(found, expressions.Expressions)
            return family.Prompted(calibration_images(spec), found.prompts)
    return family.calibration(spec)


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Classes with masks, or expressions.

    Raises:
        ModelError: the model has no outputs for expressions.
    """
    family.check_text_length(ports)
    section, select = getattr(spec, action), spec.model.num_select
    if task(spec, action) == "OD":
        least = section.conf_threshold if action == "inference" else 0.0  # masks of what is not shown are not made
        return lambda outputs, geometries: decode_classes(outputs, geometries, select, least)
    if OUTPUTS[-1] not in ports.outputs:
        raise ModelError(
            f"the model has no outputs for expressions, only {', '.join(map(str, ports.outputs.values()))}",
            where=spec.where(f"dataset.{SOURCES[action]}.data_type"),
            remedy=f"Set data_type to OD, or export a model with {' and '.join(OUTPUTS[3:])}.",
        )
    return lambda outputs, geometries: decode_expressions(
        outputs,
        geometries,
        select,
        least=section.conf_threshold,
        text_threshold=section.text_threshold,
        inside_threshold=section.ioi_threshold,
        nms_threshold=section.nms_threshold,
    )


def metric(spec: Spec, data: Dataset) -> Metric:
    """OD: COCO AP of boxes, and of masks where they are annotated; VG: overlap of merged masks."""
    if isinstance(data, expressions.Expressions):
        return MergedMasks()
    assert isinstance(data, family.Prompted)
    assert isinstance(data.data, CocoDetection)
    ids = family.categories(data.data)[1]
    masks = CocoMaskMetric(data.data, ids, spec.dataset.eval_class_ids) if has_masks(data.data) else None
    return BoxesAndMasks(family.metric(spec, data), masks)


def writer(spec: Spec, folder: Path, data: Dataset, ports: Ports) -> Writer:
    """Labels and pictures."""
    if isinstance(data, expressions.Expressions):
        return PhraseWriter(folder, spec.inference.color_map or None, data.root)
    return family.writer(spec, folder, data, ports)


def labels(spec: Spec) -> list[str]:
    """The class names to look for, for the manifest."""
    return family.labels(spec) if task(spec, "inference") == "OD" else []


NETWORK = Network(
    name="mask_grounding_dino",
    spec=Spec,
    bind=bind,
    dataset=dataset,
    calibration=calibration,
    transform=family.transform,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size,
    labels=labels,
)
gen_trt_engine, _evaluate, inference = verbs(NETWORK)


def evaluate(source: Any, overrides: Sequence[str] = (), *, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Measure the model; runs on expressions also leave the established latest_results.json beside results.json."""
    results = _evaluate(source, overrides, flags=flags)
    from nvidia_tao_deploy.actions.run import results_folder
    from nvidia_tao_deploy.files import write_json
    from nvidia_tao_deploy.spec.load import load_spec

    spec = load_spec(Spec, source, overrides, flags=flags or {})
    if task(spec, "evaluate") == "VG":
        now = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
        write_json(results_folder(spec, "evaluate") / "latest_results.json", latest(results, "VG", now))
    return results
