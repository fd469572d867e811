"""The COCO detection evaluation as array arithmetic; equal to pycocotools' COCOeval to the last bit.

Definitions: https://cocodataset.org/#detection-eval. Where that page leaves room (equal scores, equal overlaps, crowds,
area ranges) the rules are those of the published evaluation code, and every sum is taken in its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.arrays import Bools, Floats, Ints

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)], dtype=np.float64)
ALL, SMALL, MEDIUM, LARGE = range(4)

# Detection-truth pairs whose overlap is computed at a time: bounds memory on crowded images.
_PAIRS_AT_A_TIME = 2_000_000


@dataclass(frozen=True)
class Boxes:
    """Detections or truth of a whole dataset, one row each.

    Attributes:
        image: (N,) image numbers, in the order images are evaluated.
        category: (N,) category numbers from 0.
        boxes_xywh: (N, 4) float64, source pixels.
        area: (N,) float64: annotated area of truth, width * height of detections.
        score: (N,) float64; zeros for truth.
        crowd: (N,) bool; False for detections.
        masks: (N,) run-length codes as pycocotools has them; overlap is then that of the masks, and the boxes must
            enclose them. None: overlap of the boxes.
    """

    image: Ints
    category: Ints
    boxes_xywh: Floats
    area: Floats
    score: Floats
    crowd: Bools
    masks: NDArray[np.object_] | None = None

    def __getitem__(self, index: Ints | Bools) -> Boxes:
        return Boxes(
            self.image[index],
            self.category[index],
            self.boxes_xywh[index],
            self.area[index],
            self.score[index],
            self.crowd[index],
            None if self.masks is None else self.masks[index],
        )

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class CocoEvaluation:
    """What the 12 numbers are read from; -1 where a category has no truth that counts.

    Attributes:
        precision: (T, R, K, A) by IoU threshold, recall point, category and area range, at the last of max_dets.
        recall: (T, K, A, M) by IoU threshold, category, area range and detections per image.
    """

    precision: Floats
    recall: Floats

    def stats(self) -> Floats:
        """(12,) AP, AP50, AP75, AP small, medium, large; AR at each of max_dets; AR small, medium, large."""
        p, r = self.precision, self.recall
        values = [p[..., ALL], p[0, ..., ALL], p[5, ..., ALL], p[..., SMALL], p[..., MEDIUM], p[..., LARGE]]
        values += [r[:, :, ALL, m] for m in range(r.shape[3])]
        values += [r[:, :, area, -1] for area in (SMALL, MEDIUM, LARGE)]
        return np.array([mean_defined(value) for value in values])


def mean_defined(values: Floats) -> float:
    """Mean of the entries above -1; -1 if there is none."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0


def evaluate(detections: Boxes, truth: Boxes, categories: int, max_dets: Sequence[int]) -> CocoEvaluation:
    """Match detections with truth per image and category, and accumulate over the dataset.

    Args:
        detections: in the network's order, which decides between equal scores.
        truth: in the annotation file's order, which decides between equal overlaps (the later one wins).
        categories: K.
        max_dets: M ascending numbers of detections per image and category.
    """
    order = np.lexsort((-detections.score, detections.image, detections.category))
    detections = detections[order]
    truth = truth[np.lexsort((truth.image, truth.category))]
    rank = _rank_in_group(detections)
    detections, rank = detections[rank < max_dets[-1]], rank[rank < max_dets[-1]]

    low, high = AREA_RANGES[:, :1], AREA_RANGES[:, 1:]
    truth_ignored = truth.crowd | (truth.area < low) | (truth.area > high)
    matched, ignored = _match(detections, truth, truth_ignored)
    ignored |= ~matched & ((detections.area < low) | (detections.area > high))
    return _accumulate(detections, rank, matched, ignored, truth, truth_ignored, categories, max_dets)


def _rank_in_group(boxes: Boxes) -> Ints:
    """(N,) position within the image and category of rows sorted by them."""
    positions = np.arange(len(boxes))
    return positions - np.maximum.accumulate(np.where(_group_starts(boxes), positions, 0))


def _group_starts(boxes: Boxes) -> Bools:
    starts = np.ones(len(boxes), bool)
    starts[1:] = (np.diff(boxes.image) != 0) | (np.diff(boxes.category) != 0)
    return starts


def _match(detections: Boxes, truth: Boxes, truth_ignored: Bools) -> tuple[Bools, Bools]:
    """Greedy matching, (T, A, N) each: whether a detection is matched, and whether with ignored truth.

    In each image and category, by descending score, a detection takes the free truth it overlaps most; truth that
    counts goes before ignored truth, and a crowd is never used up. The n-th detections of all groups are handled
    together, and of them only those that overlap something enough to be matched at all.
    """
    shape = (len(IOU_THRESHOLDS), len(AREA_RANGES), len(detections))
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    det, gt, iou = _overlapping_pairs(detections, truth)
    if not len(det):
        return matched, ignored
    # within a detection by overlap, then by position in the file: the last admissible pair is the match
    order = np.lexsort((gt, iou, det))
    det, gt, iou = det[order], gt[order], iou[order]
    admissible = iou >= IOU_THRESHOLDS[:, None]

    candidates, first_pair, pairs = np.unique(det, return_index=True, return_counts=True)
    turn = _rank_in_group(detections[candidates])
    taken = np.zeros((shape[0], shape[1], len(truth)), bool)
    by_turn = np.argsort(turn, kind="stable")
    for now in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]):
        mine = _ranges(first_pair[now], pairs[now])
        starts = np.cumsum(pairs[now]) - pairs[now]
        targets = gt[mine]
        free = admissible[:, None, mine] & (~taken[:, :, targets] | truth.crowd[targets])
        # one number per pair: not admissible < ignored truth < truth that counts, then the order above
        preference = np.where(truth_ignored[:, targets], 0, len(mine)) + np.arange(len(mine))
        best = np.maximum.reduceat(np.where(free, preference, -1), starts, axis=2)
        found = best >= 0
        target = targets[best % len(mine)]  # meaningless where nothing is found, and not used there
        t, a, d = np.nonzero(found)
        chosen = target[t, a, d]
        taken[t, a, chosen] = True
        matched[t, a, candidates[now][d]] = True
        ignored[t, a, candidates[now][d]] = truth_ignored[a, chosen]
    return matched, ignored


