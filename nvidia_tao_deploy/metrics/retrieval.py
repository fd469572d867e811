"""Nearest neighbours among embeddings, exactly and in bounded memory, and the accuracy of what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Floats, Ints
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.metrics.topk import class_tables, confusion_matrix

# Similarities held at once (float32): 32 MiB, whatever the gallery's size.
BLOCK = 2**23
PAIRS = 2**14  # candidate pairs whose exact distances are computed at once
CHUNK = 64


def normalize_rows(rows: Array) -> NDArray[np.float32]:
    """Rows (N, D) at length 1, float32; zero rows stay as they are."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    lengths[lengths == 0] = 1.0
    return np.asarray(rows / lengths[:, None], dtype=np.float32)


def nearest(gallery: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> tuple[Ints, Floats]:
    """The k nearest gallery rows of every query by Euclidean distance, nearest first, exactly.

    A float32 matrix product finds everything that could be among the k nearest, given the bound of its rounding
    errors; those few are ranked by their distance in double precision. Among equal distances the lower gallery index
    comes first.

    Args:
        gallery: (N, D).
        queries: (M, D).
        k: 1 to N.

    Returns:
        Gallery indices (M, k), and squared distances (M, k).
    """
    kept = _first_of_equals(gallery, k)
    if len(kept) < len(gallery):
        indices, distances = nearest(gallery[kept], queries, k)
        return kept[indices], distances
    # The nearest row has the largest q.g - |g|^2 / 2, as |q - g|^2 = |q|^2 - 2 (q.g - |g|^2 / 2).
    squares = np.einsum("nd,nd->n", gallery, gallery, dtype=np.float64)
    halves = (squares / 2).astype(np.float32)
    longest = float(np.sqrt(squares.max()))
    indices = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k))
    step = max(1, min(BLOCK // len(gallery), 4096))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        similar = block @ gallery.T
        similar -= halves
        reach = float(np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64).max()))
        error = (gallery.shape[1] + 8) * 2.0**-24 * (reach * longest + longest**2)
        threshold = _at_least_k(similar, k) - np.float32(4 * error)
        rows, columns = np.divmod(np.flatnonzero(similar >= threshold[:, None]), len(gallery))
        squared = _squared_distances(block, gallery, rows, columns)
        order = np.lexsort((columns, squared, rows))
        first = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(block)))[:-1]])
        chosen = order[first[:, None] + np.arange(k)]
        indices[start : start + step], distances[start : start + step] = columns[chosen], squared[chosen]
    return indices, distances


def _first_of_equals(gallery: NDArray[np.float32], k: int) -> Ints:
    """Indices of the rows that fewer than k equal ones precede: no others can be among the k nearest."""
    rows = np.ascontiguousarray(gallery).view(np.dtype((np.void, gallery.itemsize * gallery.shape[1])))[:, 0]
    group = np.unique(rows, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[order])
    return np.sort(order[np.arange(len(order)) - first < k])


