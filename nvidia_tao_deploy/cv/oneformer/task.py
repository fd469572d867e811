"""The task sentence of oneformer as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nvidia_tao_deploy.arrays import Array, Ints
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

START, END = 49406, 49407
# "the task is semantic / instance / panoptic" in the byte-pair vocabulary of CLIP
WORDS = {"semantic": (29119, 1550), "instance": (34572,), "panoptic": (1072, 24755)}
PROMPT = (518, 10549, 533)


def task_tokens(task: str, length: int) -> Ints:
    """(length,) ids of "The task is <task>": start, words, end; the rest is the end token again."""
    ids = (START, *PROMPT, *WORDS[task], END)[:length]
    tokens = np.full(length, END, np.int64)
    tokens[: len(ids)] = ids
    return tokens


class TaskTransform:
    """Fills the image input and the token input.

    Args:
        image: fills the image input.
        name: of the token input.
        task: semantic, instance or panoptic.
    """

    def __init__(self, image: ImageTransform, name: str, task: str) -> None:
        self._image, self._name, self._task = image, name, task

    def __call__(self, sample: Sample, out: Mapping[str, Array]) -> Geometry:
        """Write the sample into ``out``; DataError where the image cannot be read."""
        row = out[self._name]
        row[...] = task_tokens(self._task, row.shape[-1])
        return self._image(sample, out)

    def describe(self) -> dict[str, Any]:
        return {**self._image.describe(), "task": self._task}
