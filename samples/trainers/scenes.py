"""Training scenes, drawn once and resized as each network resizes its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from samples.data import image_rng
from samples.render import Pixels, draw_scene, split_indices

Resize = Callable[[Pixels, int, int], Pixels]


def training_scenes(
    count: int, width: int, height: int, resize: Resize
) -> Iterator[tuple[Pixels, NDArray[np.float32], NDArray[np.int64]]]:
    """``count`` scenes, more crowded than the test's.

    Gives pixels (height, width, 3), boxes (n, 4) xyxy in those pixels, and classes (n,).
    """
    indices = split_indices("train")
    for number in range(count):
        pixels, boxes = draw_scene(image_rng("scenes", "train", number), indices, targets=(6, 10), decoys=(2, 4))
        scale = np.array([width / pixels.shape[1], height / pixels.shape[0]] * 2)
        corners = np.array([[box.x1, box.y1, box.x2, box.y2] for box in boxes]).reshape(-1, 4) * scale
        classes = np.array([box.class_id for box in boxes], np.int64)
        yield resize(pixels, width, height), corners.astype(np.float32), classes
