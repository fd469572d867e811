"""Inputs of models with a picture tower and a text tower: a sample may have either side, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.transforms.transform import Geometry, Transform

Encoder = Callable[[str], NDArray[Any]]


class TowerTransform:
    """Fills the side that a sample has; all inputs of the other stay zero, so that its tower may be left out.

    ``sample.meta["text"]`` is the text, if there is one; ``meta["visual"]`` is false where there is no picture. A side
    that the model has no input for is left out, unless ``meta["whole"]`` asks for all that the model takes.

    Args:
        visual: fills the picture's input; None: the model has none.
        visual_name: the picture's input.
        text_names: input of the token ids, and of the attention mask where there is one; (): the model has none.
        encoder: makes the tokenizer; called for the first text (pictures alone need none).
        facts: what ``describe`` says of the text.
    """

    def __init__(
        self,
        visual: Transform | None,
        visual_name: str,
        text_names: tuple[str, ...],
        encoder: Callable[[], Encoder],
        facts: Mapping[str, Any],
    ) -> None:
        self._visual, self._visual_name = visual, visual_name
        self._names, self._facts = text_names, dict(facts)
        self._make, self._lock = encoder, Lock()
        self._encoder: Encoder | None = None

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        """Write the sample into ``out``; the attention mask is all ones, as in training."""
        text = sample.meta.get("text")
        if self._names:
            if text is None and sample.meta.get("whole"):
                raise SpecError(f"the model reads texts, and {sample.path} has no caption")
            values = (0, 0) if text is None else (self._encode(text), 1)
            for name, value in zip(self._names, values, strict=False):
                out[name][...] = value
        if self._visual is not None:
            if sample.meta.get("visual", True):
                return self._visual(sample, out)
            out[self._visual_name][...] = 0
        return Geometry((0, 0), (0, 0), (1.0, 1.0))

    def describe(self) -> dict[str, Any]:
        visual = self._visual.describe() if self._visual is not None else {}
        return {**visual, **({"text": self._facts} if self._names else {})}

    def _encode(self, text: str) -> NDArray[Any]:
        with self._lock:  # the workers start together; one of them loads the tokenizer
            if self._encoder is None:
                self._encoder = self._make()
        return self._encoder(text)
