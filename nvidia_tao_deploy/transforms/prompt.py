"""The text inputs of prompted networks: class names or an expression -> token ids and masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

TEXT_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "text_token_mask")


@dataclass(frozen=True)
class Prompt:
    """One caption as the text encoder takes it, T tokens long.

    Attributes:
        caption: the text.
        input_ids: (T,) int64, [PAD] behind the caption.
        attention_mask: (T,) bool, true on the caption's tokens.
        position_ids: (T,) int64, starting anew at each phrase.
        token_type_ids: (T,) int64, zeros.
        text_token_mask: (T, T) bool, tokens of one phrase see each other.
        spans: (n, 2) int64, first token of each class and the one after its last; (0, 2) for an expression.
        words: ids -> text, special tokens left out.
    """

    caption: str
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    position_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    text_token_mask: NDArray[np.bool_]
    spans: NDArray[np.int64]
    words: Callable[[Sequence[int]], str] = field(repr=False, compare=False)

    def phrase(self, active: NDArray[np.bool_]) -> str:
        """The text of the active (T,) tokens."""
        return self.words(self.input_ids[active].tolist())


class PromptEncoder:
    """Captions -> :class:`Prompt` of one length.

    Args:
        tokenizer: a ``tokenizers.Tokenizer`` of the BERT kind.
        length: T, the model's text length.
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.length = length
        self._tokenizer = tokenizer
        self._pad = int(tokenizer.token_to_id("[PAD]"))
        found = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", ".", "?"))
        self._special = np.array([i for i in found if i is not None], dtype=np.int64)
        self._hidden = {int(tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]", "[PAD]")}

    def classes(self, names: Sequence[str]) -> Prompt:
        """The caption "name . name ." and each name's tokens; blanks around names and upper case do not count.

        A name's tokens are found by its own place in the caption, so names that contain each other, or repeat, keep
        their own.

        Raises:
            SpecError: a name has no token, or the caption is longer than T; the classes past the end are named.
        """
        cleaned = [name.strip().lower() for name in names]
        caption = " . ".join(cleaned) + " ."
        ids, offsets = self._encode(caption)
        ends = np.cumsum([len(name) + 3 for name in cleaned])
        spans, silent = [], []
        for name, raw, end in zip(cleaned, names, ends.tolist(), strict=True):
            start = end - 3 - len(name)
            inside = np.flatnonzero((offsets[:, 0] < start + len(name)) & (offsets[:, 1] > start))
            if len(inside):
                spans.append((int(inside[0]), int(inside[-1]) + 1))
            else:
                silent.append(raw)
        if silent:
            raise SpecError(
                f"class names without a token: {some(repr(name) for name in silent)}",
                remedy="Every class needs a name of letters or digits.",
            )
        if len(ids) > self.length:
            past = [raw for raw, (_, end) in zip(names, spans, strict=True) if end > self.length - 2]
            raise SpecError(
                f"the caption of {len(names)} classes has {len(ids)} tokens, the model takes {self.length}; "
                f"past the end: {some(past, 20)}",
                remedy="Use fewer or shorter class names, or run the classes in several parts.",
            )
        return self._prompt(caption, ids, spans)

    def expression(self, text: str) -> Prompt:
        """One expression as it is; DataError where it is empty or longer than T."""
        caption = text.strip()
        ids, offsets = self._encode(caption)
        if not (offsets[:, 1] > 0).any():
            raise DataError(f"the expression {text!r} has no token")
        if len(ids) > self.length:
            raise DataError(f"the expression has {len(ids)} tokens, the model takes {self.length}: {caption[:80]!r}")
        return self._prompt(caption, ids, [])

    def _encode(self, caption: str) -> tuple[list[int], NDArray[np.int64]]:
        encoding = self._tokenizer.encode(caption)
        return encoding.ids, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)

    def _prompt(self, caption: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> Prompt:
        padded = np.full(self.length, self._pad, np.int64)
        padded[: len(ids)] = ids
        mask, positions = phrase_blocks(padded, self._special)
        return Prompt(
            caption,
            padded,
            padded != self._pad,
            positions,
            np.zeros(self.length, np.int64),
            mask,
            np.array(spans, dtype=np.int64).reshape(-1, 2),
            self._words,
        )

    def _words(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([i for i in ids if i not in self._hidden], skip_special_tokens=True))


def phrase_blocks(ids: NDArray[np.int64], special: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which tokens see each other, and positions within phrases.

    A phrase runs from behind one special token to the next, which belongs to it; the first and the last place of the
    row start and end no phrase. Every token sees itself.

    Args:
        ids: (T,) padded token ids.
        special: ids of [CLS], [SEP], "." and "?".

    Returns:
        (T, T) bool and (T,) int64.
    """
    length = len(ids)
    mask, positions = np.eye(length, dtype=bool), np.zeros(length, np.int64)
    previous = 0
    for place in np.flatnonzero(np.isin(ids, special)).tolist():
        if 0 < place < length - 1:
            mask[previous + 1 : place + 1, previous + 1 : place + 1] = True
            positions[previous + 1 : place + 1] = np.arange(place - previous)
        previous = place
    return mask, positions


@dataclass(frozen=True)
class PromptGeometry(Geometry):
    """A geometry that also knows what the image was asked for."""

    prompt: Prompt = field(kw_only=True)


class PromptTransform:
    """Fills the image input and the five text inputs.

    ``sample.meta["prompt"]`` is a tuple of class names, or one expression. Each prompt is encoded once.

    Args:
        image: fills the image input.
        names: tensor name of each of :data:`TEXT_INPUTS`.
        encoder: makes the encoder; called for the first sample (a build without calibration needs no tokenizer).
        facts: what ``describe`` says of the text.
    """

    def __init__(
        self,
        image: ImageTransform,
        names: Mapping[str, str],
        encoder: Callable[[], PromptEncoder],
        facts: Mapping[str, Any],
    ) -> None:
        self._image, self._names, self._facts = image, dict(names), dict(facts)
        self._make, self._lock = encoder, Lock()
        self._encoder: PromptEncoder | None = None
        self._encoded = lru_cache(maxsize=256)(self._encode)

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> PromptGeometry:
        """Write the sample into ``out``."""
        with self._lock:  # the threads that decode images start together; one of them loads the tokenizer
            prompt = self._encoded(sample.meta["prompt"])
        for role, name in self._names.items():
            out[name][...] = getattr(prompt, role)
        return PromptGeometry(**vars(self._image(sample, out)), prompt=prompt)

    def describe(self) -> dict[str, Any]:
        return {**self._image.describe(), "text": self._facts}

    def _encode(self, wanted: tuple[str, ...] | str) -> Prompt:
        if self._encoder is None:
            self._encoder = self._make()
        return self._encoder.expression(wanted) if isinstance(wanted, str) else self._encoder.classes(wanted)
