"""Masks and phrases from the outputs of mask_grounding_dino."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.grounding import INPUTS
from nvidia_tao_deploy.network import Port, Ports, expect
from nvidia_tao_deploy.predictions.detr import (
    best_pairs,
    checked_outputs,
    class_scores,
    sigmoid,
    to_source_clipped,
    top_k,
)
from nvidia_tao_deploy.predictions.masks import resized_logits, source_masks
from nvidia_tao_deploy.predictions.nms import nms
from nvidia_tao_deploy.predictions.types import Detections
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.prompt import PromptGeometry
from nvidia_tao_deploy.transforms.transform import Geometry

Outputs = Mapping[str, NDArray[Any]]
T = TypeVar("T")
OUTPUTS = ("pred_logits", "pred_boxes", "pred_masks", "no_targets", "union_mask_logits")


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """Six inputs; the outputs of expressions (the last two) are there only in models that were exported for them."""
    names = OUTPUTS if len(outputs) >= len(OUTPUTS) else OUTPUTS[:3]
    by_name = {tensor.name: tensor for tensor in outputs}
    found = [by_name.get(name, tensor) for name, tensor in zip(names, outputs, strict=False)]
    # masks come with and without an axis of one, and "no target" in any shape
    masks_rank = max(4, min(5, len(found[2].shape))) if len(found) > 2 else 5
    ranks = [3, 3, masks_rank, *([len(found[3].shape), 4] if len(found) > 3 else [])]
    ports = tuple(Port(name, rank=rank) for name, rank in zip(names, ranks, strict=True))
    return expect(inputs=INPUTS, outputs=ports)(inputs, outputs)


@dataclass(frozen=True)
class Grounded:
    """What an expression describes in one image.

    Attributes:
        detections: best first, class ids 0, masks (K, H, W); K may be 0.
        phrases: the words of the expression that each of them answers to.
    """

    detections: Detections
    phrases: tuple[str, ...]

    @property
    def union(self) -> NDArray[np.bool_]:
        """(H, W) the pixels of any of them."""
        assert self.detections.masks is not None
        return np.asarray(self.detections.masks.any(axis=0))


class PerImage(Sequence[T]):
    """Results that are made when they are asked for: the masks of a whole batch need not be in memory together."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._make(index)


def decode_classes(
    outputs: Outputs, geometries: Sequence[Geometry], num_select: int, least: float
) -> Sequence[Detections]:
    """The best ``num_select`` (query, class) pairs of each image that score ``least`` or more, with their masks."""
    probabilities, corners = checked_outputs(outputs["pred_logits"], outputs["pred_boxes"], len(geometries))

    def one(image: int) -> Detections:
        geometry = geometries[image]
        assert isinstance(geometry, PromptGeometry)
        scores = class_scores(probabilities[image], geometry.prompt.spans)
        query, detections = best_pairs(scores, corners[image], geometry, num_select)
        kept = detections[: int((detections.scores >= least).sum())]  # they are in order
        masks = source_masks(mask_logits(outputs, image)[query[: len(kept)]], geometry.source_size)
        return Detections(kept.boxes_xyxy, kept.scores, kept.class_ids, masks)

    return PerImage(len(geometries), one)


def decode_expressions(
    outputs: Outputs,
    geometries: Sequence[Geometry],
    num_select: int,
    *,
    least: float,
    text_threshold: float,
    inside_threshold: float,
    nms_threshold: float,
) -> Sequence[Grounded]:
    """What each image's expression describes; nothing where the model says that it has no target.

    Args:
        outputs: the five outputs by role.
        geometries: of the real images of the batch.
        num_select: queries considered, by the best of their token probabilities.
        least: least score.
        text_threshold: tokens above it make up the phrase.
        inside_threshold: share of a mask's probability that must lie in the model's union mask.
        nms_threshold: boxes that overlap a better one more than this are dropped; 0: none.
    """
    probabilities, corners = checked_outputs(outputs["pred_logits"], outputs["pred_boxes"], len(geometries))

    def one(image: int) -> Grounded:
        geometry = geometries[image]
        assert isinstance(geometry, PromptGeometry)
        prompt, tokens, scores = geometry.prompt, probabilities[image], probabilities[image].max(axis=1)
        query = top_k(scores, num_select)
        query = query[scores[query] >= least]
        if bool((outputs["no_targets"][image] > 0).all()):
            query = query[:0]
        inside, masks = _inside_union(outputs, image, query, geometry.source_size, inside_threshold)
        query = query[inside]
        boxes = to_source_clipped(corners[image][query], geometry)
        kept = np.arange(len(query)) if nms_threshold <= 0 else nms(boxes, scores[query], nms_threshold)
        query = query[kept]
        phrases = (prompt.phrase((tokens[q] > text_threshold) & prompt.attention_mask) for q in query)
        detections = Detections(
            boxes[kept], scores[query].astype(np.float64), np.zeros(len(query), np.int64), masks[kept]
        )
        return Grounded(detections, tuple(phrase or prompt.caption for phrase in phrases))

    return PerImage(len(geometries), one)


def mask_logits(outputs: Outputs, image: int) -> NDArray[Any]:
    """(NQ, h, w) of one image; ModelError where the output has another shape, or holds NaN."""
    logits, queries = np.asarray(outputs["pred_masks"][image]), outputs["pred_logits"].shape[1]
    if logits.ndim == 4 and logits.shape[1] == 1:
        logits = logits[:, 0]
    if logits.ndim != 3 or len(logits) != queries:
        raise ModelError(f"masks {outputs['pred_masks'].shape} are not (B, NQ, 1, h, w) with {queries} queries")
    if np.isnan(logits).any():
        raise ModelError("the model's masks hold NaN", remedy="Build in fp32, or keep the overflowing layer in fp32.")
    return logits


def _inside_union(
    outputs: Outputs, image: int, query: NDArray[np.int64], size: tuple[int, int], threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which queries' masks lie in the union mask, (K,), and the masks of those, (K', H, W) for ``size`` (W, H)."""
    channels = outputs["union_mask_logits"][image]
    foreground = np.argmax(channels, axis=0).astype(np.float32)
    union = next(resized_logits(foreground[None], size)) > 0
    inside, masks = np.zeros(len(query), bool), []
    for row, logits in enumerate(resized_logits(mask_logits(outputs, image)[query], size)):
        soft = sigmoid(logits)
        inside[row] = float(soft[union].sum(dtype=np.float64)) / (float(soft.sum(dtype=np.float64)) + 1e-6) > threshold
        if inside[row]:
            masks.append(logits > 0)
    return inside, np.stack(masks) if masks else np.zeros((0, size[1], size[0]), bool)
