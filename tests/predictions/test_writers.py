"""Label files byte for byte, pictures pixel for pixel, the classification table."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter, kitti_line, save_picture
from nvidia_tao_deploy.predictions.drawing import PALETTE, draw_box, hashed_color
from nvidia_tao_deploy.predictions.segmentation_writer import seeded_color
from nvidia_tao_deploy.predictions.table import ClassificationWriter
from nvidia_tao_deploy.predictions.types import Classification, Detections


def sample(path, mode="RGB", size=(200, 100), color=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color or 0).save(path)
    return Sample(path.name, (path,))


def detections(*rows):
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64))


def test_label_line_has_sixteen_fields():
    line = kitti_line("car", (1, 2.00049, 3.5, 1000.12345), 0.98765)
    assert line == "car 0.00 0 0.00 1.000 2.000 3.500 1000.123 0.00 0.00 0.00 0.00 0.00 0.00 0.00 0.988"
    assert len(line.split()) == 16


def test_a_names_own_colour_is_its_crc():
    assert hashed_color("123456789") == (0xF4, 0x39, 0x26)  # the check value of CRC-32 is CBF43926


def test_jpeg_pictures_have_quality_90(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8))
    tables = {}
    for quality in (90, 89):
        noise.save(tmp_path / f"{quality}.jpg", quality=quality)
        with Image.open(tmp_path / f"{quality}.jpg") as picture:
            tables[quality] = picture.quantization
    for suffix in (".jpg", ".JPEG"):
        save_picture(noise, tmp_path / f"a{suffix}")
        with Image.open(tmp_path / f"a{suffix}") as picture:
            assert picture.quantization == tables[90] != tables[89]


def test_class_colours_are_the_three_established_draws():
    """B, G, R; the draw ends below 255: a class whose generator gives 255 draws again."""
    assert [seeded_color(i) for i in (0, 1, 43)] == [(117, 47, 172), (140, 235, 37), (49, 64, 68)]


def test_labels_and_pictures(tmp_path, capsys):
    item = sample(tmp_path / "in" / "sub" / "a.png")
    writer = DetectionWriter(
        tmp_path / "out", ["cat", None, "dog"], 0.5, {"cat": "red", "dog": (0, 255, 0)}, tmp_path / "in"
    )
    writer.write(
        item,
        detections(
            (2, 0.5, 10, 20, 60, 80), (0, 0.4999, 0, 0, 9, 9), (1, 0.9, 0, 0, 9, 9), (7, 0.9, 0, 0, 9, 9),
            (0, 0.75, 100, 30, 150, 90),
        ),
    )  # fmt: skip
    assert writer.close() == [tmp_path / "out" / "labels", tmp_path / "out" / "images_annotated"]
    said = "note: 2 detections left out, the class map does not name their classes: 1 (1), 7 (1)"
    assert said in capsys.readouterr().out
    assert (tmp_path / "out" / "labels" / "sub" / "a.txt").read_bytes() == (
        b"dog 0.00 0 0.00 10.000 20.000 60.000 80.000 0.00 0.00 0.00 0.00 0.00 0.00 0.00 0.500\n"
        b"cat 0.00 0 0.00 100.000 30.000 150.000 90.000 0.00 0.00 0.00 0.00 0.00 0.00 0.00 0.750\n"
    )
    pixels = np.asarray(Image.open(tmp_path / "out" / "images_annotated" / "sub" / "a.png"))
    assert pixels.shape == (100, 200, 3)
    assert pixels[80, 10:61].tolist() == [[0, 255, 0]] * 51  # lower edge, 1 px
    assert pixels[79, 20].tolist() == [0, 0, 0]
    assert pixels[21, 84].tolist() == [0, 255, 0]  # the tag reaches 75 px right of x1
    assert pixels[35, 174].tolist() == [255, 0, 0]


def test_an_image_without_detections_leaves_an_empty_file_and_its_picture(tmp_path):
    writer = DetectionWriter(tmp_path / "out", ["cat"], root=tmp_path)
    writer.write(sample(tmp_path / "a.jpg"), detections())
    assert (tmp_path / "out" / "labels" / "a.txt").read_bytes() == b""
    assert Image.open(tmp_path / "out" / "images_annotated" / "a.jpg").format == "JPEG"


def test_classes_missing_in_the_color_map_are_listed_but_not_drawn(tmp_path):
    writer = DetectionWriter(tmp_path / "out", ["cat"], 0.1, {"dog": "red"}, tmp_path)
    writer.write(sample(tmp_path / "a.png"), detections((0, 0.9, 1, 1, 50, 50)))
    assert (tmp_path / "out" / "labels" / "a.txt").read_text().startswith("cat ")
    assert not np.asarray(Image.open(tmp_path / "out" / "images_annotated" / "a.png")).any()


def test_thresholds_by_class(tmp_path):
    writer = DetectionWriter(tmp_path / "out", {1: "a", 2: "b"}, {1: 0.8}, PALETTE, tmp_path)
    writer.write(sample(tmp_path / "a.png"), detections((1, 0.7, 0, 0, 1, 1), (2, 0.0, 0, 0, 1, 1)))
    assert [line[0] for line in (tmp_path / "out" / "labels" / "a.txt").read_text().splitlines()] == ["b"]


def test_a_score_of_float32_reaches_the_threshold_it_was_rounded_from(tmp_path):
    assert float(np.float32(0.7)) < 0.7
    for name, threshold in (("for_all", 0.7), ("by_class", {0: 0.7})):
        writer = DetectionWriter(tmp_path / name, ["cat"], threshold, root=tmp_path)
        writer.write(sample(tmp_path / "a.png"), detections((0, np.float32(0.7), 0, 0, 1, 1)))
        assert (tmp_path / name / "labels" / "a.txt").read_text().startswith("cat ")


def test_without_names_classes_are_numbers_in_the_colors_of_their_ids(tmp_path):
    writer = DetectionWriter(tmp_path / "out", None, 0.5, PALETTE, tmp_path)
    writer.write(sample(tmp_path / "a.png"), detections((7, 0.9, 10, 10, 150, 90)))
    assert (tmp_path / "out" / "labels" / "a.txt").read_text().startswith("7 0.00 0 0.00 10.000")
    assert tuple(np.asarray(Image.open(tmp_path / "out" / "images_annotated" / "a.png"))[90, 80]) == PALETTE[7 % 5]


@pytest.mark.parametrize("above", [False, True])
def test_the_tag_is_as_high_as_its_text_and_at_least_10_pixels(above):
    for text in ("a", "Ag", "M\nM"):
        picture = Image.new("RGB", (200, 100))
        draw_box(picture, (20, 50, 120, 90), text, (255, 255, 255), tag_above=above)
        _, top, _, bottom = ImageDraw.Draw(picture).textbbox((0, 0), text, font=ImageFont.load_default())
        height, column = max(10, bottom - top), np.asarray(picture)[:, 21, 0] > 0
        filled = np.flatnonzero(column)[0], np.flatnonzero(column)[0] + height
        assert filled == ((50 - height, 50) if above else (50, 50 + height))
        assert column[slice(*filled)].all() or text == "M\nM"
        assert not column[filled[1] + 1 : 88].any()


def test_equal_names_do_not_overwrite_each_other(tmp_path):
    writer = DetectionWriter(tmp_path / "out", ["cat"], root=tmp_path / "in")
    for name in ("in/x/a.png", "in/y/a.png", "in/x/a.jpg", "elsewhere/b.png"):
        writer.write(sample(tmp_path / name), detections())
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*"))
    assert written == [
        "images_annotated/b.png", "images_annotated/x/a.jpg", "images_annotated/x/a.png", "images_annotated/y/a.png",
        "labels/b.txt", "labels/x/a.jpg.txt", "labels/x/a.txt", "labels/y/a.txt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.png"), ("P", "a.png"), ("RGBA", "a.png"), ("CMYK", "a.jpg"), ("RGB", "a.BMP")]
)
def test_pictures_of_every_kind_are_drawn_in_rgb(tmp_path, mode, name):
    writer = DetectionWriter(tmp_path / "out", ["cat"], 0.0, {"cat": "red"}, tmp_path)
    writer.write(sample(tmp_path / name, mode), detections((0, 0.9, 1, 1, 50, 50)))
    picture = Image.open(tmp_path / "out" / "images_annotated" / name)
    assert picture.mode == "RGB"
    red, green, _ = np.asarray(picture)[50, 30].astype(int)
    assert red - green > 60  # JPEG mixes the colour of a thin line with its neighbours


def test_inverted_outside_and_long_labels_draw():
    picture = Image.new("RGB", (120, 60))
    draw_box(picture, (50, 40, 10, 20), "x: 0.50", (255, 0, 0))
    assert np.asarray(picture)[40, 30].tolist() == [255, 0, 0]
    for box in ((110, 55, 119, 59), (-50, -50, 500, 500), (300, 300, 400, 400)):
        draw_box(picture, box, "a rather long class name: 0.50", (255, 0, 0))
    # the tag of a box at the lower right corner lies inside, its text stands out from it
    tag = np.asarray(picture)[-11:, :]
    assert tag[..., 1].max() > 200


def test_colors_of_names_are_the_same_in_every_process():
    code = "from nvidia_tao_deploy.predictions.drawing import hashed_color; print(hashed_color('person'))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str(hashed_color("person"))


def test_a_wrong_color_fails_before_the_first_image(tmp_path):
    with pytest.raises(SpecError, match="'blurple' is not a colour"):
        DetectionWriter(tmp_path, ["cat"], colors={"cat": "blurple"})


def test_classification_table(tmp_path):
    writer = ClassificationWriter(tmp_path / "out", ["cat", 'a "b", c'])
    for name, scores in (("x/1.jpg", [0.1, 0.93]), ("2.jpg", [1.0, 0.0]), ("3.jpg", [0.2, 0.3, 0.5])):
        writer.write(Sample(name, (tmp_path / name,)), Classification(np.array(scores)))
    assert not writer.path.exists()
    assert writer.close() == [writer.path]
    assert writer.path.read_bytes().decode() == (
        f'{tmp_path}/x/1.jpg,"a ""b"", c",0.93\n{tmp_path}/2.jpg,cat,1.0\n{tmp_path}/3.jpg,2,0.5\n'
    )
