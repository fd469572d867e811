"""Boards of three digits seen in two lights, and the golden board each belongs to."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samples.data import fresh_folder
from samples.pixels_data import save
from samples.render import Pixels, background, digits, image_rng, paint, split_indices, stroke, to_pixels

LIGHTS = ("WhiteLight", "SideLight")
WIDTH, HEIGHT, CELLS = 120, 80, 3
Design = list[tuple[str, int]]  # colour and digit index per cell; a colour of "" leaves the cell empty


def draw_design(rng: np.random.Generator, indices: NDArray[np.int64]) -> Design:
    """Two orange digits and a decoy (blue or brown), in any order."""
    names = rng.permutation(["orange", "orange", rng.choice(["blue", "brown"])])
    return [(str(name), int(rng.choice(indices))) for name in names]


def spoil(rng: np.random.Generator, design: Design, indices: NDArray[np.int64]) -> Design:
    """The design with one orange digit missing or replaced by one of another value."""
    cell = int(rng.choice([i for i, (name, _) in enumerate(design) if name == "orange"]))
    values = digits()[1]
    others = indices[values[indices] != values[design[cell][1]]]
    changed = ("", 0) if rng.random() < 0.5 else ("orange", int(rng.choice(others)))
    return [*design[:cell], changed, *design[cell + 1 :]]


def restyle(rng: np.random.Generator, design: Design, indices: NDArray[np.int64]) -> Design:
    """The design with decoys of any digit, which does not count."""
    return [(name, digit if name in ("orange", "") else int(rng.choice(indices))) for name, digit in design]


def draw_board(rng: np.random.Generator, design: Design) -> list[Pixels]:
    """The board in every light, RGB (80, 120, 3); digits lie a little differently on each board."""
    image = background(rng, WIDTH, HEIGHT)
    for cell, (name, digit) in enumerate(design):
        ink = stroke(rng, digit, rng.uniform(42, 48))
        x = round((cell + 0.5) * WIDTH / CELLS - ink.shape[1] / 2 + rng.uniform(-2, 2))
        y = round((HEIGHT - ink.shape[0]) / 2 + rng.uniform(-3, 3))
        if name:
            paint(rng, image, ink, name, x, y)
    side = np.linspace(0.65, 1.0, WIDTH, dtype=np.float32)[None, :, None] * rng.uniform(0.85, 1.0)
    return [to_pixels(image * light + rng.normal(0, 0.01, image.shape)) for light in (1.0, side)]


def draw_pair(
    rng: np.random.Generator, indices: NDArray[np.int64], *, defect: bool
) -> tuple[list[Pixels], list[Pixels]]:
    """A unit and its golden board, each in every light."""
    golden = draw_design(rng, indices)
    unit = restyle(rng, spoil(rng, golden, indices) if defect else golden, indices)
    return draw_board(rng, unit), draw_board(rng, golden)


def write_boards(out: Path, *, test: int = 120, calibration: int = 40) -> Path:
    """Write ``out/boards``: ``<split>.csv``, ``<split>/{unit,golden}/board_<n>_<light>.png``; every third a defect."""
    with fresh_folder(Path(out) / "boards") as folder:
        for split, count in (("test", test), ("calibration", calibration)):
            rows = [("input_path", "golden_path", "label", "object_name")]
            for number in range(count):
                defect, name = number % 3 == 0, f"board_{number:04d}"
                rng = image_rng("boards", split, number)
                boards = draw_pair(rng, split_indices(split), defect=defect)
                for role, board in zip(("unit", "golden"), boards, strict=True):
                    for light, pixels in zip(LIGHTS, board, strict=True):
                        save(pixels, folder / split / role / f"{name}_{light}.png")
                rows.append((f"{split}/unit", f"{split}/golden", "DEFECT" if defect else "PASS", name))
            with (folder / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(rows)
    return Path(out) / "boards"
