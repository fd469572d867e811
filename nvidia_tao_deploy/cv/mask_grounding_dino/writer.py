"""Files of expression inference: annotated pictures and KITTI labels, named by phrase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.cv.mask_grounding_dino.decode import Grounded
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.predictions.detection_writer import draw_found, kitti_line, save_picture, write_kitti_labels
from nvidia_tao_deploy.predictions.drawing import class_color
from nvidia_tao_deploy.predictions.output_paths import OutputPaths

OUTLINE = 3


class PhraseWriter:
    """Writes ``labels/<stem>.txt`` and ``images_annotated/<name>`` per expression.

    The k-th further expression of an image gets ``<stem>_<k>``.

    Args:
        out_dir: the results folder.
        colors: phrase -> colour; phrases not in it are listed but not drawn; None: a
            colour by phrase.
        root: folder that outputs mirror.
    """

    def __init__(self, out_dir: Path, colors: Mapping[str, Any] | None, root: Path | None) -> None:
        self.labels_dir, self.images_dir = out_dir / "labels", out_dir / "images_annotated"
        self._colors = colors
        self._paths = OutputPaths(root)
        self._seen: Counter[Path] = Counter()

    def write(self, sample: Sample, prediction: Grounded) -> None:
        """Write this expression's label file and picture."""
        number = self._seen[sample.path]
        self._seen[sample.path] += 1
        source = sample.path.with_stem(f"{sample.path.stem}_{number}") if number else sample.path
        detections = prediction.detections
        boxes, scores = detections.boxes_xyxy.tolist(), detections.scores.tolist()
        lines = [kitti_line(*row) for row in zip(prediction.phrases, boxes, scores, strict=True)]
        write_kitti_labels(self.labels_dir / self._paths(source, ".txt"), lines)
        texts = [f"{phrase}: {score:.2f}" for phrase, score in zip(prediction.phrases, scores, strict=True)]
        colors = [class_color(phrase, 0, self._colors) for phrase in prediction.phrases]
        picture = draw_found(sample.path, detections, texts, colors, OUTLINE, tag_above=True)
        save_picture(picture, self.images_dir / self._paths(source, ""))

    def close(self) -> list[Path]:
        """The folders written to."""
        return [self.labels_dir, self.images_dir]
