"""The committed sample networks, measured on the sample data with code that shares nothing with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samples.data import write_digits

onnxruntime = pytest.importorskip("onnxruntime")
MODELS = Path(__file__).parents[2] / "samples" / "models"
Images = np.ndarray
Break = Callable[[Images], Images]


def session(name: str):
    return onnxruntime.InferenceSession(str(MODELS / name), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def digit_images(tmp_path_factory) -> tuple[Images, Images]:
    folder = write_digits(tmp_path_factory.mktemp("data"), test=120, calibration=0)
    classes = (folder / "classes.txt").read_text().split()
    paths = sorted((folder / "test").glob("*/*.png"))
    pixels = [np.asarray(Image.open(path).resize((64, 64), Image.Resampling.BILINEAR), np.float32) for path in paths]
    return np.stack(pixels), np.array([classes.index(path.parent.name) for path in paths])


MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
CLASSIFICATION_BREAKS = {
    "swapped channels": lambda x: (x[..., ::-1] / 255 - MEAN) / STD,
    "no mean": lambda x: x / 255 / STD,
    "no std": lambda x: x / 255 - MEAN,
    "no mean, no std": lambda x: x / 255,
    "no scale": lambda x: (x - MEAN) / STD,
}


def top1(images: Images, targets: Images) -> float:
    (logits,) = session("classification_pyt.onnx").run(["output"], {"input": images.transpose(0, 3, 1, 2)})
    return float((logits.argmax(1) == targets).mean())


def test_classification_reads_the_digits(digit_images):
    images, targets = digit_images
    assert top1((images / 255 - MEAN) / STD, targets) >= 0.95


@pytest.mark.parametrize("broken", CLASSIFICATION_BREAKS.values(), ids=CLASSIFICATION_BREAKS)
def test_classification_breaks_with_its_preprocessing(digit_images, broken: Break):
    images, targets = digit_images
    assert top1(np.ascontiguousarray(broken(images)), targets) < 0.75
