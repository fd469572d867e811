"""Class ids per time step -> text: CTC and attention decoding, greedy, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import ModelError


@dataclass(frozen=True)
class Text:
    """What was read in one image.

    Attributes:
        text: the transcript.
        confidence: float32 product of step probabilities; which steps, says the decoder.
        character_confidences: (L,) float32, one per class that makes up the text.
    """

    text: str
    confidence: float
    character_confidences: NDArray[np.float32]


def decode_ctc(
    ids: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str], blank: int, where: str = ""
) -> list[Text]:
    """Collapse equal neighbours, drop the blank, join the classes.

    A character's confidence is that of the first step of its run. The confidence of a text is the running float32
    product over all steps, blanks and repeats included.

    Args:
        ids: (n, T) integer class ids.
        probabilities: (n, T), of the ids.
        classes: by id; the entry at ``blank`` is not used.
        blank: id of the CTC blank.
        where: the file that names the classes, for messages.

    Raises:
        ModelError: an id without a class, or a probability that is no number.
    """
    probabilities = _checked(ids, probabilities, len(classes), where)
    first = np.ones(ids.shape, bool)
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    kept = first & (ids != blank)
    totals = _products(probabilities)
    return [
        Text("".join(classes[i] for i in row[keep].tolist()), float(total), steps[keep])
        for row, steps, keep, total in zip(ids, probabilities, kept, totals, strict=True)
    ]


def decode_attention(
    ids: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str], stop: int, where: str = ""
) -> list[Text]:
    """The classes before the first ``stop``, or of all steps where there is none.

    The confidence is the running float32 product over those steps; 1 for an empty text.

    Args:
        ids: (n, T) integer class ids.
        probabilities: (n, T), of the ids.
        classes: by id.
        stop: id of the end token.
        where: the file that names the classes, for messages.

    Raises:
        ModelError: an id without a class, or a probability that is no number.
    """
    probabilities = _checked(ids, probabilities, len(classes), where)
    ended = ids == stop
    lengths = np.where(ended.any(axis=1), ended.argmax(axis=1), ids.shape[1])
    found = []
    for row, steps, length in zip(ids, probabilities, lengths.tolist(), strict=True):
        total = _products(steps[None, :length])[0]
        found.append(Text("".join(classes[i] for i in row[:length].tolist()), float(total), steps[:length]))
    return found


def _products(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Running products of rows; 1 for no step. Sequential, as rounding depends on the order."""
    if not probabilities.shape[1]:
        return np.ones(len(probabilities), np.float32)
    return np.asarray(np.cumprod(probabilities, axis=1, dtype=np.float32)[:, -1])


def _checked(ids: NDArray[Any], probabilities: NDArray[Any], classes: int, where: str) -> NDArray[np.float32]:
    wrong = np.unique(ids[(ids < 0) | (ids >= classes)]).tolist()
    if wrong:
        raise ModelError(
            f"the model gives class ids {some(wrong)}, but there are {classes} classes with the blank or end tokens",
            where=where or None,
            remedy="Give the character list of the training.",
        )
    if not np.isfinite(probabilities).all():
        raise ModelError("the model's probabilities hold NaN or infinities")
    return probabilities.astype(np.float32)
