"""Choosing the calibration images: the same ones every time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from nvidia_tao_deploy.errors import DataError

Item = TypeVar("Item")
DEFAULT_SEED = 42


def choose(paths: Sequence[Item], count: int, seed: int = DEFAULT_SEED) -> list[Item]:
    """``count`` of ``paths`` without repetition, sorted; depends on the set of paths and the seed only.

    Items are sorted by their text before sampling, so the order in which a file system lists them does not matter.

    Raises:
        DataError: no paths at all, or fewer than ``count``.
    """
    if not paths:
        raise DataError(
            "no calibration images were found",
            remedy="Set calibration.cal_image_dir to a folder with .jpg, .jpeg, .png or .bmp images.",
        )
    if len(paths) < count:
        raise DataError(
            f"{count} calibration images were asked for (cal_batches x cal_batch_size), only {len(paths)} were found",
            remedy="Lower cal_batches or cal_batch_size, or add images.",
        )
    ordered = sorted(paths, key=str)
    chosen = random.Random(seed).sample(range(len(ordered)), count)  # noqa: S311 - reproducible, not secret
    return [ordered[i] for i in sorted(chosen)]
