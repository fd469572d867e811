"""Transforms against straightforward Pillow/OpenCV/float64 references of the contracts."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.normalize import CAFFE_MEAN_BGR
from nvidia_tao_deploy.transforms.resize import PLACEMENTS
from nvidia_tao_deploy.transforms.resize import resize as resize_to

SIZES = [(97, 61), (40, 130), (300, 7), (64, 48)]
NET = (64, 48)


@pytest.fixture(params=SIZES, ids=str)
def picture(request, tmp_path):
    width, height = request.param
    rng = np.random.default_rng(width)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    return Sample("a", (path,)), pixels


def run(transform, sample, shape, dtype=np.float32):
    out = {transform.input_name: np.full(shape, 77, dtype)}
    return transform(sample, out), out[transform.input_name]


def chw(image):
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def test_detr_stretch(picture):
    sample, pixels = picture
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    transform = ImageTransform(resize="stretch", scale=1 / 255, mean=mean, std=std, input_name="inputs")
    geometry, out = run(transform, sample, (3, 48, 64))
    x = pixels.astype(np.float32)
    x = cv2.resize(x, NET, interpolation=cv2.INTER_LINEAR)
    x = (x / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
    np.testing.assert_array_equal(out, chw(x))
    height, width = pixels.shape[:2]
    assert geometry.source_size == (width, height)
    assert geometry.network_size == NET
    assert geometry.scale == (64 / width, 48 / height)


@pytest.mark.parametrize("method", ["lanczos", "bicubic", "bilinear"])
def test_pillow_stretch(picture, method):
    sample, pixels = picture
    _, out = run(ImageTransform(resize=f"stretch_{method}", scale=1 / 255), sample, (3, 48, 64))
    wanted = np.asarray(Image.fromarray(pixels).resize(NET, Image.Resampling[method.upper()]), np.float32) / 255
    np.testing.assert_array_equal(out, chw(wanted))


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_center_crop_caffe(picture, method):
    sample, pixels = picture
    transform = ImageTransform(resize=f"center_crop_{method}", mean=CAFFE_MEAN_BGR, color="BGR")
    geometry, out = run(transform, sample, (3, 48, 64))
    (height, width), (net_w, net_h) = pixels.shape[:2], NET
    ratio = max((net_w + 32) / width, (net_h + 32) / height)
    new = (int(width * ratio), int(height * ratio))
    left, top = round(new[0] / 2) - round(net_w / 2), round(new[1] / 2) - round(net_h / 2)
    image = Image.fromarray(pixels).resize(new, Image.Resampling[method.upper()])
    image = np.asarray(image.crop((left, top, left + net_w, top + net_h)), np.float32)
    np.testing.assert_array_equal(out, chw(image[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)))
    # the centre of the source stays at the centre of the canvas, within a pixel of rounding
    np.testing.assert_allclose(geometry.to_source(np.array([[32, 24, 32, 24]]))[0, :2], [width / 2, height / 2], atol=1)


def test_letterbox_caffe_in_float64(picture):
    sample, pixels = picture
    mean = (103.939, 116.779, 123.68)
    transform = ImageTransform(resize="letterbox", mean=mean, color="BGR", arithmetic="float64")
    geometry, out = run(transform, sample, (3, 48, 64))
    height, width = pixels.shape[:2]
    ratio = min(48 / height, 64 / width)
    new_w, new_h = max(round(ratio * width), 1), max(round(ratio * height), 1)
    left, top = (64 - new_w) // 2, (48 - new_h) // 2
    canvas = np.empty((48, 64, 3))
    canvas[:] = pixels.reshape(-1, 3).astype(np.float64).mean(axis=0)
    canvas[top : top + new_h, left : left + new_w] = cv2.resize(pixels.astype(np.float32), (new_w, new_h))
    np.testing.assert_array_equal(out, chw(canvas[..., ::-1] - mean).astype(np.float32))
    np.testing.assert_allclose(
        geometry.to_source(np.array([[left, top, left + new_w, top + new_h]])), [[0, 0, width, height]], atol=1e-9
    )


def test_resize_pad(picture):
    sample, pixels = picture
    geometry, out = run(ImageTransform(resize="resize_pad", layout="NHWC"), sample, (48, 64, 3))
    height, width = pixels.shape[:2]
    scale = 1 / max(width / 64, height / 48)
    new = (max(round(width * scale), 1), max(round(height * scale), 1))
    canvas = Image.new("RGB", NET, (124, 116, 104))
    canvas.paste(Image.fromarray(pixels).resize(new, Image.Resampling.BILINEAR), (0, 0))
    np.testing.assert_array_equal(out, np.asarray(canvas, np.float32))
    assert geometry.scale == (scale, scale)


def test_longest_side_pads_right_and_below_with_zero(picture):
    sample, pixels = picture
    geometry, out = run(ImageTransform(resize="longest_side", scale=1 / 255), sample, (3, 64, 64))
    height, width = pixels.shape[:2]
    ratio = 64 / max(height, width)
    new_w, new_h = max(round(ratio * width), 1), max(round(ratio * height), 1)
    assert not out[:, new_h:].any()
    assert not out[:, :, new_w:].any()
    wanted = cv2.resize(pixels.astype(np.float32), (new_w, new_h)) / np.float32(255)
    np.testing.assert_array_equal(out[:, :new_h, :new_w], chw(wanted))
    np.testing.assert_allclose(geometry.to_source(np.array([[0, 0, new_w, new_h]])), [[0, 0, width, height]])


@pytest.mark.parametrize("name", sorted(PLACEMENTS))
def test_the_scale_is_that_of_the_resized_picture(name):
    for source, canvas in (((70, 50), (64, 48)), ((33, 97), (48, 64))):
        placed = PLACEMENTS[name](source, canvas)
        sides = (side * scale for side, scale in zip(source, placed.scale, strict=True))
        np.testing.assert_allclose(placed.resized, list(sides), atol=0.5 if name == "resize_pad" else 1e-9)


def test_same_size_copies_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name in PLACEMENTS:
        if name.startswith(("center", "enlarge")):  # they enlarge by design
            continue
        _, out = run(ImageTransform(resize=name), Sample("a", (tmp_path / "a.png",)), (3, 48, 64))
        np.testing.assert_array_equal(out, chw(pixels), err_msg=name)


@pytest.mark.parametrize("resize", sorted(PLACEMENTS))
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_one_channel_inputs_take_grey(picture, resize, layout):
    sample, pixels = picture
    shape = (1, 48, 64) if layout == "NCHW" else (48, 64, 1)
    transform = ImageTransform(resize=resize, scale=1 / 255, mean=(0, 0, 0), layout=layout)
    _, out = run(transform, sample, shape)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    wanted = resize_to(grey, NET, resize).pixels.astype(np.float32)[..., 0] / np.float32(255)
    np.testing.assert_allclose(out.reshape(48, 64), wanted, atol=1e-6)


def test_the_cast_happens_on_store(picture):
    sample, _ = picture
    transform = ImageTransform(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.2,))
    _, full = run(transform, sample, (3, 48, 64))
    _, half = run(transform, sample, (3, 48, 64), np.float16)
    np.testing.assert_array_equal(half, full.astype(np.float16))
    _, plain = run(ImageTransform(), sample, (3, 48, 64))
    _, whole = run(ImageTransform(), sample, (3, 48, 64), np.uint8)
    np.testing.assert_array_equal(whole, np.clip(np.rint(plain), 0, 255).astype(np.uint8))


def test_a_row_of_a_batch_is_filled_in_place(picture):
    sample, _ = picture
    batch = np.zeros((3, 3, 48, 64), np.float32)
    ImageTransform(scale=1 / 255)(sample, {"input": batch[1]})
    assert batch[1].any()
    assert not batch[[0, 2]].any()


def test_describe_is_json_and_complete():
    transform = ImageTransform(resize="letterbox", scale=1 / 255, mean=(1, 2, 3), color="BGR", input_name="x")
    described = json.loads(json.dumps(transform.describe()))
    assert described["resize"] == "letterbox"
    assert described["mean"] == [1.0, 2.0, 3.0]
    assert described["color"] == "BGR"


def test_mistakes_are_named(picture, tmp_path):
    sample, _ = picture
    with pytest.raises(SpecError, match="unknown resize 'crop'"):
        ImageTransform(resize="crop")
    with pytest.raises(SpecError, match="scale must be positive"):
        ImageTransform(scale=0)
    with pytest.raises(SpecError, match="mean has 2 values"):
        run(ImageTransform(mean=(1, 2)), sample, (3, 48, 64))
    with pytest.raises(SpecError, match="holds a zero"):
        run(ImageTransform(std=(1, 0, 1)), sample, (3, 48, 64))
    with pytest.raises(ModelError, match="no input 'x'"):
        ImageTransform(input_name="x")(sample, {"y": np.zeros((3, 4, 4), np.float32)})
    with pytest.raises(ModelError, match=r"\(5, 48, 64\) is not a NCHW image"):
        run(ImageTransform(), sample, (5, 48, 64))
    with pytest.raises(DataError, match=r"none\.png"):
        run(ImageTransform(), Sample("n", (tmp_path / "none.png",)), (3, 48, 64))
