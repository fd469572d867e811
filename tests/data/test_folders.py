"""Image folders and class folders."""

from __future__ import annotations

import os

import pytest

from nvidia_tao_deploy.data.folder import ClassFolder, ImageFolder, read_classes
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.network import Port


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_image_folder_keeps_order_root_and_ids(tmp_path):
    touch(tmp_path, "one/b.jpg", "one/a.jpg", "two/a.jpg")
    dataset = ImageFolder([tmp_path / "two", tmp_path / "one", tmp_path / "one"])
    assert dataset.root == tmp_path
    assert [dataset[i].id for i in range(len(dataset))] == ["two/a.jpg", "one/a.jpg", "one/b.jpg"]
    assert ImageFolder(str(tmp_path / "one")).root == tmp_path / "one"
    with pytest.raises(DataError, match="no image folder"):
        ImageFolder([])


def test_class_folder_labels_by_unresolved_parent(tmp_path):
    touch(tmp_path, "root/cat/1.jpg", "root/dog/2.png", "store/x.jpg", "root/stray.txt")
    os.symlink(tmp_path / "store" / "x.jpg", tmp_path / "root" / "dog" / "link.jpg")
    dataset = ClassFolder(tmp_path / "root")
    assert dataset.class_names == ["cat", "dog"]
    assert [(s.id, s.target) for s in (dataset[i] for i in range(3))] == [
        ("cat/1.jpg", 0),
        ("dog/2.png", 1),
        ("dog/link.jpg", 1),
    ]
    assert dataset.issues == []


def test_class_folder_counts_what_does_not_fit(tmp_path):
    touch(tmp_path, "cat/1.jpg", "bird/2.png", "bird/3.png")
    (tmp_path / "empty").mkdir()
    dataset = ClassFolder(tmp_path, {"cat": 1, "empty": 0})
    assert [dataset[0].target, len(dataset)] == [1, 1]
    assert dataset.issues == [
        "2 images skipped, their folders are no classes: bird (2)",
        "1 class has no image: empty",
    ]
    with pytest.raises(DataError, match="2 images skipped"):
        ClassFolder(tmp_path, {"cat": 1, "empty": 0}, strict=True)
    with pytest.raises(DataError, match=r"folders here are bird, cat; classes are fish"):
        ClassFolder(tmp_path, ["fish"])
    with pytest.raises(DataError, match="class indices must be 0 to 1"):
        ClassFolder(tmp_path, {"cat": 1, "empty": 3})
    with pytest.raises(DataError, match="more than once: cat"):
        ClassFolder(tmp_path, ["cat", "dog", "cat"])


def test_read_classes_keeps_file_order_without_blank_lines(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffzebra\r\n\n  ape  \ntraffic light\n\n".encode())
    assert read_classes(path) == ["zebra", "ape", "traffic light"]
    (tmp_path / "twice.txt").write_text("ape\nzebra\nape\n")
    with pytest.raises(DataError, match="more than once: ape") as refused:
        read_classes(tmp_path / "twice.txt")
    assert refused.value.where == str(tmp_path / "twice.txt")
    path.write_text("\n \n")
    with pytest.raises(DataError, match="empty"):
        read_classes(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_classes(path)
    with pytest.raises(DataError, match="No such file"):
        read_classes(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("words", "one"),
    [
        ("images have no mask", "1 image has no mask"),
        ("classes have no image", "1 class has no image"),
        ("queries have no clip and do not count", "1 query has no clip and does not count"),
        ("segment PNGs do not exist", "1 segment PNG does not exist"),
        ("images skipped, they have no label file", "1 image skipped, it has no label file"),
        ("samples", "1 sample"),
    ],
)
def test_one_thing_is_told_in_the_singular(words: str, one: str) -> None:
    assert counted(1, words) == one
    assert counted(2, words) == f"2 {words}"
    assert counted(0, words) == f"0 {words}"


@pytest.mark.parametrize(("count", "text"), [(0, "none"), (2, "0, 1"), (3, "0, 1, 2"), (5, "0, 1, 2 and 2 more")])
def test_the_first_of_many_are_listed(count: int, text: str) -> None:
    assert some(range(count), 3) == text


def test_a_port_of_one_channel() -> None:
    assert str(Port("image", channels=(1,))) == "'image' of rank 4 with 1 channel"
    assert str(Port("image", channels=(1, 3))) == "'image' of rank 4 with 1 or 3 channels"