def _at_least_k(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """(M,) thresholds that at least k values of each row (M, N) reach: the k-th best, or the k-th best chunk's best."""
    whole = values.shape[1] // CHUNK
    if whole >= 4 * k:
        # a chunk is every whole-th value: the maximum over contiguous rows is many times as fast
        values = values[:, : whole * CHUNK].reshape(len(values), CHUNK, whole).max(axis=1)
    position = values.shape[1] - k
    return np.asarray(np.partition(values, position, axis=1)[:, position])


def _squared_distances(queries: NDArray[np.float32], gallery: NDArray[np.float32], rows: Ints, columns: Ints) -> Floats:
    squared = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        apart = gallery[columns[part]].astype(np.float64) - queries[rows[part]]
        squared[part] = np.einsum("nd,nd->n", apart, apart)
    return squared


def mean_class_hit_rate(found: Ints, truth: Ints) -> float:
    """Per class the share of its queries that have their label among those found; the mean over classes present.

    ``found`` are the labels (M, k) of the neighbours, ``truth`` (M,) those of the queries, not negative.
    """
    hits = (found == truth[:, None]).any(axis=1)
    counts = np.bincount(truth)
    present = counts > 0
    return float((np.bincount(truth, weights=hits)[present] / counts[present]).mean())


class Neighbourhood:
    """Collects the embeddings of a gallery and of queries, and finds each query's neighbours."""

    def __init__(self) -> None:
        self._gallery: list[Array] = []
        self._labels: list[int] = []
        self._queries: list[Array] = []
        self.samples: list[Sample] = []

    def add(self, sample: Sample, embedding: Array, *, gallery: bool) -> None:
        """Take one embedding (D,); a gallery sample's target is its label.

        Raises:
            ModelError: it holds NaN or infinity.
        """
        if not np.isfinite(embedding).all():
            raise ModelError(f"the model's embedding of {sample.path} is not finite")
        if gallery:
            self._gallery.append(embedding)
            self._labels.append(int(sample.target))
        else:
            self._queries.append(embedding)
            self.samples.append(sample)

    @property
    def gallery_size(self) -> int:
        """Gallery embeddings taken so far."""
        return len(self._gallery)

    def find(self, k: int) -> tuple[Ints, Floats]:
        """Labels (M, k) of the k nearest gallery embeddings of every query, nearest first, and squared distances.

        Both sides are brought to length 1 first.

        Raises:
            DataError: no gallery, or no query.
            SpecError: the gallery has fewer than k.
        """
        if not self._gallery:
            raise DataError("there is no readable gallery image to compare with", remedy="Check the gallery folder.")
        if not self._queries:
            raise DataError("there is no readable query image", remedy="Check the query folder.")
        if not 1 <= k <= len(self._gallery):
            raise SpecError(
                f"topk is {k} and the gallery has {len(self._gallery)} images", remedy="Lower topk, or add images."
            )
        gallery, queries = (normalize_rows(np.stack(rows)) for rows in (self._gallery, self._queries))
        indices, squared = nearest(gallery, queries, k)
        return np.array(self._labels, np.int64)[indices], squared


class RetrievalMetric:
    """Top-k accuracy of neighbours; keys ``top_k_accuracy``, ``top_1_accuracy``, ``gallery_images``, ``query_images``.

    A query counts as right where one of its k nearest gallery images has its label. The score is the mean of the
    classes' shares, over the classes that have queries.
    """

    def __init__(self, class_names: Sequence[str], k: int) -> None:
        self._names, self._k = list(class_names), k
        self._neighbourhood = Neighbourhood()
        self._found: Ints | None = None

    def update(self, sample: Sample, prediction: Array) -> None:
        """Take one embedding (D,); ``sample.meta["gallery"]`` says which side it belongs to."""
        self._neighbourhood.add(sample, prediction, gallery=bool(sample.meta["gallery"]))
        self._found = None

    def compute(self) -> dict[str, float]:
        """Accuracies in [0, 1], and the number of images on both sides; raises as :meth:`Neighbourhood.find`."""
        found, truth = self._labels()
        return {
            "top_k_accuracy": mean_class_hit_rate(found, truth),
            "top_1_accuracy": mean_class_hit_rate(found[:, :1], truth),
            "gallery_images": self._neighbourhood.gallery_size,
            "query_images": len(truth),
        }

    def answers(self) -> list[tuple[float, bool]]:
        """Per query the cosine of its nearest gallery image, and whether that has its label."""
        labels, squared = self._neighbourhood.find(1)
        right = labels[:, 0] == [sample.target for sample in self._neighbourhood.samples]
        return list(zip((1 - squared[:, 0] / 2).tolist(), right.tolist(), strict=True))

    def confusion(self) -> Ints:
        """(C, C) counts: row is the query's class, column its nearest image's."""
        found, truth = self._labels()
        return confusion_matrix(truth, found[:, 0], len(self._names))

    def report(self) -> str:
        """Scores, confusion matrix (up to 20 classes) and the figures of every class."""
        results = self.compute()
        lines = [
            f"{results['query_images']} queries, {results['gallery_images']} gallery images",
            f"Top 1 scores: {results['top_1_accuracy']:.4f}",
            f"Top {self._k} scores: {results['top_k_accuracy']:.4f}",
        ]
        return "\n".join([*lines, "", class_tables(self.confusion(), self._names, "nearest image")])

    def _labels(self) -> tuple[Ints, Ints]:
        if self._found is None:
            self._found = self._neighbourhood.find(self._k)[0]
        return self._found, np.array([sample.target for sample in self._neighbourhood.samples], np.int64)