def _overlapping_pairs(detections: Boxes, truth: Boxes) -> tuple[Ints, Ints, Floats]:
    """Detection index, truth index and IoU of every pair in one image and category with IoU >= the least threshold."""
    columns = int(max(detections.image.max(initial=0), truth.image.max(initial=0))) + 1
    group, truth_group = (b.category * columns + b.image for b in (detections, truth))
    first = np.searchsorted(truth_group, group, side="left")
    count = np.searchsorted(truth_group, group, side="right") - first
    parts = [
        (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)),
    ]
    for start, stop in _chunks(count):
        det = np.repeat(np.arange(start, stop), count[start:stop])
        gt = _ranges(first[start:stop], count[start:stop])
        iou = _pair_iou(detections.boxes_xywh[det], truth.boxes_xywh[gt], truth.crowd[gt])
        if detections.masks is not None and truth.masks is not None:
            touching = iou > 0
            det, gt = det[touching], gt[touching]
            iou = _pair_mask_iou(detections.masks[det], truth.masks[gt], truth.crowd[gt])
        near = iou >= IOU_THRESHOLDS[0]
        parts.append((det[near], gt[near], iou[near]))
    det, gt, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    return det, gt, iou


def _chunks(count: Ints) -> Iterator[tuple[int, int]]:
    """Row ranges whose counts sum to about _PAIRS_AT_A_TIME."""
    chunk = np.cumsum(count) // _PAIRS_AT_A_TIME
    edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(count)]
    yield from pairwise(edges)


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """start, start + 1, ... (count numbers) for every entry, concatenated."""
    ends = np.cumsum(counts)
    return np.asarray(np.arange(int(counts.sum())) + np.repeat(starts - (ends - counts), counts))


def _pair_iou(a: Floats, b: Floats, crowd: Bools) -> Floats:
    """(N,) IoU of boxes (N, 4) x, y, width, height; over a crowd, the share of ``a`` that it covers."""
    width = np.minimum(a[:, 2] + a[:, 0], b[:, 2] + b[:, 0]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3] + a[:, 1], b[:, 3] + b[:, 1]) - np.maximum(a[:, 1], b[:, 1])
    overlap = (width > 0) & (height > 0)
    intersection, area = width * height, a[:, 2] * a[:, 3]
    union = np.where(crowd, area, area + b[:, 2] * b[:, 3] - intersection)
    return np.asarray(np.divide(intersection, union, out=np.zeros(len(a)), where=overlap))


def _pair_mask_iou(a: NDArray[np.object_], b: NDArray[np.object_], crowd: Bools) -> Floats:
    """As :func:`_pair_iou`, of run-length coded masks."""
    from pycocotools import mask as codes

    pairs = zip(a.tolist(), b.tolist(), crowd.tolist(), strict=True)
    return np.array([codes.iou([one], [other], [is_crowd])[0, 0] for one, other, is_crowd in pairs], np.float64)


def _accumulate(
    detections: Boxes,
    rank: Ints,
    matched: Bools,
    ignored: Bools,
    truth: Boxes,
    truth_ignored: Bools,
    categories: int,
    max_dets: Sequence[int],
) -> CocoEvaluation:
    thresholds, areas = matched.shape[:2]
    precision = np.full((thresholds, len(RECALL_POINTS), categories, areas), -1.0)
    recall = np.full((thresholds, categories, areas, len(max_dets)), -1.0)
    edges = np.searchsorted(detections.category, np.arange(categories + 1))
    for k in range(categories):
        wanted = (~truth_ignored[:, truth.category == k]).sum(axis=1)
        mine = slice(int(edges[k]), int(edges[k + 1]))
        order = np.argsort(-detections.score[mine], kind="stable")
        counts = ~ignored[:, :, mine][:, :, order]
        right = matched[:, :, mine][:, :, order] & counts
        for area in np.flatnonzero(wanted):
            for m, limit in enumerate(max_dets):
                recall[:, k, area, m] = right[:, area, rank[mine][order] < limit].sum(axis=1) / wanted[area]
            precision[:, :, k, area] = _precision_at_recalls(right[:, area], counts[:, area], int(wanted[area]))
    return CocoEvaluation(precision, recall)


def _precision_at_recalls(right: Bools, counts: Bools, wanted: int) -> Floats:
    """(T, R) best precision at each recall point or beyond, 0 past the last; rows (T, N) by descending score."""
    true = np.cumsum(right, axis=1, dtype=np.float64)
    seen = np.cumsum(counts, axis=1, dtype=np.float64)
    envelope = np.maximum.accumulate((true / (seen + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    reached = true / wanted
    result = np.zeros((len(right), len(RECALL_POINTS)))
    for t in range(len(right)):
        at = np.searchsorted(reached[t], RECALL_POINTS, side="left")
        inside = at < right.shape[1]
        result[t, inside] = envelope[t, at[inside]]
    return result
