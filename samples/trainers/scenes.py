"""Training scenes, drawn once and resized as each network resizes its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from samples.data import image_rng
from samples.render import Pixels, draw_scene, split_indices

Resize = Callable[[Pixels, int, int], Pixels]


def source_scenes(count: int) -> Iterator[tuple[Pixels, NDArray[np.float32], NDArray[np.int64]]]:
    """``count`` scenes, more crowded than the test's: pixels (h, w, 3), boxes (n, 4) xyxy, classes (n,)."""
    indices = split_indices("train")
    for number in range(count):
        pixels, boxes = draw_scene(image_rng("scenes", "train", number), indices, targets=(6, 10), decoys=(2, 4))
        corners = np.array([[box.x1, box.y1, box.x2, box.y2] for box in boxes], np.float32).reshape(-1, 4)
        yield pixels, corners, np.array([box.class_id for box in boxes], np.int64)


def training_scenes(
    count: int, width: int, height: int, resize: Resize
) -> Iterator[tuple[Pixels, NDArray[np.float32], NDArray[np.int64]]]:
    """:func:`source_scenes` resized: pixels (height, width, 3), boxes (n, 4) xyxy in those pixels, classes (n,)."""
    for pixels, boxes, classes in source_scenes(count):
        scale = np.array([width / pixels.shape[1], height / pixels.shape[0]] * 2)
        yield resize(pixels, width, height), (boxes * scale).astype(np.float32), classes
