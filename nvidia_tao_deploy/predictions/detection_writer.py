"""Files of detection inference: annotated pictures and KITTI labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nvidia_tao_deploy.arrays import Ints
from nvidia_tao_deploy.data.image import decode
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.files import atomic_write, write_text
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.drawing import Rgb, class_color, draw_box, draw_mask
from nvidia_tao_deploy.predictions.output_paths import OutputPaths
from nvidia_tao_deploy.predictions.types import Detections

if TYPE_CHECKING:
    from PIL import Image


class DetectionWriter:
    """Writes ``labels/<stem>.txt`` and ``images_annotated/<name>`` for each sample, below ``out_dir``.

    Paths mirror the dataset's folders. A detection is written if its class has a name and its score reaches the
    threshold, in the network's order; an image without one gets an empty label file. Likely detections of classes
    without a name are counted and told at the end.

    Args:
        names: class id -> name; a sequence names ids from 0, None entries and ids beyond it are left out. None: every
            class is written by its id, and tags show the score alone.
        threshold: least score, compared in float32 as a model's scores are; for all classes or by class id (ids not
            in the mapping: 0).
        colors: name -> colour (names not in it are listed but not drawn); a palette by class id; None: by name.
        tag_above: the tag stands on the box's upper edge instead of in its corner (prompted networks).
    """

    def __init__(
        self,
        out_dir: Path | str,
        names: Mapping[int, str] | Sequence[str | None] | None,
        threshold: float | Mapping[int, float] = 0.0,
        colors: Mapping[str, Any] | Sequence[Any] | None = None,
        root: Path | None = None,
        *,
        tag_above: bool = False,
    ) -> None:
        self.labels_dir, self.images_dir = Path(out_dir) / "labels", Path(out_dir) / "images_annotated"
        listed = names.items() if isinstance(names, Mapping) else enumerate(names or ())
        self._by_id, self._threshold, self._palette, self._tag_above = names is None, threshold, colors, tag_above
        self._names: dict[int, str] = {}
        self._colors: dict[int, Rgb | None] = {}
        # resolved here, so that a wrong colour fails before the first image
        self._add({class_id: name for class_id, name in listed if name is not None})
        self._paths = OutputPaths(root)
        self._left_out: Counter[int] = Counter()

    def _kept(self, prediction: Detections) -> Ints:
        """The rows to be written; likely ones of a class without a name are counted."""
        least: Any = self._threshold
        if isinstance(least, Mapping):
            least = [least.get(class_id, 0.0) for class_id in prediction.class_ids.tolist()]
        likely = np.flatnonzero(prediction.scores.astype(np.float32) >= np.asarray(least, np.float32))
        classes = prediction.class_ids[likely].tolist()
        if self._by_id:
            self._add({class_id: str(class_id) for class_id in classes if class_id not in self._names})
        self._left_out.update(class_id for class_id in classes if class_id not in self._names)
        named = np.array([class_id in self._names for class_id in classes], bool)
        return np.asarray(likely[named])

    def write(self, sample: Sample, prediction: Detections) -> None:
        """Write this sample's label file and picture."""
        found = prediction[self._kept(prediction)]
        lines = [kitti_line(self._names[class_id], box, score) for class_id, box, score in _rows(found)]
        write_kitti_labels(self.labels_dir / self._paths(sample.path, ".txt"), lines)
        texts = [("" if self._by_id else f"{self._names[i]}: ") + f"{score:.2f}" for i, _, score in _rows(found)]
        colors = [self._colors[class_id] for class_id in found.class_ids.tolist()]
        picture = draw_found(sample.path, found, texts, colors, tag_above=self._tag_above)
        save_picture(picture, self.images_dir / self._paths(sample.path, ""))

    def close(self) -> list[Path]:
        """Say what was left out; the folders written to."""
        if self._left_out:
            classes = some([f"{class_id} ({count})" for class_id, count in sorted(self._left_out.items())])
            total = sum(self._left_out.values())
            say(f"note: {counted(total, 'detections left out')}, the class map does not name their classes: {classes}")
        return [self.labels_dir, self.images_dir]

    def _add(self, names: Mapping[int, str]) -> None:
        self._names.update(names)
        self._colors.update({i: class_color(name, i, self._palette) for i, name in names.items()})


def draw_found(
    source: Path,
    found: Detections,
    texts: Sequence[str],
    colors: Sequence[Rgb | None],
    outline_width: int = 1,
    *,
    tag_above: bool = False,
) -> Image.Image:
    """The picture with the masks of what was found, then the boxes and their texts; what has no colour is left out."""
    from PIL import Image

    picture = Image.fromarray(decode(source))
    for mask, color in zip(found.masks if found.masks is not None else (), colors, strict=False):
        if color is not None:
            draw_mask(picture, mask, color)
    for box, text, color in zip(found.boxes_xyxy.tolist(), texts, colors, strict=True):
        if color is not None:
            draw_box(picture, box, text, color, outline_width, tag_above=tag_above)
    return picture


def _rows(found: Detections) -> Iterable[tuple[int, list[float], float]]:
    """(class id, box, score) of each."""
    return zip(found.class_ids.tolist(), found.boxes_xyxy.tolist(), found.scores.tolist(), strict=True)


def kitti_line(name: str, box_xyxy: Iterable[float], score: float) -> str:
    """One label line of 16 fields, without its end.

    Coordinates and score have 3 decimals; fields a 2-D detector does not know are zero. A name with blanks is
    written as it is.
    """
    x1, y1, x2, y2 = box_xyxy
    return f"{name} 0.00 0 0.00 {x1:.3f} {y1:.3f} {x2:.3f} {y2:.3f} 0.00 0.00 0.00 0.00 0.00 0.00 0.00 {score:.3f}"


def write_kitti_labels(path: Path, lines: Iterable[str]) -> None:
    """Write the lines of one image, each ended by a newline; no line leaves an empty file."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write an RGB picture in the format of its suffix (JPEG at quality 90), as a whole."""
    from PIL import Image

    options = {"quality": 90} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    with atomic_write(path) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[path.suffix.lower()], **options)
