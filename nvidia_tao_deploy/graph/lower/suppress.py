"""Greedy non-maximum suppression without a NonMaxSuppression node.

TensorRT-RTX has no runner for NonMaxSuppression, and elsewhere that op has a data-dependent output, caps the
candidates and leaves ties open. Greedy suppression over a score-ordered list that stops after K boxes is the same as
K times: take the best box still standing, strike out what overlaps it. That is a Loop whose state is the standing
scores (B, M) and the K choices so far: memory grows with M and not M squared, every shape is fixed, the batch may be
dynamic, the result is exact, and the loop ends early when no box stands in any image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nvidia_tao_deploy.graph.lower.emit import FLOAT, INT64, Emitter, Operand, Tensor

# Score of a candidate that is not one, and of a choice that was not made.
NOTHING = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Overlap:
    """When a later box is struck out: intersection over union against a threshold.

    Attributes:
        threshold: limit of the intersection over union, 0 to 1.
        inclusive: strike out at the threshold itself too (``>=`` instead of ``>``).
        plus_one: boxes hold pixel indices, so a side is max - min + 1, in areas.
        plus_one_intersection: the same for the intersection (only differs in one inconsistent plugin mode).
        disjoint_as_point: boxes that do not touch count as meeting in a box of size zero at the origin, to which
            ``plus_one_intersection`` then adds one pixel. It matters for boxes of a few pixels.
    """

    threshold: float
    inclusive: bool = False
    plus_one: bool = False
    plus_one_intersection: bool = False
    disjoint_as_point: bool = False


@dataclass(frozen=True)
class Selection:
    """Chosen candidates in the order of selection, (B, K) each: int64 index (0 where none), score, bool validity."""

    index: Tensor
    score: Tensor
    valid: Tensor

    def rows(self, g: Emitter, boxes: Tensor) -> Tensor:
        """The chosen ones of boxes (B, M, 4) as (B, K, 4), zero where none was."""
        return g("Where", g.unsqueeze(self.valid, 2), g.take_rows(boxes, self.index, 4), 0.0)

    def scores(self, g: Emitter) -> Tensor:
        """Their scores (B, K), zero where none was."""
        return g("Where", self.valid, self.score, 0.0)


def greedy(
    g: Emitter,
    boxes: Tensor,
    scores: Tensor,
    candidates: int,
    keep: int,
    overlap: Overlap,
    classes: Operand | None = None,
) -> Selection:
    """Choose at most ``keep`` of ``candidates`` (M) per image, best first; among equal scores the lower index wins.

    Args:
        boxes: (B, M, 4) float32 corners x1, y1, x2, y2 (or y, x), first corner not above the second.
        scores: (B, M) float32; a candidate that must not be chosen has the score NOTHING.
        classes: (B, M) or (1, M) float32; boxes of different classes do not strike each other out.
    """
    x1, y1, x2, y2 = (g.reshape(column, -1, candidates) for column in g.columns(boxes, 4))
    area = g("Mul", _side(g, x1, x2, overlap.plus_one), _side(g, y1, y2, overlap.plus_one))
    fields = [x1, y1, x2, y2, area]
    positions = np.arange(candidates, dtype=np.int64)[None]
    slots = np.arange(keep, dtype=np.int64)[None]
    if classes is not None and not isinstance(classes, str):
        # A copy per image: GatherElements does not broadcast.
        classes = g("Add", g.batched(candidates, value=0.0), classes)

    def body(iteration: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        standing, chosen, chosen_scores = state
        best = g.reduce("ReduceMax", standing, [1])
        found = g("Greater", best, NOTHING)
        # The lowest position holding the maximum: an ArgMax leaves ties open on some runtimes.
        is_best = g("Equal", standing, best)
        index = g.reduce("ReduceMin", g("Where", is_best, positions, candidates), [1])
        bx1, by1, bx2, by2, best_area = (g("GatherElements", field, index, axis=1) for field in fields)
        struck = _overlaps(g, overlap, (x1, y1, x2, y2, area), (bx1, by1, bx2, by2, best_area))
        if classes is not None:
            struck = g("And", struck, g("Equal", classes, g("GatherElements", classes, index, axis=1)))
        struck = g("Or", struck, g("Equal", positions, index))
        standing = g("Where", struck, NOTHING, standing)
        now = g("And", g("Equal", slots, iteration), found)
        chosen = g("Where", now, index, chosen)
        chosen_scores = g("Where", now, best, chosen_scores)
        # Squeeze to a scalar: any box still standing anywhere.
        left = g("Greater", g.reduce("ReduceMax", standing, [0, 1], keepdims=False), NOTHING)
        return left, [standing, chosen, chosen_scores]

    start = [
        (scores, FLOAT, candidates),
        (g.batched(keep, value=0), INT64, keep),
        (g.batched(keep, value=NOTHING), FLOAT, keep),
    ]
    # Shape inference does not look into loops: say the width again.
    _, *results = g.loop(min(keep, candidates), start, body)
    chosen, chosen_scores = (g.reshape(result, -1, keep) for result in results)
    return Selection(chosen, chosen_scores, g("Greater", chosen_scores, NOTHING))


def _side(g: Emitter, low: Tensor, high: Tensor, plus_one: bool) -> Tensor:
    side = g("Sub", high, low)
    return g("Add", side, 1.0) if plus_one else side


def _overlaps(g: Emitter, rule: Overlap, boxes: tuple[Tensor, ...], best: tuple[Tensor, ...]) -> Tensor:
    """(B, M) bool: which boxes the best box strikes out."""
    x1, y1, x2, y2, area = boxes
    bx1, by1, bx2, by2, best_area = best
    width = g("Sub", g("Min", x2, bx2), g("Max", x1, bx1))
    height = g("Sub", g("Min", y2, by2), g("Max", y1, by1))
    if rule.disjoint_as_point:
        apart = g("Or", g("Less", width, 0.0), g("Less", height, 0.0))
        width, height = g("Where", apart, 0.0, width), g("Where", apart, 0.0, height)
    if rule.plus_one_intersection:
        width, height = g("Add", width, 1.0), g("Add", height, 1.0)
    common = g("Mul", g("Max", width, 0.0), g("Max", height, 0.0))
    union = g("Sub", g("Add", area, best_area), common)
    positive = g("And", g("Greater", common, 0.0), g("Greater", union, 0.0))
    ratio = g("Where", positive, g("Div", common, g("Where", positive, union, 1.0)), 0.0)
    return g.at_least(ratio, rule.threshold) if rule.inclusive else g("Greater", ratio, rule.threshold)
