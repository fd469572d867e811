"""KITTI AP against a walk through the definition, entry by entry."""

from __future__ import annotations

import numpy as np
import pytest

from nvidia_tao_deploy.data.kitti import KittiTarget
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.metrics.kitti import BoxLimits, KittiMetric
from nvidia_tao_deploy.predictions.types import Detections

NAMES = ("car", "person", "absent")


def plain_iou(a, b):
    w = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union if union > 0 else 0.0


def plain_entries(truth, found, class_id, threshold):
    """(T, P) of one image; truth rows [class, difficult, box], found rows [class, score, box]."""
    mine = [t for t in truth if t[0] == class_id]
    used = [False] * len(mine)
    entries = []
    for row in sorted((f for f in found if f[0] == class_id), key=lambda f: -f[1]):
        overlaps = [0.0 if used[i] else plain_iou(row[2:], t[2:]) for i, t in enumerate(mine)]
        best = max(overlaps, default=0.0)
        if mine and best >= threshold:
            at = overlaps.index(best)
            used[at] = True
            if mine[at][1] >= 0.5:
                continue
            entries.append((1, row[1]))
        else:
            entries.append((0, row[1]))
    entries += [(1, 0.0) for i, t in enumerate(mine) if not used[i] and t[1] < 0.5]
    return entries


def plain_ap(entries, confidence, mode):
    entries = sorted(entries, key=lambda e: -e[1])
    total = sum(t for t, _ in entries)
    right = wrong = 0
    precision, recall = [], []
    for t, p in entries:
        if p >= confidence:
            right, wrong = right + t, wrong + (1 - t)
        precision.append(right / (right + wrong) if right + wrong else 0.0)
        recall.append(right / total if total else 0.0)
    if mode == "SAMPLE":
        ap = 0.0
        for k in range(11):
            ap += max((p for p, r in zip(precision, recall, strict=True) if r >= k * 0.1), default=0.0) / 11
        return ap
    r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(p) - 2, -1, -1):
        p[i] = max(p[i], p[i + 1])
    return sum((r[i + 1] - r[i]) * p[i + 1] for i in range(len(r) - 1))


def random_image(rng):
    truth, found = [], []
    for _ in range(rng.integers(0, 6)):
        x, y, w, h = rng.integers(0, 40, 4)
        truth.append([rng.integers(1, 3), rng.random() < 0.3, x, y, x + w, y + h])
        for _ in range(rng.integers(0, 3)):
            jitter = rng.integers(-3, 4, 4)
            box = np.array([x, y, x + w, y + h]) + jitter
            box[2:] = np.maximum(box[2:], box[:2])
            found.append([truth[-1][0], rng.integers(0, 11) / 10, *box])
    for _ in range(rng.integers(0, 3)):
        x, y, w, h = rng.integers(0, 40, 4)
        found.append([rng.integers(1, 3), rng.integers(0, 11) / 10, x, y, x + w, y + h])
    return np.array(truth, float).reshape(-1, 6), np.array(found, float).reshape(-1, 6)


def update(metric, truth, found):
    target = KittiTarget(truth[:, 2:], truth[:, 0].astype(np.int64), truth[:, 1] > 0)
    metric.update(Sample("a", (), target), Detections(found[:, 2:], found[:, 1], found[:, 0].astype(np.int64)))


@pytest.mark.parametrize("mode", ["SAMPLE", "INTEGRATE"])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition(mode, seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(rng.integers(1, 40))]
    threshold, confidence = rng.choice([0.3, 0.5, 0.7]), rng.choice([0.01, 0.5])
    metric = KittiMetric(NAMES, first_class_id=1, iou_threshold=threshold, confidence_threshold=confidence, mode=mode)
    for truth, found in images:
        update(metric, truth, found)
    wanted = {}
    for class_id, name in enumerate(NAMES, start=1):
        entries = [e for t, f in images for e in plain_entries(t, f, class_id, threshold)]
        wanted[f"AP_{name}"] = plain_ap(entries, confidence, mode)
    wanted["mAP"] = sum(wanted.values()) / 3
    found = metric.compute()
    assert list(found) == ["AP_car", "AP_person", "AP_absent", "mAP"]
    assert found == pytest.approx(wanted, abs=1e-12)
    assert metric.undefined()[-1] == "absent"


def test_report_has_the_contract_s_lines():
    metric = KittiMetric(["car"])
    update(metric, np.array([[0, 0, 0, 0, 10, 10.0]]), np.array([[0, 0.9, 0, 0, 10, 10.0]]))
    assert metric.report().splitlines() == [
        "*" * 31,
        "car           AP    1.0",
        "              mAP   1.0",
        "*" * 31,
    ]


def test_overlap_by_class_and_size_limits():
    truth = np.array([[0, 0, 0, 0, 10, 10], [0, 0, 50, 50, 53, 53], [1, 0, 0, 0, 10, 10.0]])
    found = np.array([[0, 0.9, 0, 0, 10, 6], [0, 0.8, 80, 80, 82, 82], [1, 0.9, 0, 0, 10, 6.0]])
    metric = KittiMetric(
        ["a", "b"], iou_threshold={"a": 0.5, "B": 0.7}, box_limits={"A": BoxLimits(minimum_height=4, minimum_width=4)}
    )
    update(metric, truth, found)
    # the small object of class a is neutral and the small false detection dropped; class b misses its 0.7
    assert metric.compute() == {"AP_a": 1.0, "AP_b": 0.0, "mAP": 0.5}


def test_mistakes_are_named():
    with pytest.raises(SpecError, match="IoU thresholds"):
        KittiMetric(["a"], iou_threshold=0)
    for wrong in (0, 1.01):
        with pytest.raises(SpecError, match="IoU thresholds"):
            KittiMetric(["a", "b"], iou_threshold={"a": 1, "b": wrong})
    with pytest.raises(DataError, match="no image"):
        KittiMetric(["a"]).compute()


def test_recall_points_are_doubles_a_little_above_their_tenths():
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(10)], float)
    truth = np.concatenate([np.zeros((10, 2)), boxes], axis=1)
    found = np.concatenate([np.zeros((3, 1)), np.full((3, 1), 0.9), boxes[:3]], axis=1)
    metric = KittiMetric(["a"])
    update(metric, truth, found)
    # 3 of 10 found: recall 0.3 does not reach 3 * 0.1 = 0.30000000000000004
    assert metric.compute()["AP_a"] == pytest.approx(3 / 11)


@pytest.mark.parametrize(("height", "ap"), [(20, 1.0), (20.1, 0.0)])
def test_an_overlap_that_equals_the_threshold_matches(height, ap):
    metric = KittiMetric(["a"], iou_threshold=0.5)
    update(metric, np.array([[0, 0, 0, 0, 10, 10]], float), np.array([[0, 0.9, 0, 0, 10, height]]))
    assert metric.compute()["AP_a"] == ap
