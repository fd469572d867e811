"""Class maps by line, and the files of detectors whose class map may be left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families.coco_detection import read_classmap
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.drawing import PALETTE
from nvidia_tao_deploy.predictions.types import Detections


def read_class_map(path: Path | str) -> dict[int, str]:
    """Line i (from 0) names class i + 1; a blank line names nothing.

    Raises:
        SpecError: the file names no class.
        DataError: the file is missing or not text.
    """
    names = {number: name for number, name in enumerate(read_classmap(path), 1) if name}
    if not names:
        raise SpecError("the class map names no class", where=str(path), remedy="Write one class name per line.")
    return names


def labels(spec: Any) -> Sequence[str]:
    """Names of ``inference.class_map`` where it is there, for the manifest."""
    path = spec.inference.class_map
    return list(read_class_map(path).values()) if path and Path(path).is_file() else ()


class LeftOut:
    """Counts detections that a class map does not name, so that none vanishes in silence."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def take(self, class_ids: list[int]) -> None:
        """Count one detection of each of these classes."""
        self._count.update(class_ids)

    def tell(self) -> None:
        """Say what was left out, if anything."""
        if self._count:
            classes = some([f"{class_id} ({count})" for class_id, count in sorted(self._count.items())])
            total = sum(self._count.values())
            say(f"note: {total} detections left out, the class map does not name their classes: {classes}")


class ClassMapWriter(DetectionWriter):
    """Labels and pictures in the family's five colours.

    Args:
        names: class id -> name; None: every class is written by its id, and tags show the score alone.
        threshold: least score, compared in float32.
    """

    def __init__(self, out_dir: Path | str, names: Mapping[int, str] | None, threshold: float, root: Path | None):
        # scores are float32: a model's 0.3 must reach a spec's 0.3
        least = float(np.float32(threshold))
        super().__init__(out_dir, names or {}, least, PALETTE, root, score_only=names is None)
        self._by_id, self._least_score, self._left_out = names is None, least, LeftOut()

    def write(self, sample: Sample, prediction: Detections) -> None:
        """Write this sample's label file and picture.

        Raises:
            DataError: a file cannot be written, or the picture cannot be read.
        """
        classes = prediction.class_ids[prediction.scores >= self._least_score].tolist()
        unknown = [class_id for class_id in classes if class_id not in self._names]
        if self._by_id:
            self._names.update({class_id: str(class_id) for class_id in unknown})
            self._colors.update({class_id: PALETTE[class_id % len(PALETTE)] for class_id in unknown})
        else:
            self._left_out.take(unknown)
        super().write(sample, prediction)

    def close(self) -> list[Path]:
        """Say what was left out; the folders written to."""
        self._left_out.tell()
        return super().close()
