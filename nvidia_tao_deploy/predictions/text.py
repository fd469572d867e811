"""Class ids per time step -> text: CTC and attention decoding, greedy, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Bools
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import ModelError


class Text(NamedTuple):
    """What was read in one image.

    Attributes:
        text: the transcript.
        confidence: float32 product of step probabilities; which steps, says the decoder.
        character_confidences: (L,) float32, one per class that makes up the text.
    """

    text: str
    confidence: float
    character_confidences: NDArray[np.float32]


def decode_ctc(ids: Array, probabilities: Array, classes: Sequence[str], blank: int, where: str = "") -> list[Text]:
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
    kept = ids != blank
    kept[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    return _texts(ids, probabilities, kept, np.full(len(ids), ids.shape[1]), classes)


def decode_attention(
    ids: Array, probabilities: Array, classes: Sequence[str], stop: int, where: str = ""
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
    kept = np.logical_and.accumulate(ids != stop, axis=1)
    return _texts(ids, probabilities, kept, kept.sum(axis=1), classes)


def _texts(
    ids: Array, probabilities: NDArray[np.float32], kept: Bools, lengths: NDArray[np.intp], classes: Sequence[str]
) -> list[Text]:
    """The classes of the ``kept`` (n, T) steps of every row; confidences are products of the first ``lengths`` (n,)."""
    # Sequential, as rounding depends on the order; the leading 1 is the product of no step.
    factors = np.ones((len(ids), ids.shape[1] + 1), np.float32)
    factors[:, 1:] = probabilities
    totals = factors.cumprod(axis=1)[np.arange(len(ids)), lengths].tolist()
    ends = np.cumsum(kept.sum(axis=1)).tolist()
    names = list(map(classes.__getitem__, ids[kept].tolist()))
    steps = probabilities[kept]
    return [
        Text("".join(names[start:end]), total, steps[start:end])
        for start, end, total in zip([0, *ends], ends, totals, strict=False)
    ]


def _checked(ids: Array, probabilities: Array, classes: int, where: str) -> NDArray[np.float32]:
    if ids.size and (ids.min() < 0 or ids.max() >= classes):
        wrong = np.unique(ids[(ids < 0) | (ids >= classes)]).tolist()
        raise ModelError(
            f"the model gives class ids {some(wrong)}, but there are {classes} classes with the blank or end tokens",
            where=where or None,
            remedy="Give the character list of the training; of ocrnet, see model.prediction too (CTC or Attn).",
        )
    if not np.isfinite(probabilities).all():
        raise ModelError("the model's probabilities hold NaN or infinities")
    return probabilities.astype(np.float32, copy=False)
