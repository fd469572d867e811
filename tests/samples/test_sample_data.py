"""The sample data sets: splits, labels that agree, and the same bytes every time."""

from __future__ import annotations

import filecmp
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from samples.data import write_digits, write_scenes
from samples.render import CLASSES, digits, split_indices


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), test=6, calibration=2)


def test_splits_share_no_digit():
    parts = [split_indices(split) for split in ("train", "test", "calibration")]
    assert [len(part) for part in parts] == [1317, 360, 120]
    assert len(np.unique(np.concatenate(parts))) == len(digits()[1])


def test_digit_folders_name_the_class(tmp_path):
    folder = write_digits(tmp_path, test=30, calibration=10)
    assert (folder / "classes.txt").read_text().split() == list(CLASSES)
    values = digits()[1]
    for split, count in (("test", 30), ("calibration", 10)):
        paths = list((folder / split).glob("*/*.png"))
        assert len(paths) == count
        for path in paths:
            assert path.parent.name == CLASSES[values[int(path.stem.removeprefix("digit_"))]]
    assert len({Image.open(path).size for path in folder.rglob("*.png")}) > 2


def test_coco_annotations_load_and_fit_their_images(scenes):
    coco_folder, _ = scenes
    coco = COCO(str(coco_folder / "annotations" / "test.json"))
    assert [category["id"] for category in coco.loadCats(coco.getCatIds())] == list(range(10))
    assert (coco_folder / "classmap.txt").read_text().split() == [c["name"] for c in coco.loadCats(coco.getCatIds())]
    for image in coco.loadImgs(coco.getImgIds()):
        assert Image.open(coco_folder / "images" / "test" / image["file_name"]).size == (
            image["width"],
            image["height"],
        )
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            x, y, w, h = annotation["bbox"]
            assert x >= 0
            assert y >= 0
            assert x + w <= image["width"]
            assert y + h <= image["height"]
            assert annotation["area"] == w * h


def test_kitti_says_what_coco_says(scenes):
    coco_folder, kitti_folder = scenes
    content = json.loads((coco_folder / "annotations" / "test.json").read_text())
    for image in content["images"]:
        name = image["file_name"]
        assert filecmp.cmp(coco_folder / "images/test" / name, kitti_folder / "test/images" / name, shallow=False)
        lines = (kitti_folder / "test/labels" / name).with_suffix(".txt").read_text().splitlines()
        rows = [line.split() for line in lines]
        assert all(len(row) == 15 for row in rows)
        kitti = [(row[0], [float(value) for value in row[4:8]]) for row in rows]
        wanted = []
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, w, h = annotation["bbox"]
                wanted.append((CLASSES[annotation["category_id"]], [x, y, x + w, y + h]))
        assert kitti == wanted


def test_an_image_does_not_depend_on_the_counts(scenes, tmp_path):
    write_scenes(tmp_path, test=2, calibration=0)
    for path in (tmp_path / "scenes_coco" / "images" / "test").iterdir():
        assert filecmp.cmp(path, scenes[0] / "images" / "test" / path.name, shallow=False)


def test_writing_again_replaces_the_folder(tmp_path):
    write_digits(tmp_path, test=5, calibration=1)
    write_digits(tmp_path, test=3, calibration=1)
    assert len(list((tmp_path / "digits" / "test").rglob("*.png"))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
