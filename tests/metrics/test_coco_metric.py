"""COCO numbers are pycocotools' numbers, to the last bit."""

from __future__ import annotations

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.coco import KEYS, CocoMetric
from nvidia_tao_deploy.predictions.types import Detections


def scene(seed, images=25, crowds=True):
    """A random annotation document, and detections by image id as (category id, score, x1, y1, x2, y2) rows."""
    rng = np.random.default_rng(seed)
    categories = [{"id": int(i), "name": f"c{i}"} for i in rng.choice(90, 6, replace=False)]
    ids = [c["id"] for c in categories]
    document = {"images": [], "annotations": [], "categories": categories}
    detections = {}
    for number in rng.permutation(images):
        image_id = int(number) * 3 + 1
        document["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "width": 640, "height": 480})
        rows = []
        for _ in range(rng.integers(0, 7)):
            size = rng.choice([8, 60, 250])
            x, y, w, h = *(rng.random(2) * 400), *((rng.random(2) + 0.2) * size)
            if rng.random() < 0.3:
                x, y, w, h = map(round, (x, y, w, h))
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(ids[:-1])),
                    "bbox": [float(v) for v in (x, y, w, h)],
                    "area": float(w * h * rng.choice([1, 0.7])),
                    "iscrowd": int(crowds and rng.random() < 0.15),
                }
            )
            for _ in range(rng.integers(0, 4)):
                dx, dy, dw, dh = rng.normal(0, 0.08, 4) * [w, h, w, h] * rng.integers(0, 2)
                x1, y1 = x + dx, y + dy
                category = document["annotations"][-1]["category_id"]
                rows.append([category, np.round(rng.random(), 1), x1, y1, x1 + max(w + dw, 1), y1 + max(h + dh, 1)])
        for _ in range(rng.choice([0, 5, 150], p=[0.4, 0.5, 0.1])):
            x1, y1, w, h = *(rng.random(2) * 400), *(rng.random(2) * rng.choice([10, 60, 250]))
            rows.append([rng.choice(ids), np.round(rng.random(), 1), x1, y1, x1 + w, y1 + h])
        detections[image_id] = np.array(rows).reshape(-1, 6)
    return document, detections


def dataset_of(tmp_path, document):
    for image in document["images"]:
        (tmp_path / image["file_name"]).write_bytes(b"x")
    (tmp_path / "i.json").write_text(json.dumps(document))
    return CocoDetection(tmp_path / "i.json", tmp_path)


def predictions(rows):
    return Detections(rows[:, 2:], rows[:, 1], rows[:, 0].astype(np.int64))


def by_pycocotools(document, detections, image_ids=None, category_ids=None, max_dets=(1, 10, 100)):
    results = [
        {"image_id": i, "category_id": int(r[0]), "score": r[1], "bbox": [r[2], r[3], r[4] - r[2], r[5] - r[3]]}
        for i, rows in detections.items()
        for r in rows
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(document)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.imgIds = sorted(image_ids or detections)
        evaluation.params.catIds = sorted(category_ids or [c["id"] for c in document["categories"]])
        evaluation.params.maxDets = list(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(12))
def test_equals_pycocotools(tmp_path, seed):
    document, detections = scene(seed)
    dataset = dataset_of(tmp_path, document)
    metric = CocoMetric(dataset)
    for i in range(len(dataset)):
        metric.update(dataset[i], predictions(detections[dataset[i].id]))
    wanted = by_pycocotools(document, {s: detections[s] for s in dataset.image_ids})
    np.testing.assert_array_equal(metric.stats(), wanted.stats)
    found = metric.compute()
    assert tuple(found) == KEYS
    assert list(found.values()) == [float(np.float32(v)) for v in wanted.stats]
    precision = wanted.eval["precision"]
    for k, category in enumerate(sorted(c["id"] for c in document["categories"])):
        part = precision[:, :, k, 0, -1]
        assert metric.per_class()[category][0] == (part.mean() if (part > -1).all() else -1)


def test_areas_on_a_border_count_on_both_sides(tmp_path):
    """32 x 32 and 96 x 96, as truth and as what is found in vain, are small and medium, medium and large."""
    sides = [16, 32, 64, 96, 128]
    document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "c"}]}
    detections = {}
    for i, side in enumerate(sides, 1):
        document["images"].append({"id": i, "file_name": f"{i}.jpg"})
        row = {"id": i, "image_id": i, "category_id": 1, "bbox": [0.0, 0.0, side, side], "area": side**2, "iscrowd": 0}
        document["annotations"].append(row)
        detections[i] = np.array([[1, 0.9, 0, 0, side, side], *([1, 0.95, 300, 300, 300 + s, 300 + s] for s in sides)])
    dataset = dataset_of(tmp_path, document)
    metric = CocoMetric(dataset)
    for i in range(len(dataset)):
        metric.update(dataset[i], predictions(detections[dataset[i].id]))
    np.testing.assert_array_equal(metric.stats(), by_pycocotools(document, detections).stats)


