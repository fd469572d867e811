"""Query detectors on COCO data: deformable_detr, dino, rtdetr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import read_lines
from nvidia_tao_deploy.network import Port, expect
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter

bind = expect(
    inputs=(Port("inputs", channels=(1, 3)),),
    outputs=(Port("pred_logits", rank=3), Port("pred_boxes", rank=3)),
)


def dataset(spec: Any, action: str) -> Dataset:
    """evaluate: ``dataset.test_data_sources``; inference: the folders of ``dataset.infer_data_sources``.

    Raises:
        SpecError: the source is not named.
        DataError: files are missing or malformed.
    """
    if action == "evaluate":
        json_file = spec.require("dataset.test_data_sources.json_file")
        image_dir = spec.require("dataset.test_data_sources.image_dir")
        return CocoDetection(json_file, image_dir, strict=spec.strict)
    return ImageFolder(spec.require("dataset.infer_data_sources.image_dir"))


def read_classmap(path: Path | str) -> list[str | None]:
    """One class name per line, by line number; a blank line names nothing.

    Raises:
        DataError: the file is missing or not text.
    """
    return [line.strip() or None for line in read_lines(Path(path))]


def writer(spec: Any, folder: Path, data: Dataset, names: Mapping[int, str] | Sequence[str | None]) -> DetectionWriter:
    """Labels and pictures by ``inference.conf_threshold`` and ``inference.color_map``."""
    section = spec.inference
    return DetectionWriter(folder, names, section.conf_threshold, section.color_map or None, data.root)
