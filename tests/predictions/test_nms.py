"""IoU and greedy suppression against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from nvidia_tao_deploy.predictions.nms import iou_matrix, nms


def plain_iou(a, b, offset):
    w = min(a[2], b[2]) - max(a[0], b[0]) + offset
    h = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(w, 0) * max(h, 0)
    area = [(r[2] - r[0] + offset) * (r[3] - r[1] + offset) for r in (a, b)]
    union = area[0] + area[1] - inter
    return inter / union if union > 0 else 0.0


def boxes_of(rng, n):
    corner = rng.integers(0, 30, (n, 2)).astype(float)
    return np.concatenate([corner, corner + rng.integers(0, 15, (n, 2))], axis=1)


@pytest.mark.parametrize("offset", [0, 1])
def test_iou_equals_a_plain_loop(offset):
    rng = np.random.default_rng(offset)
    a, b = boxes_of(rng, 40), boxes_of(rng, 25)
    wanted = [[plain_iou(p, q, offset) for q in b] for p in a]
    np.testing.assert_array_equal(iou_matrix(a, b, offset), wanted)
    assert iou_matrix(a[:0], b).shape == (0, 25)
    assert iou_matrix(a.astype(np.float32), b.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("seed", range(10))
def test_nms_equals_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    boxes, scores = boxes_of(rng, 60), rng.integers(0, 8, 60) / 8
    threshold, offset = rng.choice([0.0, 0.3, 0.5, 1.0]), seed % 2
    left, kept = list(range(60)), []
    while left:
        best = max(left, key=lambda i: (scores[i], -i))
        kept.append(best)
        left = [i for i in left if i != best and plain_iou(boxes[best], boxes[i], offset) <= threshold]
    assert nms(boxes, scores, threshold, offset).tolist() == kept


def test_nms_of_nothing():
    kept = nms(np.zeros((0, 4)), np.zeros(0), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == np.int64
