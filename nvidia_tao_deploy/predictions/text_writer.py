"""Files of text recognition: one line per image, and the same as JSON with confidences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import write_json, write_text
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.text import Text


class TextWriter:
    """Prints a line per image, and writes ``predictions.txt`` (the lines) and ``predictions.json`` on close.

    Args:
        with_confidence: lines are ``path: text confidence``; else ``path: text `` with a blank at the end.
    """

    def __init__(self, out_dir: Path | str, *, with_confidence: bool) -> None:
        self._folder, self._with_confidence = Path(out_dir), with_confidence
        self._lines: list[str] = []
        self._entries: list[dict[str, Any]] = []

    def write(self, sample: Sample, prediction: Text) -> None:
        """Print and keep one image's line."""
        tail = str(prediction.confidence) if self._with_confidence else ""
        line = f"{sample.path}: {prediction.text} {tail}"
        say(line)
        self._lines.append(f"{line}\n")
        self._entries.append(
            {
                "image": sample.path,
                "text": prediction.text,
                "confidence": prediction.confidence,
                "character_confidences": prediction.character_confidences,
            }
        )

    def close(self) -> list[Path]:
        """Write both files as a whole."""
        lines, table = self._folder / "predictions.txt", self._folder / "predictions.json"
        write_text(lines, "".join(self._lines))
        write_json(table, self._entries)
        return [lines, table]
