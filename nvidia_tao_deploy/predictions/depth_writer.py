"""Files of depth inference: colour pictures, and the numbers as NumPy, PFM or 16-bit PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nvidia_tao_deploy.data.pfm import write_pfm
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import atomic_write
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.depth import DepthMap, colorize
from nvidia_tao_deploy.predictions.detection_writer import save_picture

FOLDER = "predicted_depth"


class DepthWriter:
    """Writes ``predicted_depth/<parent folder>_<stem>.png`` of the source's size, and what else is asked for.

    Args:
        npy: write ``.npy``: float32 on the network's grid, disparities in network pixels.
        pfm: write ``.pfm`` of the source's size, disparities in source pixels.
        png16_scale: write ``_16bit.png`` like it, value * scale in 16 bits; None: do not.
    """

    def __init__(
        self, out_dir: Path | str, *, npy: bool = False, pfm: bool = False, png16_scale: float | None = None
    ) -> None:
        self._folder = Path(out_dir) / FOLDER
        self._npy, self._pfm, self._png16_scale = npy, pfm, png16_scale
        self._taken: set[str] = set()
        self._saturated = 0

    def write(self, sample: Sample, prediction: DepthMap) -> None:
        """Write one sample's files."""
        from PIL import Image

        stem = self._stem(sample.path)
        values = prediction.on_source()
        save_picture(Image.fromarray(colorize(values)), self._folder / f"{stem}.png")
        if self._npy:
            with atomic_write(self._folder / f"{stem}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, prediction.values)
        if self._pfm:
            write_pfm(self._folder / f"{stem}.pfm", values)
        if self._png16_scale is not None:
            scaled = np.rint(np.where(np.isfinite(values), values, 0).astype(np.float64) * self._png16_scale)
            self._saturated += int(((scaled > 0xFFFF) | (scaled < 0)).sum())
            with atomic_write(self._folder / f"{stem}_16bit.png") as temporary:
                Image.fromarray(np.clip(scaled, 0, 0xFFFF).astype(np.uint16)).save(temporary, format="PNG")

    def close(self) -> list[Path]:
        """The folder written to."""
        if self._saturated:
            say(f"note: {self._saturated} pixels do not fit into 16 bits and were clipped; choose another png16_scale")
        return [self._folder]

    def _stem(self, source: Path) -> str:
        wanted = stem = f"{source.parent.name}_{source.stem}"
        number = 1
        while stem in self._taken:
            number += 1
            stem = f"{wanted}_{number}"
        self._taken.add(stem)
        return stem
