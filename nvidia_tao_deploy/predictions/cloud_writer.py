"""Files of boxes in point clouds: label lines and pictures from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Floats
from nvidia_tao_deploy.data.point_cloud import PointFormat
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import write_text
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.cloud_boxes import BIRDS_EYE
from nvidia_tao_deploy.predictions.detection_writer import save_picture
from nvidia_tao_deploy.predictions.rotated import corners
from nvidia_tao_deploy.predictions.types import CloudBoxes
from nvidia_tao_deploy.transforms.points import CloudTally

if TYPE_CHECKING:
    from PIL import Image

LABELS, PICTURES = "detected_labels", "detected_boxes"
SIDE = 1800  # pixels of a picture
FAR = 60.0  # metres at which the colour of points ends at the latest
BACKGROUND, TRUTH, FOUND = (16, 16, 24), (255, 60, 60), (70, 255, 70)


def label_file(sample: Sample) -> str:
    """The label file of a cloud below the results folder."""
    return f"{LABELS}/{sample.path.stem}.txt"


def label_lines(found: CloudBoxes, names: Sequence[str]) -> str:
    """KITTI lines of 16 fields: name, -1, -1, alpha and image box 0, then h, w, l, centre x, y, z, yaw, score."""
    lines = []
    for class_id, box, score in zip(found.class_ids.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True):
        x, y, z, length, width, height, yaw = box
        values = (0, 0, 0, 0, 0, height, width, length, x, y, z, yaw, score)
        lines.append(" ".join([names[class_id], "-1", "-1", *(f"{value:.4f}" for value in values)]) + "\n")
    return "".join(lines)


class CloudWriter:
    """Writes ``detected_labels/<stem>.txt`` and, where asked, ``detected_boxes/<stem>.png`` for each cloud.

    Args:
        names: of the classes, by id.
        form: how clouds are read; None: no pictures.
        area: least x, y, z, then greatest: what pictures show, metres.
        threshold: least score in pictures.
    """

    def __init__(
        self,
        out_dir: Path | str,
        names: Sequence[str],
        form: PointFormat | None,
        area: Sequence[float],
        threshold: float,
    ) -> None:
        self._folder, self._names, self._form = Path(out_dir), names, form
        self._area, self._threshold = area, threshold
        self._tally = CloudTally()

    def write(self, sample: Sample, prediction: CloudBoxes) -> None:
        """Write one cloud's files."""
        self._tally.add(prediction.geometry)
        write_text(self._folder / label_file(sample), label_lines(prediction, self._names))
        if self._form is not None:
            truth = sample.target.boxes if sample.target else np.zeros((0, 7))
            found = prediction.boxes[prediction.scores >= self._threshold]
            picture = birds_eye(self._form.read(sample.path), truth, found, self._area)
            save_picture(picture, self._folder / PICTURES / f"{sample.path.stem}.png")

    def close(self) -> list[Path]:
        """The folders written to."""
        for note in self._tally.notes():
            say(f"note: {note}")
        return [self._folder / LABELS, *([self._folder / PICTURES] if self._form else [])]


def birds_eye(points: NDArray[np.float32], truth: Floats, found: Floats, area: Sequence[float]) -> Image.Image:
    """A picture from above, x to the right, y up: points coloured by distance, truth red, detections green.

    A line from the centre to the front of a box shows where it heads.

    Args:
        points: (n, 3 or more) x, y, z, ... metres.
        truth: (K, 7) boxes.
        found: (N, 7) boxes.
        area: least x, y, z, then greatest; the picture is the square around it.
    """
    import cv2
    from PIL import Image, ImageDraw

    low, high = np.array(area[:2], np.float64), np.array(area[3:5], np.float64)
    scale = (SIDE - 1) / (high - low).max()

    def pixels(places: NDArray[np.floating]) -> Floats:
        return np.asarray((places - (low + high) / 2) * np.array([scale, -scale]) + (SIDE - 1) / 2)

    canvas = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    points = points[np.isfinite(points[:, :3]).all(1)]
    far = min(FAR, float(np.linalg.norm(np.maximum(np.abs(low), np.abs(high)))))
    ranges = np.clip(np.linalg.norm(points[:, :3], axis=1) / far, 0, 1)
    colormap = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    colors = colormap[(255 * (0.35 + 0.65 * ranges)).astype(np.uint8)]  # the darkest would not be seen
    places = np.clip(pixels(points[:, :2]), -9, SIDE + 9).astype(np.int64)
    for shift in np.ndindex(3, 3):
        column, row = (places + np.array(shift)).T
        seen = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
        canvas[row[seen], column[seen]] = colors[seen]
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for boxes, color, width in ((truth, TRUTH, 7), (found, FOUND, 3)):
        outlines = pixels(corners(boxes[:, BIRDS_EYE]))
        for outline, centre in zip(outlines, pixels(boxes[:, :2]), strict=True):
            front = (outline[0] + outline[3]) / 2
            draw.line([tuple(point) for point in (*outline, outline[0])], fill=color, width=width)
            draw.line([tuple(centre), tuple(front)], fill=color, width=width)
    return picture
