"""What each network's page makes of a picture, against Pillow's filter and the arithmetic of its contract."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec

WIDE, HIGH = 40, 24
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILTERS = Image.Resampling


def stretched(picture: Image.Image, method: FILTERS, mean: Any, std: Any) -> np.ndarray:
    pixels = np.asarray(picture.resize((WIDE, HIGH), method), np.float64)
    return (pixels / 255 - mean) / std


def enlarged(picture: Image.Image, mean: Any, std: Any) -> np.ndarray:
    wide, high = int(WIDE * 1.14), int(HIGH * 1.14)
    left, top = round((wide - WIDE) / 2), round((high - HIGH) / 2)
    pixels = np.asarray(picture.resize((wide, high), FILTERS.BILINEAR), np.float64)
    return (pixels[top : top + HIGH, left : left + WIDE] / 255 - mean) / std


def shortest(picture: Image.Image) -> np.ndarray:
    """Clip: the shorter side to 24, the other to 35; of the 11 columns too many 5 are cut on the left."""
    pixels = np.asarray(picture.resize((35, HIGH), FILTERS.BICUBIC), np.float64)[:, 5 : 5 + HIGH]
    return (pixels / 255 - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)


def square(picture: Image.Image) -> np.ndarray:
    """Clip of the kind siglip."""
    return (np.asarray(picture.resize((HIGH, HIGH), FILTERS.BILINEAR), np.float64) / 255 - 0.5) / 0.5


def longest(picture: Image.Image) -> np.ndarray:
    """73 x 50 on 40 x 24: 35 x 24 from the left, the rest black."""
    out = np.zeros((HIGH, WIDE, 3))
    out[:, :35] = cv2.resize(np.asarray(picture, np.float32), (35, HIGH)) / 255
    return out


CASES = {
    "cv.custom_vision": ({}, "data", lambda p: np.asarray(p.resize((WIDE, HIGH), FILTERS.BICUBIC))[..., ::-1]),
    "multimodal.clip": ({"model": {"type": "ViT-L-14"}}, "image", shortest),
    "multimodal.clip siglip": ({"model": {"type": "SigLIP2-so400m"}}, "image", square),
    "cv.rtdetr": ({"dataset": {"augmentation": {"preserve_aspect_ratio": True}}}, "inputs", longest),
    "cv.detectnet_v2": ({}, "input_1", lambda p: stretched(p, FILTERS.LANCZOS, 0, 1)),
    "cv.mask2former": ({}, "inputs", lambda p: stretched(p, FILTERS.BICUBIC, MEAN, STD)),
    "cv.oneformer": (
        {"dataset": {"pixel_mean": [0.1, 0.2, 0.3]}},  # read by training only
        "inputs",
        lambda p: stretched(p, FILTERS.BICUBIC, MEAN, STD),
    ),
    "cv.ml_recog": ({}, "input", lambda p: enlarged(p, MEAN, 0.226)),
    "cv.segformer": ({}, "input", lambda p: stretched(p, FILTERS.BILINEAR, 0.5, 0.5)),
    "cv.ocrnet": ({}, "input", lambda p: stretched(p, FILTERS.BICUBIC, 0.5, 0.5)),
    "cv.mae": ({}, "input", lambda p: stretched(p, FILTERS.BILINEAR, MEAN, STD)),
    "cv.nvdinov2": ({}, "input", lambda p: stretched(p, FILTERS.BILINEAR, MEAN, STD)),
}


@pytest.mark.parametrize("network", CASES)
def test_a_picture_becomes_the_contracts_numbers(network: str, tmp_path: Path) -> None:
    values, role, plain = CASES[network]
    page = import_module(f"nvidia_tao_deploy.{network.split()[0]}").NETWORK
    wide = HIGH if "clip" in network else WIDE
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 73, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    inputs = {role: TensorInfo(role, (None, 3, HIGH, wide), np.dtype(np.float32))}
    out = {role: np.zeros((3, HIGH, wide), np.float32)}
    if network == "cv.oneformer":
        inputs["tokens"] = TensorInfo("tokens", (None, 77), np.dtype(np.int64))
        out["tokens"] = np.zeros(77, np.int64)
    page.transform(load_spec(page.spec, values), Ports(inputs, {}, tmp_path / "model.engine"))(
        Sample("a", (tmp_path / "a.png",)), out
    )
    np.testing.assert_allclose(out[role], plain(picture).transpose(2, 0, 1), atol=2e-6)
