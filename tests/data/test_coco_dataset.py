"""The COCO loader: targets, and what it says about bad annotation files."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.errors import DataError

DOCUMENT = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30},
        {"id": 3, "file_name": "sub/a.jpg", "width": 20, "height": 10},
    ],
    "annotations": [
        {"id": 11, "image_id": 3, "category_id": 5, "bbox": [1, 2, 3.5, 4], "area": 9.0, "iscrowd": 1},
        {"id": 12, "image_id": 3, "category_id": 2, "bbox": [0, 0, 2, 2], "area": 4.0, "iscrowd": 0},
    ],
    "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("b.jpg", "sub/a.jpg"):
        (tmp_path / "images" / name).write_bytes(b"x")
    return tmp_path


def load(folder, change=dict, **options):
    document = copy.deepcopy(DOCUMENT)
    change(document)
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return CocoDetection(path, folder / "images", **options)


def test_samples_and_targets(folder):
    dataset = load(folder)
    assert [dataset[i].id for i in range(len(dataset))] == [7, 3]
    assert dataset.root == folder / "images"
    assert dataset.categories == {2: "cat", 5: "dog"}
    assert list(dataset.categories) == [2, 5]
    assert dataset.issues == []
    assert dataset[0].meta == {"annotated_size": (40, 30)}
    assert dataset[0].target.boxes_xyxy.shape == (0, 4)
    target = dataset[1].target
    np.testing.assert_array_equal(target.boxes_xyxy, [[1, 2, 4.5, 6], [0, 0, 2, 2]])
    np.testing.assert_array_equal(target.class_ids, [5, 2])
    np.testing.assert_array_equal(target.iscrowd, [True, False])
    np.testing.assert_array_equal(target.area, [9, 4])
    assert [len(load(folder, limit=n)) for n in (0, 1, 99, None)] == [2, 1, 2, 2]


def test_image_dir_comes_before_the_working_directory(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "b.jpg").write_bytes(b"other")
    monkeypatch.chdir(folder / "elsewhere")
    assert load(folder)[0].path == folder / "images" / "b.jpg"
    absolute = load(folder, lambda d: d["images"][0].update(file_name=os.path.abspath("b.jpg")))
    assert absolute[0].path == folder / "elsewhere" / "b.jpg"


def test_missing_images_are_skipped_and_named(folder):
    (folder / "images" / "b.jpg").unlink()
    dataset = load(folder)
    assert dataset.image_ids == [3]
    assert dataset.issues == ["1 of 2 images are not on disk: b.jpg (skipped)"]
    with pytest.raises(DataError, match=r"1 of 2 images are not on disk: b\.jpg"):
        load(folder, strict=True)
    (folder / "images" / "sub" / "a.jpg").unlink()
    with pytest.raises(DataError, match="2 of 2 images are not on disk"):
        load(folder)
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(DataError, match="images: no such image folder"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][1].update(image_id=99), r"no known image_id: 99.*annotations\[1\]"),
        (lambda d: d["annotations"][0].update(category_id=6), r"no known category_id: 6"),
        (lambda d: d["images"].append(dict(d["images"][0])), "image ids that stand more than once: 7"),
        (lambda d: d["categories"].append({"id": 2, "name": "x"}), "category ids that stand more than once: 2"),
        (lambda d: d["images"][1].update(id="3"), r"images\[1\]\.id is not an integer: '3'"),
        (lambda d: d["images"][1].pop("file_name"), r"images\[1\] has no 'file_name'"),
        (lambda d: d["annotations"][1].pop("bbox"), r"annotations\[1\] has no 'bbox'"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3]), r"annotations\[1\]\.bbox is not"),
        (lambda d: d["annotations"][1].update(area="big"), "area is not a number"),
        (lambda d: d["annotations"][1].update(iscrowd="no"), r"annotations\[1\]\.iscrowd is not 0 or 1: 'no'"),
        (lambda d: d["images"][0].update(width="40"), r"images\[0\]\.width is not a number: '40'"),
        (lambda d: d.pop("categories"), "no list of objects 'categories'"),
        (lambda d: d.update(annotations={}), "no list of objects 'annotations'"),
        (lambda d: d.update(categories=[], annotations=[]), "no category"),
        (lambda d: d.update(images=[], annotations=[]), "lists no image"),
    ],
)
def test_contradictions_are_errors_that_name_the_file(folder, change, message):
    with pytest.raises(DataError, match=message) as caught:
        load(folder, change)
    assert "instances.json" in str(caught.value)


def test_malformed_json_names_line_and_column(folder):
    path = folder / "bad.json"
    path.write_text('{"images": [],\n  "annotations": [,]}')
    with pytest.raises(DataError, match=r"bad\.json:2: malformed JSON: .*line 2, column 19"):
        CocoDetection(path, folder)
    path.write_bytes(b'{"images": "\xff"}')
    with pytest.raises(DataError, match="not UTF-8"):
        CocoDetection(path, folder)
    path.write_text("[]")
    with pytest.raises(DataError, match="not a COCO instances file"):
        CocoDetection(path, folder)
    with pytest.raises(DataError, match="No such file"):
        CocoDetection(folder / "none.json", folder)


def test_odd_boxes_and_missing_fields_are_counted_and_named(folder):
    def change(document):
        rows = document["annotations"]
        rows.append({"id": 13, "image_id": 7, "category_id": 2, "bbox": [1, float("nan"), 3, 4]})
        rows.append({"id": 14, "image_id": 7, "category_id": 2, "bbox": [1, 1, -3, 4]})
        rows.append({"id": 15, "image_id": 7, "category_id": 2, "bbox": [1, 1, 0, 4], "area": 0, "iscrowd": 0})
        rows.append({"id": 16, "image_id": 7, "category_id": 2, "bbox": [45, 1, 2, 4]})
        rows.append(
            {"id": 17, "image_id": 7, "category_id": 2, "bbox": [1, 1, 2, 5], "area": float("nan"), "iscrowd": 0}
        )
        rows.append({"id": 18, "image_id": 7, "category_id": 2, "bbox": [1, 1, 2, 5], "area": -3, "iscrowd": 0})
        rows.append({"id": 19, "image_id": 7, "category_id": 2, "bbox": [1, 1, 2, 5], "area": None, "iscrowd": 0})

    dataset = load(folder, change)
    assert dataset.issues == [
        "2 annotations dropped, their box is not finite or has a negative size: 13, 14",
        "1 annotation has a box of zero area (kept: misses): 15",
        "1 annotation is outside its image (kept): 16",
        "4 annotations have no usable 'area' (width x height): 16, 17, 18, 19",
        "3 annotations have no 'iscrowd' (taken as 0): 13, 14, 16",
    ]
    assert [a["id"] for a in dataset.raw["annotations"]] == [11, 12, 15, 16, 17, 18, 19]
    assert [a["area"] for a in dataset.raw["annotations"]] == [9, 4, 0, 8, 10, 10, 10]
    assert dataset.raw["annotations"][3] == {
        "id": 16, "image_id": 7, "category_id": 2, "bbox": [45, 1, 2, 4], "area": 8.0, "iscrowd": 0,
    }  # fmt: skip


def test_annotations_that_cannot_count_are_told(folder):
    for change in (lambda d: d.update(annotations=[]), lambda d: d["annotations"][1].update(iscrowd=1)):
        assert load(folder, change).issues == [
            "no annotation counts, there are none but crowds: every number is -1, undefined"
        ]


@pytest.mark.parametrize("ids", [(0, 1), (4, 4), (None, 2)])
def test_annotation_ids_the_metric_cannot_count_with_are_renumbered(folder, ids):
    def change(document):
        for row, number in zip(document["annotations"], ids, strict=True):
            row["id"] = number

    dataset = load(folder, change)
    assert [a["id"] for a in dataset.raw["annotations"]] == [1, 2]
    assert any("renumbered" in issue for issue in dataset.issues)


def test_one_image_alone_is_nothing_to_tell(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"x")

    def one(document):
        document["images"] = [{"id": 3, "file_name": "a.jpg", "width": 9, "height": 9}]
        document["annotations"] = document["annotations"][1:]

    assert (len(load(tmp_path, one)), load(tmp_path, one).issues) == (1, [])
