"""Files of semantic segmentation: label maps as pictures, and the source with the classes' colours over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.image import decode
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import atomic_write
from nvidia_tao_deploy.predictions.detection_writer import save_picture
from nvidia_tao_deploy.predictions.drawing import Rgb
from nvidia_tao_deploy.predictions.output_paths import OutputPaths
from nvidia_tao_deploy.predictions.segmentation import to_source
from nvidia_tao_deploy.predictions.types import LabelMap


def seeded_color(class_id: int) -> Rgb:
    """The established colour of a class: three draws of numpy's legacy randint(0, 255) after seed(i), as B, G, R."""
    blue, green, red = np.random.RandomState(class_id).randint(0, 255, 3).tolist()
    return red, green, blue


def blend(image: NDArray[np.uint8], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half of each, the fraction dropped; (H, W, 3) uint8."""
    total = image.astype(np.uint16)
    total += colors
    total >>= 1
    return total.astype(np.uint8)


class SegmentationWriter:
    """Writes ``mask_labels/<stem>.png`` (class indices) and ``vis_overlay/<name>`` (source size) per sample.

    Paths mirror the dataset's folders.

    Args:
        colors: by class index; classes beyond are black.
        at_source_size: label maps have the source's size, else the network's.
        factor: what class indices are multiplied with in label maps (255: black and white).
    """

    def __init__(
        self, out_dir: Path, colors: Sequence[Rgb], root: Path | None, *, at_source_size: bool = True, factor: int = 1
    ) -> None:
        self.labels_dir, self.overlays_dir = out_dir / "mask_labels", out_dir / "vis_overlay"
        self._palette = np.zeros((0x10000, 3), np.uint8)
        self._palette[: len(colors)] = np.array(colors, np.uint8).reshape(-1, 3)
        self._paths = OutputPaths(root)
        self._at_source_size, self._factor = at_source_size, factor

    def write(self, sample: Sample, prediction: LabelMap) -> None:
        """Write this sample's label map and overlay."""
        from PIL import Image

        on_source = to_source(prediction.class_ids, prediction.geometry)
        labels = on_source if self._at_source_size else prediction.class_ids
        if self._factor != 1:
            labels = (labels * np.uint8(self._factor)).astype(np.uint8)
        with atomic_write(self.labels_dir / self._paths(sample.path, ".png")) as temporary:
            Image.fromarray(np.ascontiguousarray(labels)).save(temporary, format="PNG")
        overlay = blend(np.asarray(decode(sample.path), np.uint8), self._palette[on_source])
        save_picture(Image.fromarray(overlay), self.overlays_dir / self._paths(sample.path, ""))

    def close(self) -> list[Path]:
        """The folders written to."""
        return [self.labels_dir, self.overlays_dir]
