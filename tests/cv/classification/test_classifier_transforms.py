"""The TensorFlow trainers' transform against the contract written out in plain Pillow and numpy."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.cv.classification_pyt import NETWORK as PYT
from nvidia_tao_deploy.cv.classification_tf1 import NETWORK as TF1
from nvidia_tao_deploy.cv.classification_tf2 import NETWORK as TF2
from nvidia_tao_deploy.cv.multitask_classification import NETWORK as MULTITASK
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec

HEIGHT, WIDTH = 48, 64


def plain(path: Path, channels: int, mode: str, bicubic: bool, crop: bool, depth: int = 8, bgr: Any = None) -> Any:
    """Contract section 3, step by step; (C, H, W) float32."""
    image = Image.open(path)
    image = image.convert("RGB") if channels == 3 else image.convert("I" if depth == 16 else "L")
    method = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    if crop:
        w, h = image.size
        ratio = max((WIDTH + 32) / w, (HEIGHT + 32) / h)
        image = image.resize((int(w * ratio), int(h * ratio)), method)
        left = round(image.size[0] / 2) - round(WIDTH / 2)
        top = round(image.size[1] / 2) - round(HEIGHT / 2)
        image = image.crop((left, top, left + WIDTH, top + HEIGHT))
    else:
        image = image.resize((WIDTH, HEIGHT), method)
    x = np.asarray(image, dtype=np.float32)
    x = x[None] if channels == 1 else x.transpose(2, 0, 1)
    top_level = np.float32(65535 if depth == 16 else 255)
    if mode == "tf":
        return x / (top_level / np.float32(2)) - 1
    if mode == "torch":
        mean = [0.449] if channels == 1 else [0.485, 0.456, 0.406]
        return (x / top_level - np.array(mean, np.float32)[:, None, None]) / np.float32(0.224)
    if channels == 1:
        return x - np.float32(bgr or (30048.9216 if depth == 16 else 117.3786))
    return x[::-1] - np.array(bgr or [103.939, 116.779, 123.68], np.float32)[:, None, None]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Colours everywhere, wider than high, none of the sizes even."""
    pixels = np.random.default_rng(0).integers(0, 256, (75, 131, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((151, 93)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def run(network: Any, tree: dict[str, Any], path: Path, shape: tuple[int, ...]) -> Any:
    spec = load_spec(network.spec, tree)
    info = TensorInfo("anything", (None, *shape), np.dtype(np.float32))
    ports = network.bind([info], [TensorInfo("scores", (None, 5), np.dtype(np.float32))])
    out = np.empty(shape, np.float32)
    network.transform(spec, ports)(Sample(0, (path,)), {"anything": out})
    return out


@pytest.mark.parametrize(
    ("mode", "channels", "bicubic", "crop"),
    list(itertools.product(("caffe", "torch", "tf"), (3, 1), (False, True), (False, True))),
)
def test_every_mode_channel_count_and_resize(
    picture: Path, mode: str, channels: int, bicubic: bool, crop: bool
) -> None:
    expected = plain(picture, channels, mode, bicubic, crop)
    shape = (channels, HEIGHT, WIDTH)
    tf1 = {
        "train_config": {"preprocess_mode": mode.upper()},
        "model_config": {"resize_interpolation_method": int(bicubic)},
        "eval_config": {"enable_center_crop": crop},
    }
    tf2 = {
        "dataset": {"preprocess_mode": mode, "augmentation": {"enable_center_crop": crop}},
        "model": {"resize_interpolation_method": "bicubic" if bicubic else "bilinear"},
    }
    for network, tree in ((TF1, tf1), (TF2, tf2)):
        np.testing.assert_allclose(run(network, tree, picture, shape), expected, rtol=0, atol=2e-6 * 256)
    last = run(TF2, {**tf2, "data_format": "channels_last"}, picture, (HEIGHT, WIDTH, channels))
    np.testing.assert_array_equal(last.transpose(2, 0, 1), run(TF2, tf2, picture, shape))


def test_defaults_are_caffe_and_the_croppings_of_the_contract(picture: Path) -> None:
    shape = (3, HEIGHT, WIDTH)
    np.testing.assert_allclose(run(TF1, {}, picture, shape), plain(picture, 3, "caffe", False, False), atol=1e-4)
    unset = {"train_config": {"preprocess_mode": ""}}
    np.testing.assert_array_equal(run(TF1, unset, picture, shape), run(TF1, {}, picture, shape))
    np.testing.assert_allclose(run(TF2, {}, picture, shape), plain(picture, 3, "caffe", False, True), atol=1e-4)
    np.testing.assert_allclose(run(MULTITASK, {}, picture, shape), plain(picture, 3, "caffe", False, False), atol=1e-4)
    cubic = {"model_config": {"resize_interpolation_method": "BICUBIC"}}
    np.testing.assert_allclose(
        run(MULTITASK, cubic, picture, shape), plain(picture, 3, "caffe", True, False), atol=1e-4
    )


def test_image_mean_counts_in_caffe_mode_in_bgr_order(picture: Path) -> None:
    shape = (3, HEIGHT, WIDTH)
    given = {"train_config": {"image_mean": {"r": 3.0, "g": 2.0, "b": 1.0}}}
    expected = plain(picture, 3, "caffe", False, False, bgr=[1.0, 2.0, 3.0])
    np.testing.assert_allclose(run(TF1, given, picture, shape), expected, atol=1e-4)
    listed = {"dataset": {"image_mean": [1, 2, 3], "augmentation": {"enable_center_crop": False}}}
    np.testing.assert_allclose(run(TF2, listed, picture, shape), expected, atol=1e-4)


def test_torch_mode_divides_by_std_whatever_mean_is_given(picture: Path) -> None:
    """The published tf2 sample gives a mean below 1, for which the std was left out."""
    shape = (3, HEIGHT, WIDTH)
    tf2 = {"dataset": {"preprocess_mode": "torch", "image_mean": [0.485, 0.456, 0.406]}}
    np.testing.assert_allclose(run(TF2, tf2, picture, shape), plain(picture, 3, "torch", False, True), atol=1e-5)
    tf1 = {"train_config": {"preprocess_mode": "torch", "image_mean": {"r": 0.485, "g": 0.456, "b": 0.406}}}
    np.testing.assert_allclose(run(TF1, tf1, picture, shape), plain(picture, 3, "torch", False, False), atol=1e-5)


def test_grey_models_take_key_l_or_the_grey_mean(picture: Path) -> None:
    shape = (1, HEIGHT, WIDTH)
    colour = {"train_config": {"image_mean": {"r": 3.0, "g": 2.0, "b": 1.0}}}
    np.testing.assert_allclose(run(TF1, colour, picture, shape), plain(picture, 1, "caffe", False, False), atol=1e-4)
    grey = {"train_config": {"image_mean": {"l": 100.0}}}
    expected = plain(picture, 1, "caffe", False, False, bgr=100.0)
    np.testing.assert_allclose(run(TF1, grey, picture, shape), expected, atol=1e-4)
    single = {"dataset": {"image_mean": [100.0], "augmentation": {"enable_center_crop": False}}}
    np.testing.assert_allclose(run(TF2, single, picture, shape), expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_sixteen_bit_grey(tmp_path: Path, mode: str) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (50, 70)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    tree = {"dataset": {"preprocess_mode": mode}, "model": {"input_image_depth": 16}}
    expected = plain(tmp_path / "deep.png", 1, mode, False, True, depth=16)
    np.testing.assert_allclose(
        run(TF2, tree, tmp_path / "deep.png", (1, HEIGHT, WIDTH)), expected, rtol=1e-6, atol=1e-5
    )
    with pytest.raises(SpecError, match="one channel"):
        run(TF2, tree, tmp_path / "deep.png", (3, HEIGHT, WIDTH))


def test_pyt_takes_the_trainers_transform_or_the_established_one(picture: Path) -> None:
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    for crop in (False, True):
        x = plain(picture, 3, "tf", bicubic=crop, crop=crop)
        expected = ((x + 1) * np.float32(127.5) / 255 - mean) / std
        tree = {"dataset": {"preprocess": "center_crop" if crop else "resize"}}
        np.testing.assert_allclose(run(PYT, tree, picture, (3, HEIGHT, WIDTH)), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 20, 20), (20, 20, 4), (3, None, 20), (None, 20, 3)])
def test_inputs_that_are_no_image_of_fixed_size(picture: Path, shape: tuple[Any, ...]) -> None:
    spec = load_spec(TF1.spec, {})
    with pytest.raises(ModelError, match=r"1 or 3 channels|dynamic"):
        TF1.transform(
            spec,
            TF1.bind(
                [TensorInfo("x", (None, *shape), np.dtype(np.float32))],
                [TensorInfo("y", (None, 5), np.dtype(np.float32))],
            ),
        )
