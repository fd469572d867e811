"""Pictures of universal segmentation: coloured regions with an edge and a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Bools
from nvidia_tao_deploy.data.image import decode
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.predictions.detection_writer import save_picture
from nvidia_tao_deploy.predictions.drawing import Rgb
from nvidia_tao_deploy.predictions.output_paths import OutputPaths
from nvidia_tao_deploy.predictions.segmentation import to_source
from nvidia_tao_deploy.predictions.segmentation_writer import seeded_color
from nvidia_tao_deploy.predictions.types import Detections, LabelMap, PanopticMap

if TYPE_CHECKING:
    from PIL import Image

EDGE: Rgb = (255, 255, 240)
ALPHA = {LabelMap: 0.8, PanopticMap: 0.7, Detections: 0.5}
BOX_ALPHA = 0.8
SMALL_AREA, SMALL_HEIGHT = 1000, 40
JITTER = 0.12  # of a thing's colour, as a share of the full range


@dataclass(frozen=True)
class SegmentClass:
    """How a class is drawn."""

    name: str
    color: Rgb
    isthing: bool = True


@dataclass(frozen=True)
class Region:
    """One region of a picture: its pixels (H, W) bool, colour and text."""

    mask: Bools
    color: Rgb
    text: str


def draw_regions(image: NDArray[np.uint8], regions: Sequence[Region], alpha: float) -> NDArray[np.uint8]:
    """A copy of the picture (H, W, 3) with the regions over it, in their order; texts come last.

    Args:
        image: RGB.
        regions: of the picture's size.
        alpha: share of the colour.
    """
    import cv2
    from PIL import Image

    canvas = image.copy()
    for region in regions:
        blended = canvas[region.mask] * (1 - alpha) + np.array(region.color) * alpha
        canvas[region.mask] = blended.astype(np.uint8)
        contours, _ = cv2.findContours(region.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, EDGE, 1)
    picture = Image.fromarray(canvas)
    for region in regions:
        if region.text and region.mask.any():
            _write(picture, region)
    return np.asarray(picture)


def _write(picture: Image.Image, region: Region) -> None:
    """The region's text on a dark box, inside its largest part, or below where that is small."""
    import cv2
    from PIL import Image, ImageDraw, ImageFont

    width, height = picture.size
    _, _, stats, _ = components = cv2.connectedComponentsWithStats(region.mask.astype(np.uint8), connectivity=8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, _, high, area = stats[largest].tolist()
    font = ImageFont.load_default(size=max(int(np.sqrt(height * width)) // 90, 10))
    x0, y0, x1, y1 = ImageDraw.Draw(picture).textbbox((0, 0), region.text, font=font)
    box = (x1 - x0 + 4, y1 - y0 + 4)
    if area < SMALL_AREA or high < SMALL_HEIGHT:
        x, y = left, top + high
    else:
        # the pixel furthest from the edge: a text there is inside, whatever the shape
        part = np.pad((components[1] == largest).astype(np.uint8), 1)
        depth = cv2.distanceTransform(part, cv2.DIST_L2, 3)[1:-1, 1:-1]
        row, column = divmod(int(depth.argmax()), width)
        x, y = column - box[0] // 2, row - box[1] // 2
    x, y = (int(np.clip(at, 0, max(limit - size, 0))) for at, limit, size in ((x, width, box[0]), (y, height, box[1])))
    under = picture.crop((x, y, x + box[0], y + box[1]))
    picture.paste(Image.blend(under, Image.new("RGB", under.size), BOX_ALPHA), (x, y))
    light = tuple(int(255 - (255 - channel) * 0.4) for channel in region.color)
    ImageDraw.Draw(picture).text((x + 2 - x0, y + 2 - y0), region.text, fill=light, font=font)


def label_regions(prediction: LabelMap, classes: Sequence[SegmentClass]) -> list[Region]:
    """A region per class that occurs, the largest first."""
    labels = to_source(prediction.class_ids, prediction.geometry)
    areas = np.bincount(labels.ravel(), minlength=len(classes))
    found = sorted(np.flatnonzero(areas).tolist(), key=lambda index: -int(areas[index]))
    return [Region(labels == index, *_style(index, classes)) for index in found]


def panoptic_regions(prediction: PanopticMap, classes: Sequence[SegmentClass]) -> list[Region]:
    """Stuff first, then things, the largest first; things of one class differ in shade."""
    segments = to_source(prediction.segment_ids, prediction.geometry)
    areas = np.bincount(segments.ravel(), minlength=len(prediction.class_ids) + 1)
    rows = []
    for number, class_id in enumerate(prediction.class_ids.tolist(), start=1):
        if areas[number]:
            color, text = _style(class_id, classes)
            thing = class_id >= len(classes) or classes[class_id].isthing
            rows.append((thing, -int(areas[number]), number, shade(color, number) if thing else color, text))
    return [Region(segments == number, color, text) for _, _, number, color, text in sorted(rows)]


def instance_regions(prediction: Detections, classes: Sequence[SegmentClass]) -> list[Region]:
    """A region per instance with its score in percent, the largest first."""
    assert prediction.masks is not None
    order = np.argsort(-prediction.masks.sum(axis=(1, 2)), kind="stable")
    regions = []
    for row in order.tolist():
        _, name = _style(int(prediction.class_ids[row]), classes)
        text = f"{name} {prediction.scores[row] * 100:.0f}%"
        regions.append(Region(prediction.masks[row], seeded_color(row), text))
    return regions


def shade(color: Rgb, number: int) -> Rgb:
    """The colour moved a little, always the same way for the same number."""
    moved = np.array(color) + np.random.default_rng(number).uniform(-JITTER, JITTER, 3) * 255
    red, green, blue = np.clip(moved, 0, 255).astype(int).tolist()
    return red, green, blue


def _style(class_id: int, classes: Sequence[SegmentClass]) -> tuple[Rgb, str]:
    if class_id < len(classes):
        return classes[class_id].color, classes[class_id].name
    return seeded_color(class_id), str(class_id)


class SegmentWriter:
    """Writes ``<stem>.jpg`` of the source's size per sample; paths mirror the dataset's folders.

    Args:
        classes: by class index.
    """

    def __init__(self, out_dir: Path, classes: Sequence[SegmentClass], root: Path | None) -> None:
        self._out_dir, self._classes, self._paths = out_dir, list(classes), OutputPaths(root)

    def write(self, sample: Sample, prediction: LabelMap | PanopticMap | Detections) -> None:
        """Write this sample's picture."""
        from PIL import Image

        if isinstance(prediction, LabelMap):
            regions = label_regions(prediction, self._classes)
        elif isinstance(prediction, PanopticMap):
            regions = panoptic_regions(prediction, self._classes)
        else:
            regions = instance_regions(prediction, self._classes)
        image = np.asarray(decode(sample.path), np.uint8)
        drawn = draw_regions(image, regions, ALPHA[type(prediction)])
        save_picture(Image.fromarray(drawn), self._out_dir / self._paths(sample.path, ".jpg"))

    def close(self) -> list[Path]:
        """The folder written to."""
        return [self._out_dir]
