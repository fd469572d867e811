"""Label files, class colours, and the pictures of a change."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.data.image import decode
from nvidia_tao_deploy.data.masks import IGNORE, read_mask
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import atomic_write
from nvidia_tao_deploy.metrics.change import Truth
from nvidia_tao_deploy.predictions.output_paths import OutputPaths
from nvidia_tao_deploy.predictions.segmentation import to_canvas
from nvidia_tao_deploy.transforms.resize import resize
from nvidia_tao_deploy.transforms.transform import Geometry

BINARY = ((0, 0, 0), (255, 255, 255))
LAND_SCD = (
    (255, 255, 255), (255, 165, 0), (230, 30, 100), (70, 140, 0), (218, 112, 214),
    (0, 170, 240), (127, 235, 170), (230, 80, 0), (205, 220, 57), (218, 165, 32),
)  # fmt: skip
GAP = 10  # black pixels between the parts of a combined picture
GOLDEN_ANGLE = 0.618034  # hues that are never close to their predecessors


def palette(classes: int, data_name: str, given: Sequence[Sequence[int]] | None) -> NDArray[np.uint8]:
    """(C, 3) RGB by class: two classes are black and white; else the given colours, those of LandSCD, or fixed ones.

    The fixed ones are white for class 0 and hues that differ from class to class.
    """
    if classes == len(BINARY):
        return np.array(BINARY, np.uint8)
    if given is not None:
        return np.array(given, np.uint8)
    if data_name == "LandSCD" and classes <= len(LAND_SCD):
        return np.array(LAND_SCD[:classes], np.uint8)
    hues = [colorsys.hsv_to_rgb(i * GOLDEN_ANGLE % 1, 0.85, 0.85) for i in range(1, classes)]
    return np.asarray(np.array([(1, 1, 1), *hues]) * 255, np.uint8)


def read_label(sample: Sample, size: tuple[int, int], *, white_is_change: bool) -> NDArray[np.uint16]:
    """The sample's label file as classes (H, W), resized to ``size`` (width, height) by the nearest pixel.

    Several channels: the first one counts; palette files: the indices.

    Args:
        sample: its target is the label file.
        size: (width, height).
        white_is_change: pixels of 255 become 1, all others 0; else values are classes.

    Raises:
        DataError: the file is missing or no picture.
    """
    values = read_mask(Path(sample.target))
    values = np.clip(values[..., 0] if values.ndim == 3 else values, 0, IGNORE).astype(np.uint16)
    if white_is_change:
        values //= 255
    height, width = values.shape
    placed = Geometry((width, height), size, (size[0] / width, size[1] / height))
    return np.asarray(to_canvas(values, placed, IGNORE))


class ChangePictures:
    """Writes ``<name>.jpg`` (the prediction) and ``combined_visualisation/<name>.jpg`` for every pair.

    A name keeps its own suffix and its folders. Combined: before, after, prediction and, with ``truth``, the label,
    side by side at the network's size, 10 black pixels between them.

    Args:
        out_dir: the results folder.
        colors: (C, 3) RGB by class; labels that are no class are black.
        root: the folder that names are relative to.
        truth: reads a sample's labels (evaluate).
    """

    def __init__(self, out_dir: Path, colors: NDArray[np.uint8], root: Path | None, truth: Truth | None = None) -> None:
        self._out, self._combined = out_dir, out_dir / "combined_visualisation"
        self._colors, self._truth = colors, truth
        self._paths = OutputPaths(root)

    def write(self, sample: Sample, prediction: Array) -> None:
        """Write both pictures of one pair."""
        height, width = prediction.shape
        name = f"{self._paths(sample.path, '')}.jpg"
        drawn = self._colored(prediction)
        parts = [_shown(path, (width, height)) for path in sample.paths]
        parts.append(drawn)
        if self._truth is not None:
            parts.append(self._colored(self._truth(sample, (width, height))))
        gap = np.zeros((height, GAP, 3), np.uint8)
        _save(self._out / name, drawn)
        _save(self._combined / name, np.concatenate([piece for part in parts for piece in (part, gap)][:-1], axis=1))

    def close(self) -> list[Path]:
        """The folder of the predictions and that of the combined pictures."""
        return [self._out, self._combined]

    def _colored(self, classes: Array) -> NDArray[np.uint8]:
        known = classes < len(self._colors)
        return np.asarray(self._colors[np.where(known, classes, 0)] * known[..., None], np.uint8)


def _shown(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture as the network sees it, before the normalisation, whole grey levels by truncation."""
    pixels = np.asarray(decode(path), np.uint8)
    return np.asarray(np.clip(resize(pixels, size, "stretch").pixels, 0, 255), np.uint8)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    from PIL import Image

    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="JPEG")
