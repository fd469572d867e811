"""Text recognition: exact matches and edit distance."""

from __future__ import annotations

import numpy as np

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.predictions.text import Text

SHOWN = 10


def edit_distance(one: str, other: str) -> int:
    """Levenshtein distance: fewest insertions, deletions and substitutions of a character."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


class TextMetric:
    """Transcripts against the sample's text (str), exact and case-sensitive.

    Keys: ``Accuracy``, equal texts / samples; ``character_accuracy``, the mean over samples of
    1 - edit distance / length of the longer text (1 where both are empty); ``labels_outside_dictionary``, how many
    labels no output of the model can equal (``unspellable``).
    """

    def __init__(self, unspellable: int = 0) -> None:
        self._unspellable = unspellable
        self._correct = 0
        self._similarity: list[float] = []
        self._wrong: list[str] = []

    def update(self, sample: Sample, prediction: Text) -> None:
        """Take one image's text."""
        label, text = str(sample.target), prediction.text
        longest = max(len(label), len(text))
        self._similarity.append(1.0 - edit_distance(label, text) / longest if longest else 1.0)
        self._correct += label == text
        if label != text and len(self._wrong) < SHOWN:
            self._wrong.append(f"  {sample.id}: '{text}', labelled '{label}'")

    def compute(self) -> dict[str, float]:
        """Shares in [0, 1], and the count; DataError where no image was evaluated."""
        if not self._similarity:
            raise DataError("no image was evaluated")
        return {
            "Accuracy": self._correct / len(self._similarity),
            "character_accuracy": float(np.mean(self._similarity)),
            "labels_outside_dictionary": self._unspellable,
        }

    def report(self) -> str:
        """Correct, total, shares, and the first wrong texts."""
        numbers = self.compute()
        lines = [
            f"Accuracy: {self._correct}/{len(self._similarity)} {numbers['Accuracy']:.4f}",
            f"Character accuracy: {numbers['character_accuracy']:.4f}",
        ]
        if self._wrong:
            more = len(self._similarity) - self._correct - len(self._wrong)
            lines += ["Wrong:", *self._wrong, *([f"  and {more} more"] if more else [])]
        return "\n".join(lines)
