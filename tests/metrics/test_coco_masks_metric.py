"""The numbers of masks are pycocotools' numbers, to the last bit."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.metrics.coco import KEYS
from nvidia_tao_deploy.metrics.coco_masks import (
    CocoMaskMetric,
    encode_mask,
    encode_masks,
    encode_part,
    encode_segmentation,
)
from nvidia_tao_deploy.predictions.masks import RoiMaskDetections
from nvidia_tao_deploy.predictions.types import Detections

SIZE = (120, 100)


def disc(rng: np.random.Generator) -> np.ndarray:
    y, x = np.ogrid[: SIZE[1], : SIZE[0]]
    cy, cx, ry, rx = *(rng.random(2) * [100, 120]), *(rng.uniform(3, 50, 2))
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


def segmentation(mask: np.ndarray, kind: int) -> Any:
    """A mask as text code, or its box as polygon, or as list of counts."""
    code = codes.encode(np.asfortranarray(mask.astype(np.uint8)))
    if kind == 0:
        return {"size": code["size"], "counts": code["counts"].decode()}
    if kind == 1:
        x, y, w, h = codes.toBbox(code)
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int))).tolist()
    return {"size": code["size"], "counts": np.diff([0, *edges, flat.size]).tolist()}


def scene(seed: int) -> tuple[dict[str, Any], dict[int, Detections]]:
    rng = np.random.default_rng(seed)
    categories = [{"id": int(i), "name": f"c{i}"} for i in rng.choice(90, 4, replace=False)]
    ids = [c["id"] for c in categories]
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    found = {}
    for number in rng.permutation(8):
        image_id = int(number) * 3 + 1
        document["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "width": SIZE[0], "height": SIZE[1]})
        masks, labels = [np.zeros(SIZE[::-1], bool)], [int(rng.choice(ids))]  # an empty one
        for _ in range(rng.integers(0, 6)):
            mask = disc(rng)
            if not mask.any():
                continue
            category = int(rng.choice(ids[:-1]))
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": codes.toBbox(encode_mask(mask)).tolist(),
                    "area": float(mask.sum() * rng.choice([1, 0.7])),
                    "iscrowd": int(rng.random() < 0.2),
                    "segmentation": segmentation(mask, int(rng.integers(0, 3))),
                }
            )
            for _ in range(rng.integers(0, 4)):
                masks.append(np.roll(mask, rng.integers(-3, 4, 2), (0, 1)))
                labels.append(category)
        masks += [disc(rng) for _ in range(rng.choice([0, 4, 110], p=[0.5, 0.4, 0.1]))]
        labels += rng.choice(ids, len(masks) - len(labels)).tolist()
        boxes = rng.uniform(0, 100, (len(masks), 4))  # have no say
        scores = np.round(rng.random(len(masks)), 1)
        found[image_id] = Detections(boxes, scores, np.array(labels), np.array(masks))
    return document, found


@pytest.mark.parametrize("seed", range(8))
def test_equals_pycocotools(tmp_path: Path, seed: int) -> None:
    document, found = scene(seed)
    for image in document["images"]:
        (tmp_path / image["file_name"]).write_bytes(b"x")
    (tmp_path / "i.json").write_text(json.dumps(document))
    dataset = CocoDetection(tmp_path / "i.json", tmp_path)
    metric = CocoMaskMetric(dataset)
    results = []
    for i in range(len(dataset)):
        detections = found[int(dataset[i].id)]
        metric.update(dataset[i], detections)
        assert detections.masks is not None
        results += [
            {"image_id": dataset[i].id, "category_id": int(c), "score": float(s), "segmentation": encode_mask(m)}
            for c, s, m in zip(detections.class_ids, detections.scores, detections.masks, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(document)
        truth.createIndex()
        wanted = COCOeval(truth, truth.loadRes(results), "segm")
        wanted.evaluate()
        wanted.accumulate()
        wanted.summarize()
    np.testing.assert_array_equal(metric.stats(), wanted.stats)
    assert list(metric.compute()) == [f"mask_{key}" for key in KEYS]
    np.testing.assert_array_equal(metric.evaluation().recall, wanted.eval["recall"])


def test_parts_are_coded_as_the_whole_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(1, 12, 2).tolist()
        left, top = int(rng.integers(0, width + 1)), int(rng.integers(0, height + 1))
        part = rng.random((rng.integers(0, height - top + 1), rng.integers(0, width - left + 1))) < rng.random()
        whole = np.zeros((height, width), bool)
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        code = encode_part(part, (left, top), (width, height))
        np.testing.assert_array_equal(codes.decode(code), whole)
        assert codes.area(code) == whole.sum()


def test_masks_over_boxes_are_coded_without_pictures() -> None:
    boxes = np.array([[10.0, 20.0, 50.0, 60.0], [500.0, 500.0, 600.0, 600.0], [-50.0, -50.0, 5.0, 5.0]])
    masks = np.ones((3, 4, 4), np.float32)
    detections = RoiMaskDetections(boxes, np.ones(3), np.ones(3, np.int64), roi_masks=masks, size=SIZE)
    first, second, third = encode_masks(detections)
    assert int(codes.area(first)) == pytest.approx(40 * 40, rel=0.05)  # the border falls to one half at the box
    assert codes.area(second) == 0
    assert 0 < codes.area(third) < 100
    kept = detections[np.array([True, False, True])]
    assert isinstance(kept, RoiMaskDetections)
    assert len(kept.roi_masks) == len(kept) == 2


def test_truth_of_another_size_is_refused(tmp_path: Path) -> None:
    document, found = scene(0)
    annotation = document["annotations"][0]
    annotation["segmentation"] = {"size": [5, 5], "counts": [20, 5]}
    for image in document["images"]:
        (tmp_path / image["file_name"]).write_bytes(b"x")
    (tmp_path / "i.json").write_text(json.dumps(document))
    dataset = CocoDetection(tmp_path / "i.json", tmp_path)
    metric = CocoMaskMetric(dataset)
    sample = next(dataset[i] for i in range(len(dataset)) if dataset[i].id == annotation["image_id"])
    with pytest.raises(DataError, match="5 x 5"):
        metric.update(sample, found[int(sample.id)])


@pytest.mark.parametrize(
    "segmentation",
    [
        [[float("nan"), 1, 2, 3, 4, 5]],  # pycocotools asks for all memory
        [[1e9, 1, 2, 3, 4, 5]],
        [[1, 2]],
        [[1, 2, 3, 4]],  # a box to pycocotools
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, 6], ["a"] * 6],
        {"size": [10, 8], "counts": [1, 2]},  # too few pixels
        {"size": [10, 8], "counts": [-1, 81]},
        {"size": [10, 8], "counts": "zzz"},  # pycocotools never ends
        {"size": [10, 8], "counts": "q"},
        {"size": [10, 8], "counts": ""},
        {"size": [10, 8], "counts": "\x01"},
        {"size": [10, 8], "counts": "oooooooooooooo0"},
        {"size": [10], "counts": [80]},
        {"counts": [80]},
        5,
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation: Any) -> None:
    with pytest.raises(DataError, match="not a COCO segmentation"):
        encode_segmentation(segmentation, (8, 10))


def test_every_form_of_a_segmentation_is_the_same_code() -> None:
    rng = np.random.default_rng(0)
    for density in np.linspace(0, 1, 300):
        mask = np.repeat(rng.random((rng.integers(1, 30), rng.integers(1, 30))) < density, 9, axis=0)
        size = (mask.shape[1], mask.shape[0])
        assert encode_segmentation(segmentation(mask, 0), size)["counts"] == encode_mask(mask)["counts"].decode()
        assert encode_segmentation(segmentation(mask, 2), size)["counts"] == encode_mask(mask)["counts"]


def test_masks_without_a_pixel_are_told(tmp_path: Path) -> None:
    document, found = scene(0)
    annotation = document["annotations"][0]
    annotation["segmentation"] = [[900, 900, 990, 900, 990, 990]]
    for image in document["images"]:
        (tmp_path / image["file_name"]).write_bytes(b"x")
    (tmp_path / "i.json").write_text(json.dumps(document))
    dataset = CocoDetection(tmp_path / "i.json", tmp_path)
    metric = CocoMaskMetric(dataset)
    for i in range(len(dataset)):
        metric.update(dataset[i], found[int(dataset[i].id)])
    assert metric.notes() == [f"1 annotation has a mask without a pixel (kept: misses): {annotation['id']}"]
