"""Embeddings of pictures and texts, and the files written from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.calibration.tensorfile import hdf5
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.files import atomic_write
from nvidia_tao_deploy.metrics.retrieval import nearest
from nvidia_tao_deploy.predictions.table import write_table


class Embeddings(NamedTuple):
    """What a model gives for one sample, (D,) float32 of length 1 each; None where it has no such tower.

    The side that the sample does not have holds nothing of use.
    """

    visual: NDArray[np.float32] | None
    text: NDArray[np.float32] | None


def unit_rows(rows: Array) -> NDArray[np.float32]:
    """Rows (N, D) over (length + 1e-8), float32."""
    values = rows.astype(np.float32)
    return np.asarray(values / (np.linalg.norm(values, axis=1, keepdims=True) + np.float32(1e-8)))


def finite(sample: Sample, row: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The row itself; ModelError where it is missing, or holds NaN or infinity."""
    if row is None or not np.isfinite(row).all():
        raise ModelError(f"the model's embedding of {sample.id} is {'missing' if row is None else 'not finite'}")
    return row


class EmbeddingWriter:
    """Writes ``<kind>_embeddings.h5`` and ``text_embeddings.h5`` on close, and the best matches both ways.

    ``<kind>_to_text.csv`` and ``text_to_<kind>.csv`` (columns query, rank, match, cosine) are there where both sides
    are.

    Args:
        kind: "image" or "video".
        names: name of the dataset of pictures' names in the HDF5 file.
        top_k: matches written per query; 0: no matches.
    """

    def __init__(self, out_dir: Path, kind: str, names: str, top_k: int) -> None:
        hdf5()  # what is missing is said before the run, not after it
        self._folder, self._kind, self._top_k = out_dir, kind, top_k
        self._dataset = {kind: names, "text": "texts"}
        self._rows: dict[str, list[tuple[str, NDArray[np.float32]]]] = {kind: [], "text": []}

    def write(self, sample: Sample, prediction: Embeddings) -> None:
        """Take the sides that the sample has; a picture's name is its ``meta["name"]``, else its path."""
        if sample.meta.get("visual", True):
            name = sample.meta.get("name", str(sample.path))
            self._rows[self._kind].append((name, finite(sample, prediction.visual)))
        if sample.meta.get("text") is not None:
            self._rows["text"].append((sample.meta["text"], finite(sample, prediction.text)))

    def close(self) -> list[Path]:
        """Write the files."""
        written = [self._embeddings(side) for side, rows in self._rows.items() if rows]
        if self._top_k and len(written) == 2:
            written += self._matches(self._kind, "text") + self._matches("text", self._kind)
        return written

    def _embeddings(self, side: str) -> Path:
        h5py, path, rows = hdf5(), self._folder / f"{side}_embeddings.h5", self._rows[side]
        values = np.stack([row for _, row in rows])
        with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
            file.create_dataset("embeddings", data=values, compression="gzip", compression_opts=4)
            file.create_dataset(
                self._dataset[side], data=[name for name, _ in rows], dtype=h5py.string_dtype(encoding="utf-8")
            )
            file.attrs[f"num_{side}s"] = len(rows)
            file.attrs["embedding_dim"] = values.shape[1]
            file.attrs["embedding_type"] = side
        return path

    def _matches(self, side: str, other: str) -> list[Path]:
        queries, gallery = (np.stack([row for _, row in self._rows[name]]) for name in (side, other))
        found, squared = nearest(gallery, queries, min(self._top_k, len(gallery)))
        rows: list[tuple[Any, ...]] = [("query", "rank", "match", "cosine")]
        for (query, _), indices, distances in zip(self._rows[side], found, squared, strict=True):
            for rank, (index, distance) in enumerate(zip(indices, distances, strict=True), 1):
                rows.append((query, rank, self._rows[other][index][0], f"{1 - distance / 2:.4f}"))
        return write_table(self._folder / f"{side}_to_{other}.csv", rows)
