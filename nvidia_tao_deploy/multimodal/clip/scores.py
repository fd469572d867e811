"""Retrieval between images and captions, and classification of images by texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.metrics.cross_retrieval import CUTS, class_auc, query_figures
from nvidia_tao_deploy.metrics.retrieval import nearest, normalize_rows
from nvidia_tao_deploy.metrics.topk import classification_table, confusion_matrix, top_k_accuracy
from nvidia_tao_deploy.predictions.embeddings import Embeddings, finite

DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}


class ImageTextMetric:
    """Keys ``{i2t,t2i}_{mAP,R@1,R@5,R@10,MedR,MeanR,AUC}`` over the pairs, ``zero_shot_*`` over the class folders.

    Text i is right for image i alone, also where another image has the same caption.

    Args:
        class_names: of the class folders, in index order; (): there are none.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = list(class_names)
        self._pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        self._prompts: list[tuple[int, NDArray[np.float32]]] = []
        self._images: list[tuple[int, NDArray[np.float32]]] = []

    def update(self, sample: Sample, prediction: Embeddings) -> None:
        """Take a pair, a text of the class ``meta["class"]``, or an image of the class ``sample.target``."""
        if "class" in sample.meta:
            self._prompts.append((sample.meta["class"], finite(sample, prediction.text)))
        elif sample.target is not None:
            self._images.append((sample.target, finite(sample, prediction.visual)))
        else:
            self._pairs.append((finite(sample, prediction.visual), finite(sample, prediction.text)))

    def compute(self) -> dict[str, float]:
        """Shares and areas in [0, 1], ranks from 1; DataError where no image of the class folders could be read."""
        results: dict[str, float] = {}
        if self._pairs:
            images, texts = (np.stack(rows) for rows in zip(*self._pairs, strict=True))
            results |= {"num_images": len(images), "num_texts": len(texts)}
            for direction, queries, gallery in (("i2t", images, texts), ("t2i", texts, images)):
                found = query_figures(queries, gallery, [[i] for i in range(len(queries))])
                values = {"mAP": found.ap.mean(), **{f"R@{k}": found.recall[k].mean() for k in CUTS}}
                values |= {"MedR": np.median(found.first_rank), "MeanR": found.first_rank.mean()}
                values["AUC"] = found.auc.mean()
                results |= {f"{direction}_{key}": float(value) for key, value in values.items()}
        if self._names:
            scores, labels = self._scores()
            right = np.diagonal(self.confusion()) / np.maximum(np.bincount(labels, minlength=len(self._names)), 1)
            results |= {
                "zero_shot_top_1": top_k_accuracy(scores, labels, 1),
                "zero_shot_top_5": top_k_accuracy(scores, labels, 5),
                "zero_shot_mean_class": float(right[np.unique(labels)].mean()),
                "zero_shot_AUC": class_auc(scores, labels),
                "zero_shot_images": len(labels),
            }
        return results

    def answers(self) -> list[tuple[float, bool]]:
        """Per image the cosine of the text next to it, and whether that is its own or its class's."""
        found: list[tuple[float, bool]] = []
        if self._pairs:
            images, texts = (normalize_rows(np.stack(rows)) for rows in zip(*self._pairs, strict=True))
            index, squared = nearest(texts, images, 1)
            right = index[:, 0] == np.arange(len(images))
            found += zip((1 - squared[:, 0] / 2).tolist(), right.tolist(), strict=True)
        if self._names:
            scores, labels = self._scores()
            found += zip(scores.max(axis=1).tolist(), (scores.argmax(axis=1) == labels).tolist(), strict=True)
        return found

    def confusion(self) -> NDArray[np.int64]:
        """(C, C) counts of the class folders: row is the folder's class, column the nearest text's."""
        scores, labels = self._scores()
        return confusion_matrix(labels, scores.argmax(axis=1), len(self._names))

    def report(self) -> str:
        """A table of both directions, and the figures of every class."""
        results = self.compute()
        lines = []
        if self._pairs:
            columns = ("mAP", *(f"R@{k}" for k in CUTS), "MedR", "MeanR", "AUC")
            lines = [f"{'Direction':>14}" + "".join(f"{column:>10}" for column in columns)]
            for direction, shown in DIRECTIONS.items():
                values = [(results[f"{direction}_{column}"], 1 if "Me" in column else 4) for column in columns]
                lines.append(f"{shown:>14}" + "".join(f"{value:>10.{digits}f}" for value, digits in values))
        if self._names:
            figures = {key: value for key, value in results.items() if key.startswith("zero_shot")}
            lines += [f"{key}: {value:.4g}" for key, value in figures.items()]
            lines += ["", classification_table(self.confusion(), self._names)]
        return "\n".join(lines)

    def _scores(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Cosines (N, C) of images and class texts, and labels (N,); a class's text is the mean of its texts."""
        if not self._images:
            raise DataError("not one image of the class folders could be read")
        labels, images = (np.stack(rows) for rows in zip(*self._images, strict=True))
        owner, prompts = (np.stack(rows) for rows in zip(*self._prompts, strict=True))
        prompts = normalize_rows(prompts)
        classes = normalize_rows(np.stack([prompts[owner == c].mean(axis=0) for c in range(len(self._names))]))
        return (normalize_rows(images) @ classes.T).astype(np.float64), labels.astype(np.int64)
