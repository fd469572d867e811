"""Clips of a gallery, queries for them, and how well the queries find them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.captions import text_samples
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.families.classification import read_json
from nvidia_tao_deploy.metrics.cross_retrieval import CUTS, query_figures
from nvidia_tao_deploy.predictions.embeddings import Embeddings, finite

WINDOW = ("start_frame", "end_frame", "start_time_sec", "end_time_sec")
OVERALL = "overall"
HEADLINE = ("mAP", "recall@1", "recall@5")


class Gallery(Listed):
    """The clips that ``gt_queries`` names, in its order; then, for evaluate, its queries.

    A query's ``target`` is the set of relevant clip ids that are in the gallery; its ``meta["slice"]`` is its group.

    Args:
        gt_queries: JSON {"gallery": [{"chunk_id"}], "queries": [{"query", "relevant_clip_ids", "slice"}]}.
        metadata: JSON list of videos, or {"data": [...]}: dataset, video_id, video_path, chunks.
        video_root: folder of relative video paths.
        prefixes: beginning of a path -> what takes its place; the first that fits counts.
        with_queries: take the queries too.

    Raises:
        DataError: a file cannot be read, lacks a key, or names clips that the metadata lack; no query can be scored.
    """

    called = "samples"

    def __init__(
        self,
        gt_queries: Path | str,
        metadata: Path | str,
        video_root: Path | str | None,
        prefixes: Mapping[str, str],
        *,
        with_queries: bool,
    ) -> None:
        wanted, videos = read_json(gt_queries), read_json(metadata)
        videos = videos["data"] if isinstance(videos, dict) and "data" in videos else videos
        try:
            clips = {
                f"{video['dataset']}/{video['video_id']}#{chunk.get('chunk_index', 0)}": (
                    str(video["video_path"]),
                    {key: _finite(chunk.get(key)) for key in WINDOW},
                )
                for video in videos
                for chunk in video["chunks"]
            }
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            remedy = "Each video has dataset, video_id, video_path, and chunks with their times or frames."
            raise DataError(f"not a list of videos: {error!r}", where=str(metadata), remedy=remedy) from error
        try:
            names = [str(entry["chunk_id"]) for entry in wanted["gallery"]]
            queries = [
                (str(q["query"]), _ids(q["relevant_clip_ids"]), str(q.get("slice") or "all"))
                for q in (wanted["queries"] if with_queries else ())
            ]
        except (TypeError, KeyError, AttributeError) as error:
            remedy = "It has gallery (chunk_id each) and queries (query and relevant_clip_ids each)."
            raise DataError(f"not a gallery with queries: {error!r}", where=str(gt_queries), remedy=remedy) from error
        unknown = [name for name in names if name not in clips]
        if unknown or not names:
            what = (
                f"{counted(len(unknown), 'clips are not in the metadata')}: {some(unknown, 3)}"
                if unknown
                else "no clip in it"
            )
            raise DataError(what, where=str(gt_queries), remedy="A clip is <dataset>/<video_id>#<chunk_index>.")
        samples = [
            Sample(name, (_path(clips[name][0], video_root, prefixes),), meta={"name": name, **clips[name][1]})
            for name in names
        ]
        super().__init__(())
        if with_queries:
            strays = sorted({clip for _, relevant, _ in queries for clip in relevant} - set(names))
            if strays:
                self.issues.append(f"{len(strays)} relevant clips are not in the gallery: {some(strays, 3)}")
            idle = [text for text, relevant, _ in queries if not relevant & set(names)]
            if len(idle) == len(queries):
                raise DataError("no query has a relevant clip in the gallery", where=str(gt_queries))
            if idle:
                self.issues.append(
                    f"{counted(len(idle), 'queries have no relevant clip and do not count')}: {some(idle, 3)}"
                )
            for text, relevant, group in queries:
                if not text.strip():
                    raise DataError("a query without a text", where=str(gt_queries))
                (sample,) = text_samples([text], Path(gt_queries), slice=group)
                samples.append(Sample(text, sample.paths, relevant & set(names), sample.meta))
        self._samples = samples


def _finite(value: Any) -> float | None:
    if value is not None and not math.isfinite(float(value)):
        raise ValueError(f"{value} is no time or frame")
    return None if value is None else float(value)


def _ids(given: Any) -> set[str]:
    return {given} if isinstance(given, str) else {str(clip) for clip in given}


def _path(text: str, root: Path | str | None, prefixes: Mapping[str, str]) -> Path:
    for prefix, replacement in prefixes.items():
        if text.startswith(prefix):
            return Path(replacement + text.removeprefix(prefix))
    return Path(text) if root is None else Path(os.path.join(root, text))


class ClipMetric:
    """Text to video, per slice: ``{slice: {mAP, median_rank, ...}}`` with ``overall`` first, and its headline numbers.

    Queries without a relevant clip do not count.
    """

    def __init__(self) -> None:
        self._clips: list[tuple[str, NDArray[np.float32]]] = []
        self._queries: list[tuple[Sample, NDArray[np.float32]]] = []

    def update(self, sample: Sample, prediction: Embeddings) -> None:
        """Take a clip, or a query."""
        if sample.meta.get("text") is None:
            self._clips.append((str(sample.id), finite(sample, prediction.visual)))
        else:
            self._queries.append((sample, finite(sample, prediction.text)))

    def compute(self) -> dict[str, Any]:
        """Shares and areas in [0, 1], ranks from 1; the headline numbers of ``overall`` stand beside the slices."""
        if not self._clips:
            raise DataError("not one clip of the gallery could be read")
        place = {name: index for index, (name, _) in enumerate(self._clips)}
        gallery = np.stack([row for _, row in self._clips])
        scored, relevant = [], []
        for sample, row in self._queries:
            found = [place[name] for name in sample.target if name in place]
            if found:
                scored.append((sample.meta["slice"], row))
                relevant.append(found)
        groups = np.array([group for group, _ in scored], dtype=object)
        figures = query_figures(np.stack([row for _, row in scored]), gallery, relevant) if scored else None
        results: dict[str, Any] = {}
        for name in (OVERALL, *sorted({str(sample.meta["slice"]) for sample, _ in self._queries})):
            taken = np.ones(len(scored), bool) if not results else groups == name
            table: dict[str, float] = dict.fromkeys(("mAP", "median_rank", "mean_rank", "auc"), 0.0)
            table |= {"num_queries": int(taken.sum()), "gallery_size": len(gallery)}
            if figures is not None and taken.any():
                ranks, means = figures.first_rank[taken], {"mAP": figures.ap, "auc": figures.auc}
                for kind, values in (("recall", figures.recall), ("hit", figures.hit), ("ndcg", figures.ndcg)):
                    means |= {f"{kind}@{k}": values[k] for k in CUTS}
                table |= {key: values[taken].mean() for key, values in means.items()}
                table |= {"median_rank": np.median(ranks), "mean_rank": ranks.mean()}
            # A slice must not take the place of the whole.
            reserved = bool(results) and name in (OVERALL, *HEADLINE)
            results[f"{name} (slice)" if reserved else name] = {key: float(value) for key, value in table.items()}
        return {**results, **{key: results[OVERALL].get(key, 0.0) for key in HEADLINE}}

    def report(self) -> str:
        """A line per slice."""
        columns: Sequence[str] = ("mAP", "recall@1", "recall@5", "recall@10", "ndcg@10", "num_queries")
        tables = {name: table for name, table in self.compute().items() if isinstance(table, dict)}
        lines = [f"{'slice':>20}" + "".join(f"{column:>12}" for column in columns)]
        for name, table in tables.items():
            lines.append(f"{name:>20}" + "".join(f"{table.get(column, 0.0):>12.4g}" for column in columns))
        return "\n".join(lines)