def test_only_evaluated_images_and_wanted_classes_count(tmp_path):
    document, detections = scene(3)
    dataset = dataset_of(tmp_path, document)
    categories = [c["id"] for c in document["categories"]][1:3]
    metric = CocoMetric(dataset, eval_class_ids=categories, max_dets=(2, 5, 20))
    seen = dataset.image_ids[:9]
    for i in range(9):
        metric.update(dataset[i], predictions(detections[seen[i]]))
    wanted = by_pycocotools(document, {i: detections[i] for i in seen}, seen, categories, (2, 5, 20))
    # pycocotools' summary knows 100 detections only, in AP; the arrays are what both are read from
    ours, theirs = metric.evaluation().precision, wanted.eval["precision"][..., -1]
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(metric.evaluation().recall, wanted.eval["recall"])


def test_classes_map_to_categories(tmp_path):
    document, detections = scene(4)
    dataset = dataset_of(tmp_path, document)
    ids = [c["id"] for c in document["categories"]]
    mapping = np.array([-1, *ids])  # channel 0 is no category
    metric = CocoMetric(dataset, mapping)
    for i in range(len(dataset)):
        rows = detections[dataset[i].id].copy()
        rows[:, 0] = [ids.index(c) + 1 for c in rows[:, 0]]
        extra = np.concatenate([[[0, 1.0, 0, 0, 500, 400]], rows])
        metric.update(dataset[i], predictions(extra))
    np.testing.assert_array_equal(metric.stats(), by_pycocotools(document, detections).stats)
    for wrong in (7, -1):
        with pytest.raises(ModelError, match=f"class {wrong}, the spec maps 7"):
            metric.update(dataset[0], predictions(np.array([[3, 1.0, 0, 0, 5, 5], [wrong, 1.0, 0, 0, 5, 5]])))
    with pytest.raises(DataError, match="no class of the network is a category"):
        CocoMetric(dataset, [1000, 1001])
    with pytest.raises(DataError, match="eval_class_ids"):
        CocoMetric(dataset, eval_class_ids=[1000])


def test_no_predictions_give_zeros_and_undefined(tmp_path):
    document, _ = scene(5, images=6)
    document["annotations"] = [a for a in document["annotations"] if a["area"] > 96**2]
    dataset = dataset_of(tmp_path, document)
    metric = CocoMetric(dataset)
    with pytest.raises(DataError, match="no image was evaluated"):
        metric.compute()
    for i in range(len(dataset)):
        metric.update(dataset[i], predictions(np.zeros((0, 6))))
    found = metric.compute()
    assert [found[k] for k in ("AP", "APl", "APs", "ARs")] == [0, 0, -1, -1]


def test_zero_area_truth_counts_as_a_miss_like_in_pycocotools(tmp_path):
    document, detections = scene(6)
    document["annotations"][0]["bbox"][2] = 0.0
    dataset = dataset_of(tmp_path, document)
    metric = CocoMetric(dataset)
    for i in range(len(dataset)):
        metric.update(dataset[i], predictions(detections[dataset[i].id]))
    np.testing.assert_array_equal(metric.stats(), by_pycocotools(document, detections).stats)


def test_report_names_every_class(tmp_path):
    document, detections = scene(7)
    dataset = dataset_of(tmp_path, document)
    metric = CocoMetric(dataset)
    for i in range(len(dataset)):
        metric.update(dataset[i], predictions(detections[dataset[i].id]))
    report = metric.report()
    assert all(c["name"] in report for c in document["categories"])
    assert f"{metric.compute()['AP']:.4f}" in report
    assert not metric.notes()


def test_report_tells_what_the_numbers_do_not_show(tmp_path):
    document, _ = scene(3)
    dataset = dataset_of(tmp_path, document)
    first, second, *_ = {a["category_id"]: a for a in document["annotations"]}.values()
    image_id = first["image_id"]
    sample = next(dataset[i] for i in range(len(dataset)) if dataset[i].id == image_id)
    annotated = {a["category_id"] for a in sample.target.annotations} - {first["category_id"]}
    metric = CocoMetric(dataset)
    metric.update(sample, predictions(np.array([[c, 0.5, 0, 0, 9, 9] for c in (first["category_id"], 95, 95, 97)])))
    strange, *unseen = metric.report().splitlines()[-2 if annotated else -1 :]
    wanted = "3 detections left out, of classes that are no category of the annotation file: 95 (2), 97 (1)"
    assert strange == wanted
    assert second["category_id"] in dataset.categories
    assert unseen == [
        "annotated, but not detected once: " + ", ".join(f"c{i} ({i})" for i in sorted(annotated))
    ] * bool(annotated)


@pytest.mark.parametrize("order", [1, -1])
def test_equal_overlaps_go_to_the_later_truth_like_in_pycocotools(tmp_path, order):
    boxes = [[0, 0, 10, 10], [4, 0, 10, 10]][::order]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 50, "height": 50}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": 100, "iscrowd": 0}
            for i, box in enumerate(boxes, start=1)
        ],
    }
    # the first detection lies half way between both; the second overlaps one of them only
    detections = {1: np.array([[1, 0.9, 2, 0, 12, 10], [1, 0.8, -1, 0, 9, 10]], float)}
    dataset = dataset_of(tmp_path, document)
    metric = CocoMetric(dataset)
    metric.update(dataset[0], predictions(detections[1]))
    np.testing.assert_array_equal(metric.stats(), by_pycocotools(document, detections).stats)
    # both are found at IoU 0.5 only if the first leaves the second its box
    assert metric.evaluation().recall[0, 0, 0, -1] == (1.0 if order == 1 else 0.5)
