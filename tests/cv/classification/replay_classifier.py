"""Tiny models that know their images: the colour that arrives picks a prepared row of scores, zeros if inexact.

A model is right only if the transform is: it averages the image per channel and gives row i of each table where the
average is ``features[i]``, and zeros where it is no image's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZES = [(40, 24), (24, 40), (31, 31), (8, 8), (64, 20)]  # (width, height) of the images, none the model's


def write_images(folder: Path, names: Sequence[str], channels: int = 3) -> NDArray[np.uint8]:
    """One-coloured images below ``folder``, sizes of all kinds; the colours (N, channels)."""
    colors = np.random.default_rng(3).choice(256, (len(names), 3), replace=False)
    colors = colors.astype(np.uint8)[:, :channels]
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        color: Any = tuple(map(int, colors[i])) if channels == 3 else int(colors[i, 0])
        Image.new("RGB" if channels == 3 else "L", SIZES[i % len(SIZES)], color).save(path)
    return colors


def write_replay(
    path: Path,
    features: NDArray[Any],
    tables: Mapping[str, NDArray[Any]],
    *,
    input_name: str = "input_1",
    layout: str = "NCHW",
    batch: int | str = "N",
    size: tuple[int, int] = (16, 12),
    tolerance: float = 1e-3,
) -> Path:
    """The model: features (N, C) of the images as they should arrive, tables (N, K) by output name.

    Args:
        path: file to write.
        features: the exact channel averages of every image after the transform.
        tables: what to answer, by output.
        input_name: of the image.
        layout: of the image.
        batch: fixed batch, or the name of a dynamic one.
        size: (height, width).
        tolerance: squared distance up to which an image is recognised.
    """
    channels = features.shape[1]
    constants = {
        "widen": np.eye(16, channels, dtype=np.float32)[:, :, None, None],
        "keep": np.eye(16, dtype=np.float32)[:, :, None, None],
        "narrow": np.eye(channels, 16, dtype=np.float32)[:, :, None, None],
        "features": features.astype(np.float32)[None],
        "tolerance": np.array(tolerance, np.float32),
        "second": np.array([1], np.int64),
        "last": np.array([2], np.int64),
        **{f"table_{name}": table.astype(np.float32) for name, table in tables.items()},
    }
    nodes = [helper.make_node("Transpose", [input_name], ["chw"], perm=[0, 3, 1, 2])] if layout == "NHWC" else []
    nodes += [
        # Three that change nothing: an int8 build leaves narrow ones and the last one in float.
        helper.make_node("Conv", ["chw" if nodes else input_name, "widen"], ["wide"], name="first"),
        helper.make_node("Conv", ["wide", "keep"], ["same"], name="middle"),
        helper.make_node("Conv", ["same", "narrow"], ["still"], name="last"),
        helper.make_node("ReduceMean", ["still"], ["average"], axes=[2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["average", "second"], ["column"]),
        helper.make_node("Sub", ["column", "features"], ["apart"]),
        helper.make_node("Mul", ["apart", "apart"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "last"], ["distances"], keepdims=0),
        helper.make_node("ArgMin", ["distances"], ["index"], axis=1, keepdims=0),
        helper.make_node("ReduceMin", ["distances"], ["nearest"], axes=[1], keepdims=1),
        helper.make_node("Less", ["nearest", "tolerance"], ["known"]),
        helper.make_node("Cast", ["known"], ["gate"], to=TensorProto.FLOAT),
    ]
    for name in tables:
        nodes += [
            helper.make_node("Gather", [f"table_{name}", "index"], [f"row_{name}"]),
            helper.make_node("Mul", [f"row_{name}", "gate"], [name]),
        ]
    height, width = size
    shape = [batch, channels, height, width] if layout == "NCHW" else [batch, height, width, channels]
    graph = helper.make_graph(
        nodes,
        "replay",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, t.shape[1]]) for n, t in tables.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def probabilities(count: int, classes: int, seed: int = 0) -> NDArray[np.float32]:
    """Random softmax rows; every third row holds ties for the best place."""
    logits = np.random.default_rng(seed).normal(size=(count, classes))
    logits[::3, : max(2, classes // 2)] = logits[::3].max(axis=1, keepdims=True)
    odds = np.exp(logits)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)
