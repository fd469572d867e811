"""Retrieval across two sides, such as captions and images: ranks of what is relevant, and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Array, Floats, Ints
from nvidia_tao_deploy.metrics.retrieval import normalize_rows

CUTS = (1, 5, 10)
BLOCK = 2**22  # similarities held at once


@dataclass(frozen=True)
class QueryFigures:
    """Figures of Q queries, each (Q,) float64 in [0, 1] but ``first_rank``, which counts from 1.

    Attributes:
        ap: mean over the relevant items of (relevant ones so far) / rank.
        first_rank: rank of the first relevant item.
        auc: area under the ROC curve, equal similarities counted half; 1 where every item is relevant.
        recall: by cut k, share of the relevant items among the first k.
        hit: by cut k, 1 if one of them is.
        ndcg: by cut k, with binary gains and log2(1 + rank).
    """

    ap: Floats
    first_rank: Floats
    auc: Floats
    recall: dict[int, Floats]
    hit: dict[int, Floats]
    ndcg: dict[int, Floats]


def query_figures(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], relevant: Sequence[Sequence[int]]
) -> QueryFigures:
    """Rank the gallery for every query by cosine; of equal similarities the lower gallery index comes first.

    Args:
        queries: (Q, D).
        gallery: (N, D).
        relevant: per query the gallery indices that are right, at least one.
    """
    counts = np.array([len(set(items)) for items in relevant])
    owner = np.repeat(np.arange(len(relevant)), counts)
    item = np.array([index for items in relevant for index in sorted(set(items))], dtype=np.int64)
    rank, middle = _ranks(normalize_rows(queries), normalize_rows(gallery), owner, item)
    order = np.lexsort((rank, owner))
    rank = rank[order]
    start = np.concatenate([[0], np.cumsum(counts)[:-1]])
    nth = np.arange(len(rank)) - start[owner] + 1  # the nth relevant item of its query

    def total(values: Array) -> Floats:
        return np.asarray(np.bincount(owner, weights=values, minlength=len(counts)), np.float64)

    negatives = len(gallery) - counts
    above = total(middle) - counts * (counts + 1) / 2
    auc = np.divide(above, counts * negatives, out=np.ones(len(counts)), where=negatives > 0)
    hits = {k: total(rank <= k) for k in CUTS}
    gain = 1 / np.log2(1 + rank)
    ideal = np.cumsum(1 / np.log2(1 + np.arange(1, max(CUTS) + 1)))
    return QueryFigures(
        ap=total(nth / rank) / counts,
        first_rank=rank[start].astype(np.float64),
        auc=auc,
        recall={k: hits[k] / counts for k in CUTS},
        hit={k: np.minimum(hits[k], 1) for k in CUTS},
        ndcg={k: total(gain * (rank <= k)) / ideal[np.minimum(counts, k) - 1] for k in CUTS},
    )


def _ranks(queries: NDArray[np.float32], gallery: NDArray[np.float32], owner: Ints, item: Ints) -> tuple[Ints, Floats]:
    """Of P (query, item) pairs: the rank from the best, 1 for the first, and the mean ascending rank among equals."""
    rank, middle = np.empty(len(item), np.int64), np.empty(len(item))
    columns = np.arange(len(gallery))
    transposed = gallery.T.astype(np.float64)
    step = max(1, BLOCK // len(gallery))
    for first in range(0, len(item), step):
        part = slice(first, first + step)
        # Rounded from float64: equal rows then tie exactly, whatever order a matrix product sums in.
        similar = (queries[owner[part]].astype(np.float64) @ transposed).astype(np.float32)
        own = np.take_along_axis(similar, item[part, None], axis=1)
        equal = similar == own
        better = (similar > own).sum(axis=1)
        rank[part] = 1 + better + (equal & (columns < item[part, None])).sum(axis=1)
        ties = equal.sum(axis=1)
        middle[part] = len(gallery) - better - ties + (ties + 1) / 2
    return rank, middle


def class_auc(scores: NDArray[np.floating], labels: Ints) -> float:
    """Mean over classes of the ROC area of their column, one class against the rest; equal scores count half.

    ``scores`` are (N, C), ``labels`` (N,) in [0, C). The mean is over the classes with images in and out of them; NaN
    where there is none.
    """
    areas = []
    for column in range(scores.shape[1]):
        own = labels == column
        if own.any() and not own.all():
            _, place, ties = np.unique(scores[:, column], return_inverse=True, return_counts=True)
            middle = (np.cumsum(ties) - (ties - 1) / 2)[place]
            positive, negative = own.sum(), (~own).sum()
            areas.append((middle[own].sum() - positive * (positive + 1) / 2) / (positive * negative))
    return float(np.mean(areas)) if areas else float("nan")
