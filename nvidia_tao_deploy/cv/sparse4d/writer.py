"""Files of sparse4d inference: a line per frame, a summary, and the raw outputs where asked for."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.cv.sparse4d.tracking import Objects
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import atomic_write, plain, write_json

LINES, SUMMARY, RAW = "predictions.jsonl", "summary.json", "raw"


class FrameResult(NamedTuple):
    """What a frame leaves.

    Attributes:
        found: its detections.
        reset: a new sequence began with it.
        raw: the model's outputs by name; empty: not asked for.
    """

    found: Objects
    reset: bool
    raw: dict[str, NDArray[Any]]


class FrameWriter:
    """Writes ``predictions.jsonl``, which appears when the last frame is done, ``summary.json``, ``raw/%06d.npz``.

    Files of an earlier run are removed first.

    Args:
        folder: the results folder.
        facts: of the model and the manifest, for the summary.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self._folder, self._facts = Path(folder), facts
        self._counts = {"frames": 0, "detections": 0, "temporal_resets": 0}
        for old in (self._folder / LINES, self._folder / SUMMARY, *(self._folder / RAW).glob("*.npz")):
            old.unlink(missing_ok=True)
        self._lines = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (nameless: gone with this object)

    def write(self, sample: Sample, prediction: FrameResult) -> None:
        """Write one frame."""
        found, meta = prediction.found, sample.meta
        line = {
            "frame_index": meta["index"],
            "scene": meta["scene"],
            "timestamp": meta["timestamp"],
            "temporal_reset": prediction.reset,
            "boxes_3d": found.boxes,
            "scores_3d": found.scores,
            "labels_3d": found.class_ids,
            "cls_scores": found.class_scores,
            "instance_ids": found.ids,
        }
        self._lines.write(json.dumps(plain(line)) + "\n")
        for key, count in zip(self._counts, (1, len(found.scores), int(prediction.reset)), strict=True):
            self._counts[key] += count
        if prediction.raw:
            with (
                atomic_write(self._folder / RAW / f"{meta['index']:06d}.npz") as temporary,
                temporary.open("wb") as file,
            ):
                np.savez(file, **prediction.raw)  # type: ignore[arg-type]

    def close(self) -> list[Path]:
        """Finish the lines and write the summary."""
        self._lines.seek(0)
        with atomic_write(self._folder / LINES) as temporary, temporary.open("w", encoding="utf-8") as file:
            shutil.copyfileobj(self._lines, file)
        self._lines.close()
        write_json(self._folder / SUMMARY, {**self._counts, "all_outputs_finite": True, **self._facts})
        return [self._folder / LINES, self._folder / SUMMARY]
