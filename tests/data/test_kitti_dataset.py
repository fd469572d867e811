"""The KITTI loader: rows, class mapping, and what it says about bad labels."""

from __future__ import annotations

import numpy as np
import pytest

from nvidia_tao_deploy.data.kitti import KittiDetection, KittiObject, class_order, parse_label
from nvidia_tao_deploy.errors import DataError

TAIL = "0.00 0.00 0.00 0.00 0.00 0.00 0.00"


@pytest.fixture
def make(tmp_path):
    def build(labels, images=None, **options):
        for name in ("images", "labels"):
            (tmp_path / name).mkdir(exist_ok=True)
        for stem in images or labels:
            (tmp_path / "images" / f"{stem}.PNG").write_bytes(b"x")
        for stem, text in labels.items():
            (tmp_path / "labels" / f"{stem}.txt").write_text(text)
        settings = {"class_names": ["Car", "person"], "class_mapping": {"car": "Car", "VAN": "car", "ped": "person"}}
        return KittiDetection([tmp_path / "images"], [tmp_path / "labels"], **{**settings, **options})

    return build


def test_rows(make):
    dataset = make(
        {
            "b": f"Car 0.00 0 0.00 1.5 2.5 30 40.25 {TAIL}\nvan 0.00 2 0.00 1 2 3 4 {TAIL}\n",
            "a": "",
            "c": f"PED 0.00 0.0 0.00 1 2 3 4 {TAIL} 0.9\nDontCare -1 -1 -10 1 2 3 4 {TAIL}\n",
        },
        images=["b", "a", "c", "without"],
        first_class_id=1,
    )
    assert [dataset[i].id for i in range(len(dataset))] == ["a.PNG", "b.PNG", "c.PNG"]
    empty, first, third = (dataset[i].target for i in range(3))
    assert [empty.boxes_xyxy.shape, empty.class_ids.shape, empty.difficult.shape] == [(0, 4), (0,), (0,)]
    np.testing.assert_array_equal(first.boxes_xyxy, [[1.5, 2.5, 30, 40.25], [1, 2, 3, 4]])
    assert first.class_ids.tolist() == [1, 1]
    assert first.difficult.tolist() == [False, True]
    assert third.class_ids.tolist() == [2]
    assert len(dataset.issues) == 2
    assert "1 image skipped" in dataset.issues[0]
    assert "without.PNG" in dataset.issues[0]
    assert dataset.issues[1] == "1 label left out, no class is mapped to it: DontCare (1)"


def test_a_folder_named_twice_counts_once(make, tmp_path):
    alone = make(dict.fromkeys("ab", f"Car 0.00 0 0.00 1 2 3 4 {TAIL}\n"), images=["a", "b"])
    folders = [tmp_path / "images"] * 2, [tmp_path / "labels", f"{tmp_path}/./labels"]
    twice = KittiDetection(*folders, ["car"])
    assert len(twice) == len(alone) == 2
    assert twice.issues == ["2 images are listed more than once, they count once"]


def test_labels_without_an_image_are_told(make):
    labels = dict.fromkeys("abc", f"Car 0.00 0 0.00 1 2 3 4 {TAIL}\n")
    issues = make(labels, images=["b"]).issues
    assert [issue.split(" in ")[0] for issue in issues] == ["2 label files skipped, they have no image"]
    assert issues[0].endswith(": a, c")


def test_round_boxes_is_half_to_even(make):
    dataset = make({"a": f"car 0 0 0 0.5 1.5 2.5 3.49 {TAIL}\n"}, round_boxes=True)
    np.testing.assert_array_equal(dataset[0].target.boxes_xyxy, [[0, 2, 2, 3]])


def test_names_that_never_match_are_listed(make):
    with pytest.raises(DataError, match="labels name bike, tram; wanted car, van, ped"):
        make({"a": f"tram 0 0 0 1 2 3 4 {TAIL}\nbike 0 0 0 1 2 3 4 {TAIL}\n"})


def test_mapping_to_a_class_the_network_lacks_is_left_out(make):
    dataset = make(
        {"a": f"tram 0 0 0 1 2 3 4 {TAIL}\ncar 0 0 0 1 2 3 4 {TAIL}\n"}, class_mapping={"tram": "train", "car": "CAR"}
    )
    assert dataset[0].target.class_ids.tolist() == [0]


def test_unreadable_lines_are_named_with_their_line(make):
    text = f"car 0 0 0 1 2 3 4 {TAIL}\ncar 0 0 0 1 2 3\ncar 0 0 0 9 2 3 4 {TAIL}\ncar 0 0 0 nan 2 3 4 {TAIL}\n"
    dataset = make({"a": text})
    assert len(dataset[0].target) == 1
    assert len(dataset.issues) == 1
    assert dataset.issues[0].startswith("3 label lines skipped: ")
    for number, reason in (
        (2, "a name, 7 numbers and one more field are"),
        (3, "the box is inverted"),
        (4, "a value is not finite"),
    ):
        assert f"a.txt:{number}: {reason}" in dataset.issues[0]
    with pytest.raises(DataError, match=r"a\.txt:2"):
        make({"a": text}, strict=True)


def test_labels_of_another_kind_are_refused(make):
    with pytest.raises(DataError, match=r"not one label line can be read; the first: .*a\.txt:1: .*car,0,0"):
        make({"a": "car,0,0,0,1,2,3,4,0\n", "b": ""})
    assert "the label files hold no object" in make({"a": "\n", "b": ""}).issues[0]


def test_a_mapping_to_other_classes_is_refused(make):
    with pytest.raises(DataError, match="leads to none of the network's classes: Car, person"):
        make({"a": f"tram 0 0 0 1 2 3 4 {TAIL}\n"}, class_mapping={"tram": "train"})


def test_class_names_may_hold_blanks():
    line = f"traffic light 2 0.00 1 0.00 1 2 3 4 {TAIL}"
    # the name ends where the numbers start, so a number at its end is lost to the numbers
    assert parse_label(line.replace(" 2 0.00", " 0.00")) == KittiObject("traffic light", (1, 2, 3, 4), True)
    assert isinstance(parse_label("traffic light"), str)
    assert parse_label("route 66 sign 0.5 1 0 1 2 3 4 -") == KittiObject("route 66 sign", (1, 2, 3, 4), True)


def test_fields_behind_the_box_may_be_anything():
    for tail in (TAIL, "0", "0 0 0 0 0 0 0 0.93 # checked", "unknown"):
        assert parse_label(f"car 0 0 0 1 2 3 4 {tail}") == KittiObject("car", (1, 2, 3, 4), False)
    assert isinstance(parse_label("car 0 0 0 1 2 3 4"), str)  # 8 fields
    assert isinstance(parse_label("car 0 ? 0 1 2 3 4 0 x"), str)


def test_folders_must_pair_and_hold_labels(make, tmp_path):
    make({"a": f"car 0 0 0 1 2 3 4 {TAIL}\n"})
    with pytest.raises(DataError, match="2 image folders and 1 label folder do"):
        KittiDetection([tmp_path, tmp_path], [tmp_path], ["car"])
    with pytest.raises(DataError, match="no such label folder"):
        KittiDetection(tmp_path / "images", tmp_path / "none", ["car"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="none of the images"):
        KittiDetection(tmp_path / "images", tmp_path / "bare", ["car"])


def test_class_order_is_the_trainers():
    mapping = {"van": "Truck", "car": "auto", "lkw": "truck", "man": "Person"}
    assert class_order(mapping) == ["auto", "person", "truck"]
    assert class_order(mapping, keep_case=True) == ["Person", "Truck", "auto", "truck"]
