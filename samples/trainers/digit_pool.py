"""Training digits, drawn once and brought to each network's input size as that network does it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from samples.render import TASKS, digits, draw_digit_and_decoy, image_rng, split_indices

Place = Callable[[Image.Image], Image.Image]


def stretch(size: int) -> Place:
    """Pillow's bilinear resize to a square, aspect not kept."""
    return lambda image: image.resize((size, size), Image.Resampling.BILINEAR)


def training_digits(copies: int, size: int, place: Place | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Every training digit drawn ``copies`` times.

    Returns uint8 images (M, 3, size, size), values (M,) and decoys (M,), indices into ``TASKS["decoy"]``.
    ``place`` brings a picture to its size; by default it is stretched.
    """
    place = place or stretch(size)
    indices = np.tile(split_indices("train"), copies)
    images = np.empty((len(indices), size, size, 3), np.uint8)
    decoys = np.empty(len(indices), np.int64)
    for number, index in enumerate(indices):
        pixels, decoy = draw_digit_and_decoy(image_rng("digits", "train", number), int(index))
        images[number] = place(Image.fromarray(pixels))
        decoys[number] = TASKS["decoy"].index(decoy)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    return planes, torch.from_numpy(digits()[1][indices]), torch.from_numpy(decoys)
