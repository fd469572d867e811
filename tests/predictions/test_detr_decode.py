"""Decoding of query-based detectors against plain Python and Hugging Face's rule (torch.topk on sigmoid)."""

from __future__ import annotations

import numpy as np
import pytest

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.predictions.detr import best_pairs, decode_detr, top_k
from nvidia_tao_deploy.transforms.transform import Geometry


def plain(logits, boxes, size, k):
    width, height = size
    pairs = []
    for query in range(logits.shape[0]):
        for channel in range(logits.shape[1]):
            score = np.float32(1) / (np.float32(1) + np.exp(-logits[query, channel]))
            pairs.append((score, query * logits.shape[1] + channel))
    pairs.sort(key=lambda pair: (-pair[0], pair[1]))
    rows = []
    for score, flat in pairs[:k]:
        query, channel = divmod(flat, logits.shape[1])
        cx, cy, w, h = boxes[query]
        corners = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], np.float32).astype(np.float64)
        x1, y1, x2, y2 = corners * np.array([width, height, width, height], np.int64)
        clip = lambda v, top: min(max(v, 0.0), float(top))  # noqa: E731
        rows.append([channel, score, clip(x1, width), clip(y1, height), clip(x2, width), clip(y2, height)])
    return np.array(rows, np.float64).reshape(-1, 6)


def outputs(seed, batch=3, queries=30, classes=7):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(-2, 3, (batch, queries, classes)), 1).astype(np.float32)  # many equal scores
    logits[0, :4] = 40  # saturated: all exactly 1
    logits[0, 4:6] = -200  # exp overflows
    boxes = rng.random((batch, queries, 4)).astype(np.float32)  # many reach over the border
    return logits, boxes


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1, 100, 210, 999])
def test_equals_plain_python(seed, k):
    logits, boxes = outputs(seed)
    sizes = [(640, 480), (33, 1001), (1, 1)]
    geometries = [Geometry(s, (64, 48), (64 / s[0], 48 / s[1])) for s in sizes]
    with np.errstate(all="raise"):
        found = decode_detr(logits, boxes, geometries, k)
    for i, size in enumerate(sizes):
        with np.errstate(over="ignore"):
            wanted = plain(logits[i], boxes[i], size, k)
        np.testing.assert_array_equal(found[i].class_ids, wanted[:, 0])
        np.testing.assert_array_equal(found[i].scores, wanted[:, 1])
        np.testing.assert_array_equal(found[i].boxes_xyxy, wanted[:, 2:])


def test_short_last_batch_uses_only_the_real_images():
    logits, boxes = outputs(0)
    geometry = Geometry((64, 48), (64, 48), (1.0, 1.0))
    logits[1:] = np.nan
    assert len(decode_detr(logits, boxes, [geometry], 5)) == 1
    assert decode_detr(logits, boxes, [], 5) == []


def test_padded_canvas_is_undone():
    # 200 x 100 on a 64 x 64 canvas, top left: the image covers [0, 1] x [0, 0.5]
    geometry = Geometry((200, 100), (64, 64), (64 / 200, 32 / 100))
    boxes = np.array([[[0.5, 0.25, 1.0, 0.5], [0.5, 0.75, 0.5, 0.5]]], np.float32)
    found = decode_detr(np.array([[[3.0], [2.0]]], np.float32), boxes, [geometry], 2)[0]
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 0, 200, 100], [50, 100, 150, 100]])


def test_nan_and_wrong_shapes_are_errors():
    logits, boxes = outputs(0)
    geometry = Geometry((64, 48), (64, 48), (1.0, 1.0))
    with pytest.raises(ModelError, match="are not"):
        decode_detr(boxes, logits, [geometry], 5)
    logits[0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        decode_detr(logits, boxes, [geometry], 5)


@pytest.mark.parametrize("k", [0, 1, 5, 40, 100])
def test_top_k_is_a_stable_descending_sort(k):
    scores = np.random.default_rng(k).integers(0, 6, 40).astype(np.float32)
    np.testing.assert_array_equal(top_k(scores, k), np.argsort(-scores, kind="stable")[:k])


@pytest.mark.parametrize("classes", [1, 2])
def test_pairs_of_few_classes_keep_their_query(classes):
    scores = np.arange(1, 3 * classes + 1, dtype=np.float32).reshape(3, classes) / 10
    corners = np.array([[0.1 * q, 0, 0.1 * q + 0.5, 1] for q in range(3)], np.float32)
    query, found = best_pairs(scores, corners, Geometry((100, 10), (100, 10), (1.0, 1.0)), 2 * classes)
    assert query.tolist() == [2] * classes + [1] * classes
    assert found.class_ids.tolist() == list(range(classes))[::-1] * 2
    np.testing.assert_allclose(found.boxes_xyxy[:, 0], [20] * classes + [10] * classes, rtol=1e-6)
