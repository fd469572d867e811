"""Lines of digits for the text networks: license plates, words, and scenes with turned lines.

Orange digits are the text. Brown ones between them are decoys that are not read (they differ in tone only); blue and
brown lines in scenes are no text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.data import fresh_folder
from samples.render import (
    SCENE_SIZES,
    Pixels,
    background,
    digits,
    image_rng,
    paint,
    split_indices,
    stroke,
    to_pixels,
)

Ink = NDArray[np.float32]
MAX_LENGTH = 6


def draw_line(rng: np.random.Generator, indices: NDArray[np.int64]) -> tuple[Pixels, str]:
    """One to six orange digits and up to one brown decoy in a row; RGB uint8 about 40 high, and the text."""
    count, decoys = int(rng.integers(1, MAX_LENGTH + 1)), int(rng.integers(0, 2))
    names = ["orange"] * count + ["brown"] * decoys
    names = [names[i] for i in rng.permutation(len(names))]
    chosen = [int(rng.choice(indices)) for _ in names]
    size = rng.uniform(24, 40)
    inks = [stroke(rng, digit, size * rng.uniform(0.92, 1.05)) for digit in chosen]
    margins = rng.integers(3, 10, 4)
    gaps = rng.integers(2, 6, len(inks))
    tallest = max(ink.shape[0] for ink in inks)
    width = int(sum(ink.shape[1] for ink in inks) + gaps.sum() + margins[:2].sum())
    image = background(rng, max(width, 16), int(tallest + margins[2:].sum()))
    x = int(margins[0])
    for ink, name, gap in zip(inks, names, gaps, strict=True):
        paint(rng, image, ink, name, x, int(margins[2] + rng.integers(0, tallest - ink.shape[0] + 1)))
        x += ink.shape[1] + int(gap)
    values = digits()[1]
    return to_pixels(image), "".join(str(values[i]) for i, name in zip(chosen, names, strict=True) if name == "orange")


def turned_line(rng: np.random.Generator, indices: NDArray[np.int64]) -> tuple[Ink, NDArray[np.float64], str]:
    """Three to five digits in a row, turned by up to 40 degrees: coverage (h, w), corners (4, 2) in it, and the text.

    Corners go clockwise from the line's top left; the outline keeps a margin of two pixels.
    """
    chosen = rng.choice(indices, int(rng.integers(3, 6)))
    size = rng.uniform(26, 36)
    inks = [stroke(rng, int(digit), size) for digit in chosen]
    height, gap = max(ink.shape[0] for ink in inks) + 4, 4
    width = sum(ink.shape[1] + gap for ink in inks) + gap - 4
    line = np.zeros((height, width), np.float32)
    x = 2
    for ink in inks:
        y = (height - ink.shape[0]) // 2
        line[y : y + ink.shape[0], x : x + ink.shape[1]] = ink
        x += ink.shape[1] + gap
    angle = rng.uniform(-40, 40)
    turned = np.asarray(Image.fromarray(line).rotate(angle, Image.Resampling.BICUBIC, expand=True)).clip(0, 1)
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    middle = np.array(turned.shape[::-1]) / 2
    return turned, corners @ matrix.T + middle, "".join(str(digits()[1][digit]) for digit in chosen)


def draw_text_scene(
    rng: np.random.Generator, indices: NDArray[np.int64], lines: tuple[int, int] = (2, 4)
) -> tuple[Pixels, list[tuple[NDArray[np.float64], str]]]:
    """A scene of orange lines and one or two blue or brown ones, none touching another.

    Returns RGB uint8 and the orange lines' corners (4, 2) and texts. ``lines`` is the inclusive range of how many are
    tried; one that finds no room is left out.
    """
    width, height = SCENE_SIZES[rng.integers(len(SCENE_SIZES))]
    image = background(rng, width, height)
    names = ["orange"] * int(rng.integers(lines[0], lines[1] + 1))
    names += [("blue", "brown")[rng.integers(2)] for _ in range(rng.integers(1, 3))]
    taken: list[tuple[int, int, int, int]] = []
    found = []
    for name in names:
        ink, corners, text = turned_line(rng, indices)
        h, w = ink.shape
        for _ in range(60):
            x, y = int(rng.integers(2, max(width - w - 1, 3))), int(rng.integers(2, max(height - h - 1, 3)))
            if (
                x + w < width
                and y + h < height
                and all(x > c or x + w < a or y > d or y + h < b for a, b, c, d in taken)
            ):
                taken.append((x, y, x + w, y + h))
                paint(rng, image, ink, name, x, y)
                if name == "orange":
                    found.append((corners + np.array([x, y]), text))
                break
    return to_pixels(image), found


def write_plates(out: Path, *, test: int = 200) -> Path:
    """Write ``out/plates``: ``characters.txt``, ``images/*.jpg`` and ``labels/*.txt``, one plate each."""
    with fresh_folder(Path(out) / "plates") as folder:
        _write_characters(folder)
        for name in ("images", "labels"):
            (folder / name).mkdir()
        for number in range(test):
            pixels, text = draw_line(image_rng("text_lines", "test", number), split_indices("test"))
            Image.fromarray(pixels).save(folder / "images" / f"plate_{number:04d}.jpg", quality=95, subsampling=0)
            (folder / "labels" / f"plate_{number:04d}.txt").write_text(f"{text}\n")
    return Path(out) / "plates"


def write_words(out: Path, *, test: int = 200, calibration: int = 60) -> Path:
    """Write ``out/words``: ``characters.txt``, ``<split>/*.png`` and ``<split>.txt``, lines of "file transcript"."""
    with fresh_folder(Path(out) / "words") as folder:
        _write_characters(folder)
        for split, count in (("test", test), ("calibration", calibration)):
            (folder / split).mkdir()
            lines = []
            for number in range(count):
                pixels, text = draw_line(image_rng("text_lines", split, number), split_indices(split))
                Image.fromarray(pixels).save(folder / split / f"word_{number:04d}.png")
                lines.append(f"word_{number:04d}.png {text}\n")
            (folder / f"{split}.txt").write_text("".join(lines))
    return Path(out) / "words"


def write_text_scenes(out: Path, *, test: int = 80, calibration: int = 40) -> Path:
    """Write ``out/text_scenes``: ``<split>/img/*.png`` and ``<split>/gt/gt_*.txt``, ICDAR lines (4 corners, text)."""
    with fresh_folder(Path(out) / "text_scenes") as folder:
        for split, count in (("test", test), ("calibration", calibration)):
            for name in ("img", "gt"):
                (folder / split / name).mkdir(parents=True)
            for number in range(count):
                rng = image_rng("text_scenes", split, number)
                pixels, lines = draw_text_scene(rng, split_indices(split))
                Image.fromarray(pixels).save(
                    folder / split / "img" / f"text_{number:04d}.jpg", quality=95, subsampling=0
                )
                rows = [",".join([*(f"{value:.1f}" for value in corners.ravel()), text]) for corners, text in lines]
                (folder / split / "gt" / f"gt_text_{number:04d}.txt").write_text("".join(f"{row}\n" for row in rows))
    return Path(out) / "text_scenes"


def _write_characters(folder: Path) -> None:
    (folder / "characters.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
