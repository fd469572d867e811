"""Replay models for depth and disparity: images of one grey level, and a prepared map for every level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from cv.ocr.ocr_replay import level, write_replay
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZES = [(74, 56), (56, 74), (42, 42), (97, 61), (56, 42)]
NET = (56, 42)


def to_level() -> tuple[float, float]:
    """(factor, offset) from the mean of the normalized input to the grey level."""
    factor = 255 / (1 / STD).mean()
    return float(factor), float((MEAN / STD).mean() * factor)


def smooth_maps(count: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    """(count, h, w) maps between low and high."""
    import cv2

    rng = np.random.default_rng(seed)
    maps = np.stack([cv2.GaussianBlur(rng.normal(size=NET[::-1]), (0, 0), 6) for _ in range(count)])
    least, greatest = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return (low + (maps - least) / (greatest - least) * (high - low)).astype(np.float32)


def write_images(folder: Path, side: str = "", sizes: list[tuple[int, int]] = SIZES) -> list[Path]:
    """One image per size, all of its level."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{side}{number}.png" for number in range(len(sizes))]
    for number, path in enumerate(paths):
        Image.new("RGB", sizes[number], (level(number),) * 3).save(path)
    return paths


def write_mono(path: Path, maps: np.ndarray, *, batch: int | str = "N", dynamic: bool = False) -> Path:
    """(B, 3, H, W) `images` -> (B, H, W) `outputs`."""
    write_replay(path, [batch, 3, NET[1], NET[0]], {"outputs": maps}, input_name="images", to_level=to_level())
    if dynamic:
        open_sides(path)
    return path


def write_stereo(path: Path, maps: np.ndarray, *, batch: int | str = "N", dynamic: bool = False) -> Path:
    """`left_image`, `right_image` -> (B, 1, H, W) `disparity`, zeros where the two are not equally bright."""
    tables = {"prepared": maps[:, None]}
    write_replay(path, [batch, 3, NET[1], NET[0]], tables, input_name="left_image", to_level=to_level())
    model = onnx.load(str(path))
    graph = model.graph
    right = onnx.ValueInfoProto()
    right.CopyFrom(graph.input[0])
    right.name = "right_image"
    graph.input.append(right)
    graph.initializer.append(numpy_helper.from_array(np.array(0.02, np.float32), "tolerance"))
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["left_image"], ["left_mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("ReduceMean", ["right_image"], ["right_mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Sub", ["left_mean", "right_mean"], ["apart"]),
            helper.make_node("Abs", ["apart"], ["distance"]),
            helper.make_node("Less", ["distance", "tolerance"], ["near"]),
            helper.make_node("Cast", ["near"], ["gate"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["prepared", "gate"], ["disparity"]),
        ]
    )
    graph.output[0].name = "disparity"
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    if dynamic:
        open_sides(path)
    return path


def open_sides(path: Path) -> None:
    """Make height and width of the inputs dynamic."""
    model = onnx.load(str(path))
    for value in model.graph.input:
        for axis, name in ((2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, str(path))
