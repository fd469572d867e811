"""detectnet_v2 decoding against a plain implementation of its contract, and clustering against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from nvidia_tao_deploy.cv.detectnet_v2 import metric
from nvidia_tao_deploy.cv.detectnet_v2.decode import decode
from nvidia_tao_deploy.cv.detectnet_v2.spec import Clustering, Spec
from nvidia_tao_deploy.data.kitti import KittiTarget
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.kitti_detection import PlacedDetections
from nvidia_tao_deploy.predictions.cluster import overlap_distance, weighted_dbscan
from nvidia_tao_deploy.transforms.transform import Geometry

NUMBERS = ("coverage_threshold", "dbscan_eps", "dbscan_min_samples", "dbscan_confidence_threshold")


def clustering(algorithm, *numbers, **more):
    """Settings of one class, the first numbers in the order of the spec."""
    names = (*NUMBERS, "minimum_bounding_box_height")
    return Clustering(clustering_algorithm=algorithm, **dict(zip(names, numbers, strict=False)), **more)


NET = (320, 176)
GRID = (20, 11)


def plain_cells(cov, bbox, k, threshold, scale=35.0, offset=0.5):
    boxes, scores = [], []
    for i in range(cov.shape[2]):
        for j in range(cov.shape[1]):
            if cov[k, j, i] > np.float32(threshold):
                cx, cy = np.float32(16 * i + offset), np.float32(16 * j + offset)
                o = bbox[4 * k : 4 * k + 4, j, i] * np.float32(scale)
                boxes.append([cx - o[0], cy - o[1], cx + o[2], cy + o[3]])
                scores.append(cov[k, j, i])
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)


def plain_dbscan(boxes, scores, c):
    """Clusters as lists of member indices, by scikit-learn on the full distance matrix."""
    if not len(boxes):
        return []
    distance = np.array([[plain_distance(a, b) for b in boxes] for a in boxes], np.float32)
    eps = float(np.float32(c.dbscan_eps)) + 1e-12
    labels = DBSCAN(eps=eps, min_samples=max(c.dbscan_min_samples, 1), metric="precomputed").fit_predict(
        distance, sample_weight=scores.astype(np.float64)
    )
    clusters = [np.flatnonzero(labels == n) for n in range(labels.max() + 1)]
    kept = []
    for members in clusters:
        total = float(scores[members].astype(np.float64).sum())
        mean = (boxes[members].astype(np.float64) * scores[members, None]).sum(0) / total
        if mean[3] - mean[1] > c.minimum_bounding_box_height and total >= c.dbscan_confidence_threshold:
            kept.append((mean, total, members))
    return kept


def plain_distance(a, b):
    w = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]))
    h = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]))
    inter = np.float32(w * h)
    union = np.float32((a[2] - a[0]) * (a[3] - a[1])) + np.float32((b[2] - b[0]) * (b[3] - b[1])) - inter
    return np.float32(1) - inter / (union + np.float32(0.01))


def plain_nms(boxes, scores, c):
    left = [i for i in range(len(boxes)) if scores[i] > c.nms_confidence_threshold]
    kept = []
    while left:
        best = max(left, key=lambda i: (scores[i], -i))
        kept.append(best)
        left = [i for i in left if i != best and plain_iou1(boxes[best], boxes[i]) <= c.nms_iou_threshold]
    return [
        (boxes[i].astype(np.float64), float(scores[i]), None)
        for i in kept
        if boxes[i][3] - boxes[i][1] > c.minimum_bounding_box_height
    ]


def plain_iou1(a, b):
    one = np.float32(1)
    w = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]) + one)
    h = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]) + one)
    area = [(r[2] - r[0] + one) * (r[3] - r[1] + one) for r in (a, b)]
    return (w * h) / (area[0] + area[1] - w * h)


def plain_decode(cov, bbox, size, classes):
    """Rows (class id, score, x1, y1, x2, y2) of one image."""
    rows = []
    for k, c in enumerate(classes):
        boxes, scores = plain_cells(cov, bbox, k, c.coverage_threshold)
        if c.clustering_algorithm == "NMS":
            result = plain_nms(boxes, scores, c)
        else:
            result = plain_dbscan(boxes, scores, c)
            if c.clustering_algorithm == "HYBRID":
                members = sorted(i for _, _, m in result for i in m)
                result = plain_nms(boxes[members], scores[members], c)
        for box, score, _ in sorted(result, key=lambda r: -r[1]):
            x1, y1 = min(max(box[0], 0), NET[0]), min(max(box[1], 0), NET[1])
            x2, y2 = max(min(box[2], NET[0]), x1), max(min(box[3], NET[1]), y1)
            sx, sy = size[0] / NET[0], size[1] / NET[1]
            rows.append([k + 1, score, x1 * sx, y1 * sy, x2 * sx, y2 * sy])
    return np.array(rows).reshape(-1, 6)


def scene(rng, classes, objects=6):
    """Grids as the network fills them: a blob of coverage per object, offsets to a common box, some noise."""
    cov = (rng.random((classes, GRID[1], GRID[0])) * 0.05).astype(np.float32)
    bbox = rng.normal(0.4, 0.2, (4 * classes, GRID[1], GRID[0])).astype(np.float32)
    for _ in range(objects):
        k, i, j = rng.integers(classes), rng.integers(GRID[0]), rng.integers(GRID[1])
        r = rng.integers(0, 3)
        w, h = rng.uniform(20, 120, 2)
        cx, cy = 16 * i + rng.uniform(-8, 8), 16 * j + rng.uniform(-8, 8)
        for y in range(max(j - r, 0), min(j + r + 1, GRID[1])):
            for x in range(max(i - r, 0), min(i + r + 1, GRID[0])):
                cov[k, y, x] = rng.choice([0.25, 0.5, 0.75, rng.random()])
                px, py = 16 * x + 0.5, 16 * y + 0.5
                sides = np.array([px - cx + w / 2, py - cy + h / 2, cx + w / 2 - px, cy + h / 2 - py])
                bbox[4 * k : 4 * k + 4, y, x] = (sides + rng.normal(0, 2, 4)) / 35
    return cov, bbox


def geometry(size):
    return Geometry(size, NET, (NET[0] / size[0], NET[1] / size[1]))


CLASSES = (
    clustering("DBSCAN", 0.1, 0.3, 1, 0.3, 4),
    clustering("NMS", 0.1, nms_iou_threshold=0.4, nms_confidence_threshold=0.2, minimum_bounding_box_height=20),
    clustering("HYBRID", 0.05, 0.45, 0, 0.6, 4, nms_iou_threshold=0.3, nms_confidence_threshold=0.1),
)


@pytest.mark.parametrize("seed", range(12))
def test_decode_equals_a_plain_implementation(seed):
    rng = np.random.default_rng(seed)
    grids = [scene(rng, 3, objects=rng.integers(0, 12)) for _ in range(3)]
    sizes = [(640, 352), (1242, 375), (100, 300)]
    cov, bbox = np.stack([g[0] for g in grids]), np.stack([g[1] for g in grids])
    found = decode(cov, bbox, [geometry(s) for s in sizes], CLASSES)
    for (c, b), size, mine in zip(grids, sizes, found, strict=True):
        wanted = plain_decode(c, b, size, CLASSES)
        np.testing.assert_array_equal(mine.class_ids, wanted[:, 0])
        np.testing.assert_allclose(mine.scores, wanted[:, 1], rtol=1e-6)
        np.testing.assert_allclose(mine.boxes_xyxy, wanted[:, 2:], rtol=1e-5, atol=1e-3)


def test_short_last_batch_and_empty_images():
    cov = np.zeros((4, 3, GRID[1], GRID[0]), np.float32)
    bbox = np.full((4, 12, GRID[1], GRID[0]), 0.5, np.float32)
    cov[3] = 1.0  # padding: must not be looked at
    found = decode(cov, bbox, [geometry((50, 60))] * 2, CLASSES)
    assert [len(d) for d in found] == [0, 0]
    assert found[0].boxes_xyxy.shape == (0, 4)
    assert decode(cov, bbox, [], CLASSES) == []


def test_one_isolated_cell_needs_enough_coverage_to_be_a_cluster():
    cov = np.zeros((1, 1, GRID[1], GRID[0]), np.float32)
    cov[0, 0, 5, 5] = 0.9
    bbox = np.full((1, 4, GRID[1], GRID[0]), 1.0, np.float32)
    one = [clustering("DBSCAN", 0.1, 0.3, 1)]
    assert len(decode(cov, bbox, [geometry(NET)], one)[0]) == 0
    cov[0, 0, 5, 5] = 1.0
    found = decode(cov, bbox, [geometry(NET)], one)[0]
    np.testing.assert_allclose(found.boxes_xyxy, [[80.5 - 35, 80.5 - 35, 80.5 + 35, 80.5 + 35]])
    assert found.scores.tolist() == [1.0]
    assert found.class_ids.tolist() == [1]


def test_kept_boxes_keep_their_own_coverage():
    # the peer gives a kept box the score of whatever box was swapped into its place
    cov = np.zeros((1, 1, GRID[1], GRID[0]), np.float32)
    bbox = np.full((1, 4, GRID[1], GRID[0]), 0.4, np.float32)
    cov[0, 0, 2, 1], cov[0, 0, 2, 9], cov[0, 0, 2, 17] = 0.4, 0.9, 0.6
    found = decode(cov, bbox, [geometry(NET)], [clustering("NMS", 0.1)])[0]
    np.testing.assert_allclose(found.scores, [0.9, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_allclose((found.boxes_xyxy[:, 0] + found.boxes_xyxy[:, 2]) / 2, [144.5, 272.5, 16.5])


def test_scale_offset_and_stride_come_from_spec_and_grid():
    cov = np.zeros((1, 1, 4, 5), np.float32)
    cov[0, 0, 3, 2] = 1.0
    bbox = np.full((1, 4, 4, 5), 0.1, np.float32)
    found = decode(
        cov, bbox, [Geometry((100, 100), (40, 32), (0.4, 0.32))], [clustering("NMS", 0.5)], scale=20, offset=4
    )[0]
    np.testing.assert_allclose(found.boxes_xyxy, [[(20 - 2) / 0.4, (28 - 2) / 0.32, (20 + 2) / 0.4, (28 + 2) / 0.32]])


def test_wrong_class_count_and_nan_are_named():
    cov, bbox = np.zeros((1, 2, 4, 5), np.float32), np.zeros((1, 8, 4, 5), np.float32)
    with pytest.raises(ModelError, match="do not fit 3 classes"):
        decode(cov, bbox, [geometry(NET)], CLASSES)
    bbox[0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        decode(cov, bbox, [geometry(NET)], CLASSES[:2])


@pytest.mark.parametrize("seed", range(8))
def test_weighted_dbscan_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 900))
    corner = rng.uniform(0, 600, (n, 2)) if seed % 2 else rng.integers(0, 20, (n, 2)) * 16.0
    boxes = np.concatenate([corner, corner + rng.uniform(1, 120, (n, 2))], axis=1).astype(np.float32)
    weights = np.round(rng.random(n), 2)
    eps, minimum = rng.choice([0.1, 0.4, 0.7, 1.0]), int(rng.integers(1, 4))
    wanted = DBSCAN(eps=float(np.float32(eps)) + 1e-12, min_samples=minimum, metric="precomputed").fit_predict(
        overlap_distance(boxes, boxes), sample_weight=weights
    )
    np.testing.assert_array_equal(weighted_dbscan(boxes, weights, eps, minimum), wanted)


def test_weighted_dbscan_of_nothing():
    assert weighted_dbscan(np.zeros((0, 4)), np.zeros(0), 0.3, 1).shape == (0,)


def test_distance_has_its_hundredth():
    unit = np.array([[0, 0, 1, 1]], np.float32)
    np.testing.assert_allclose(overlap_distance(unit, unit), [[1 - 1 / 1.01]], rtol=1e-5)


def test_coverage_must_exceed_its_threshold():
    cov = np.zeros((1, 1, GRID[1], GRID[0]), np.float32)
    cov[0, 0, 3, 3] = 0.5
    bbox = np.full((1, 4, GRID[1], GRID[0]), 1.0, np.float32)
    assert len(decode(cov, bbox, [geometry(NET)], [clustering("NMS", 0.5)])[0]) == 0
    assert len(decode(cov, bbox, [geometry(NET)], [clustering("NMS", 0.49)])[0]) == 1


def test_suppression_counts_whole_pixels():
    # 0..9 and 5..14 share 5 of 15 columns with both ends included (1/3 > 0.3), 4 of 14 without (2/7 < 0.3)
    cov = np.zeros((1, 1, GRID[1], GRID[0]), np.float32)
    cov[0, 0, 0, :2] = 0.9, 0.8
    bbox = np.zeros((1, 4, GRID[1], GRID[0]), np.float32)
    bbox[0, :, 0, 0] = np.array([0.5, 0.5, 8.5, 8.5]) / 35
    bbox[0, :, 0, 1] = np.array([11.5, 0.5, -2.5, 8.5]) / 35
    found = decode(cov, bbox, [geometry(NET)], [clustering("NMS", 0.1, nms_iou_threshold=0.3)])[0]
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 0, 9, 9]], atol=1e-5)


@pytest.mark.parametrize(("shift", "kept"), [(5, 1), (6, 2)])
def test_suppression_defaults_where_the_spec_is_silent(shift, kept):
    # boxes 0..9 and shift..shift+9: IoU 1/3 and 1/4 around the default 0.3; coverage 0.1 itself does not count
    cov = np.zeros((1, 1, GRID[1], GRID[0]), np.float32)
    cov[0, 0, 0, :3] = 0.9, 0.11, 0.1
    bbox = np.zeros((1, 4, GRID[1], GRID[0]), np.float32)
    bbox[0, :, 0, 0] = np.array([0.5, 0.5, 8.5, 8.5]) / 35
    bbox[0, :, 0, 1] = np.array([16.5 - shift, 0.5, shift + 9 - 16.5, 8.5]) / 35
    bbox[0, :, 0, 2] = np.array([-67.5, 0.5, 76.5, 8.5]) / 35
    found = decode(cov, bbox, [geometry(NET)], [clustering("NMS", 0.01)])[0]
    np.testing.assert_allclose(found.scores, [0.9, 0.11][:kept], rtol=1e-6)


def test_objects_without_area_in_their_image_count_as_misses_and_are_told():
    spec = Spec.model_validate({"cost_function_config": {"target_classes": [{"name": "car"}]}})
    ap = {}
    for name, box in (("good", [10, 10, 60, 60]), ("flat", [10, 10, 10, 60]), ("outside", [700, 10, 760, 60])):
        measured = metric(spec, None)
        truth = np.array([[10, 10, 60, 60], box], float)
        target = KittiTarget(truth, np.array([1, 1]), np.zeros(2, bool))
        found = PlacedDetections(truth[:1], np.array([0.9]), np.array([1]), geometry=geometry((640, 352)))
        measured.update(Sample("a.png", (), target), found)
        ap[name] = measured.compute()["AP_car"]
        told = "1 object has no area in its image (kept: misses): a.png" in measured.report()
        assert told == (name != "good")
    assert ap["flat"] == ap["outside"] == ap["good"] == pytest.approx(6 / 11)  # one of two is found


@pytest.mark.parametrize("algorithm", ["DBSCAN", "NMS", "HYBRID"])
def test_a_box_of_the_minimum_height_is_dropped_and_a_sum_at_the_threshold_is_kept(algorithm):
    cov = np.zeros((1, 1, GRID[1], GRID[0]), np.float32)
    cov[0, 0, 3, 3] = 1.0
    bbox = np.full((1, 4, GRID[1], GRID[0]), 1.0, np.float32)  # 70 pixels high

    def found(height, least):
        return len(decode(cov, bbox, [geometry(NET)], [clustering(algorithm, 0.1, 0.3, 1, least, height)])[0])

    assert [found(height, 0.0) for height in (69, 70, 71)] == [1, 0, 0]
    if algorithm != "NMS":
        assert [found(0, least) for least in (0.99, 1.0, 1.01)] == [1, 1, 0]
