"""Scenes of plates with a digit at known depth: near ones are large and warm, far ones small and lost in blue haze."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.data import fresh_folder
from samples.pixels_data import save
from samples.render import SCENE_SIZES, Pixels, background, image_rng, paint, split_indices, stroke, to_pixels

NEAR, FAR = 1.0, 8.0
SIDE = 150.0  # pixels of a plate at depth 1
WARM, HAZE = np.array([0.85, 0.60, 0.35]), np.array([0.35, 0.55, 0.85])


def draw_depth(rng: np.random.Generator, indices: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.float32]]:
    """A scene RGB (h, w, 3) and the depth of every pixel (h, w): a floor that recedes, and plates from far to near."""
    width, height = SCENE_SIZES[rng.integers(len(SCENE_SIZES))]
    floor = 1 / np.linspace(1 / FAR, 1 / rng.uniform(1.5, 3.0), height)
    depth = np.repeat(floor.astype(np.float32)[:, None], width, axis=1)
    image = haze(WARM * (0.3 + background(rng, width, height)), depth)
    for z in np.sort(rng.uniform(NEAR, 6.0, rng.integers(4, 8)))[::-1]:
        side = round(SIDE / z * rng.uniform(0.9, 1.1))
        x, y = int(rng.integers(-side // 3, width - side // 2)), int(rng.integers(-side // 3, height - side // 2))
        plate = np.ones((side, side, 3), np.float32) * WARM * rng.uniform(0.8, 1.1)
        ink = stroke(rng, int(rng.choice(indices)), side * 0.8)
        paint(rng, plate, ink, "brown", (side - ink.shape[1]) // 2, (side - ink.shape[0]) // 2)
        rows, columns = slice(max(y, 0), max(y + side, 0)), slice(max(x, 0), max(x + side, 0))
        part = image[rows, columns]
        part[...] = haze(plate[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]], np.float32(z))
        depth[rows, columns] = z
    return to_pixels(image), depth


def haze(colors: NDArray[np.float32], depth: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Colours as seen through the air: what is left of them falls with e^(-depth / 4)."""
    left = np.exp(-np.asarray(depth, np.float32) / 4)[..., None]
    return (colors * left + HAZE * (1 - left)).astype(np.float32)


def write_depth(out: Path, *, test: int = 40, calibration: int = 20) -> Path:
    """Write ``out/depth``: ``<split>/images/*.jpg``, ``<split>/depth/*.png`` (depth x 1000), ``<split>.txt``."""
    with fresh_folder(Path(out) / "depth") as folder:
        for split, count in (("test", test), ("calibration", calibration)):
            lines = []
            (folder / split / "depth").mkdir(parents=True)
            for number in range(count):
                pixels, depth = draw_depth(image_rng("depth", split, number), split_indices(split))
                name = f"{split}/images/scene_{number:04d}.jpg", f"{split}/depth/scene_{number:04d}.png"
                save(pixels, folder / name[0])
                Image.fromarray((depth * 1000).round().astype(np.uint16)).save(folder / name[1])
                lines.append(f"{name[0]} {name[1]}\n")
            (folder / f"{split}.txt").write_text("".join(lines))
    return Path(out) / "depth"
