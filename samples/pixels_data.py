"""Scenes of large digits with a class per pixel, and pairs of scenes with what changed between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.data import fresh_folder
from samples.render import (
    INK,
    SCENE_SIZES,
    Ink,
    Pixels,
    background,
    colors,
    image_rng,
    paint,
    scatter,
    split_indices,
    to_pixels,
)

CLASSES = ("background", "orange", "blue", "brown")
SIZES = (84, 128)
Labels = NDArray[np.uint8]


def mark(labels: Labels, ink: Ink, value: int) -> None:
    """Set ``value`` where the ink covers a pixel."""
    height, width = ink.coverage.shape
    labels[ink.y : ink.y + height, ink.x : ink.x + width][ink.coverage > INK] = value


def draw_masked(rng: np.random.Generator, indices: NDArray[np.int64]) -> tuple[Pixels, Labels]:
    """A scene RGB (h, w, 3) and the class of every pixel (h, w), as :data:`CLASSES` counts them."""
    width, height = SCENE_SIZES[rng.integers(len(SCENE_SIZES))]
    image, labels = background(rng, width, height), np.zeros((height, width), np.uint8)
    for ink in scatter(rng, indices, rng.permutation(colors(rng, (2, 3), (2, 3))).tolist(), width, height, SIZES):
        paint(rng, image, ink.coverage, ink.name, ink.x, ink.y)
        mark(labels, ink, CLASSES.index(ink.name))
    return to_pixels(image), labels


def draw_change(rng: np.random.Generator, indices: NDArray[np.int64]) -> tuple[Pixels, Pixels, Labels]:
    """A scene before and after, and 255 where an orange digit came or went (h, w).

    Decoys come and go as well, and the light changes; neither is a change.
    """
    width, height = SCENE_SIZES[rng.integers(len(SCENE_SIZES))]
    before = background(rng, width, height)
    after, labels = before.copy(), np.zeros((height, width), np.uint8)
    for ink in scatter(rng, indices, rng.permutation(colors(rng, (2, 3), (2, 3))).tolist(), width, height, SIZES):
        where = rng.choice(["both", "before", "after"])
        for image in (before, after):
            if where == "both" or (where == "before") == (image is before):
                paint(rng, image, ink.coverage, ink.name, ink.x, ink.y)
        if ink.name == "orange" and where != "both":
            mark(labels, ink, 255)
    shots = [image * rng.uniform(0.94, 1.06) + rng.normal(0, 0.015, image.shape) for image in (before, after)]
    return to_pixels(shots[0]), to_pixels(shots[1]), labels


def save(pixels: Pixels, path: Path) -> None:
    """Write a picture; JPEG with full chroma resolution: the ink's colour is what counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))


def write_masks(out: Path, *, test: int = 60, calibration: int = 40) -> Path:
    """Write ``out/pixel_classes``: ``images/<split>/*.jpg`` and ``masks/<split>/*.png``; grey values are classes."""
    with fresh_folder(Path(out) / "pixel_classes") as folder:
        for split, count in (("test", test), ("calibration", calibration)):
            for number in range(count):
                pixels, labels = draw_masked(image_rng("masks", split, number), split_indices(split))
                save(pixels, folder / "images" / split / f"scene_{number:04d}.jpg")
                save(labels, folder / "masks" / split / f"scene_{number:04d}.png")
    return Path(out) / "pixel_classes"


def write_changes(out: Path, *, test: int = 60, calibration: int = 40) -> Path:
    """Write ``out/pixel_changes``: ``A/*.jpg``, ``B/*.jpg``, ``label/*.png`` (white: change), ``list/<split>.txt``."""
    with fresh_folder(Path(out) / "pixel_changes") as folder:
        (folder / "list").mkdir()
        for split, count in (("test", test), ("calibration", calibration)):
            names = [f"{split}_{number:04d}" for number in range(count)]
            for number, name in enumerate(names):
                before, after, labels = draw_change(image_rng("changes", split, number), split_indices(split))
                save(before, folder / "A" / f"{name}.jpg")
                save(after, folder / "B" / f"{name}.jpg")
                save(labels, folder / "label" / f"{name}.png")
            (folder / "list" / f"{split}.txt").write_text("".join(f"{name}.jpg\n" for name in names))
    return Path(out) / "pixel_changes"
