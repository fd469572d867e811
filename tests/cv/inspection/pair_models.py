"""Tiny two-input models whose answers can be computed by hand, and the images they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def normalized(color: Sequence[int]) -> NDArray[np.float64]:
    """A colour as the inspection networks see it."""
    return (np.array(color) / 255 - MEAN) / STD


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, Sequence[Any]],
    constants: Mapping[str, NDArray[Any]],
) -> Path:
    """A checked ONNX file."""
    graph = helper.make_graph(
        list(nodes),
        "pairs",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def siamese(path: Path, rows: int, columns: int, size: tuple[int, int], batch: int | str = "N") -> Path:
    """Embedding = the mean colour of every tile of ``size`` (width, height), row after row; convolutions for int8."""
    width, height = size
    nodes = []
    for i in (1, 2):
        nodes += [
            helper.make_node("Conv", [f"input_{i}", "widen"], [f"wide_{i}"], name=f"first_{i}"),
            helper.make_node("Conv", [f"wide_{i}", "keep"], [f"same_{i}"], name=f"middle_{i}"),
            helper.make_node("Conv", [f"same_{i}", "narrow"], [f"still_{i}"], name=f"last_{i}"),
            helper.make_node(
                "AveragePool", [f"still_{i}"], [f"pool_{i}"], kernel_shape=[height, width], strides=[height, width]
            ),
            helper.make_node("Transpose", [f"pool_{i}"], [f"turned_{i}"], perm=[0, 2, 3, 1]),
            helper.make_node("Flatten", [f"turned_{i}"], [f"output_{i}"]),
        ]
    return save(
        path,
        nodes,
        {f"input_{i}": [batch, 3, rows * height, columns * width] for i in (1, 2)},
        {f"output_{i}": [batch, 3 * rows * columns] for i in (1, 2)},
        convolutions(),
    )


def convolutions() -> dict[str, NDArray[np.float32]]:
    """1 x 1 kernels that together change nothing."""
    return {
        "widen": np.eye(16, 3, dtype=np.float32)[:, :, None, None],
        "keep": np.eye(16, dtype=np.float32)[:, :, None, None],
        "narrow": np.eye(3, 16, dtype=np.float32)[:, :, None, None],
    }


def difference(path: Path, module: str, size: tuple[int, int], golden: int = 1) -> Path:
    """Task classify. euclidean: |mean colour of unit - that of golden| (B); learnable: logits (0, 4 x that) (B, 2)."""
    width, height = size
    golden_shape = ["N", 3, height, width] if golden == 1 else ["N", golden, 3, height, width]
    axes = [2, 3] if golden == 1 else [1, 3, 4]
    nodes = [
        helper.make_node("ReduceMean", ["input_1"], ["unit"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["input_2"], ["golden"], axes=axes, keepdims=0),
        helper.make_node("Sub", ["unit", "golden"], ["apart"]),
        helper.make_node("Mul", ["apart", "apart"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "second"], ["sum"], keepdims=int(module == "learnable")),
    ]
    constants: dict[str, NDArray[Any]] = {"second": np.array([1], np.int64)}
    if module == "euclidean":
        nodes.append(helper.make_node("Sqrt", ["sum"], ["output"]))
        shape: list[Any] = ["N"]
    else:
        nodes += [
            helper.make_node("Sqrt", ["sum"], ["distance"]),
            helper.make_node("Mul", ["distance", "weights"], ["output"]),
        ]
        constants["weights"] = np.array([[0, 4]], np.float32)
        shape = ["N", 2]
    inputs = {"input_1": ["N", 3, height, width], "input_2": golden_shape}
    return save(path, nodes, inputs, {"output": shape}, constants)


def change_map(path: Path, centers: Sequence[float], side: int, batch: int | str = "N") -> Path:
    """Task segment: the class of a pixel is the centre nearest to the channels' mean of after - before.

    ``output_final`` stands in the middle of the outputs, the side maps around it.
    """
    count = len(centers)
    nodes = [
        helper.make_node("Sub", ["input1", "input0"], ["apart"]),
        helper.make_node("Conv", ["apart", "widen"], ["wide"], name="first"),
        helper.make_node("Conv", ["wide", "keep"], ["same"], name="middle"),
        helper.make_node("Conv", ["same", "narrow"], ["still"], name="last"),
        helper.make_node("ReduceMean", ["still"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["mean", "centers"], ["from_center"]),
        helper.make_node("Mul", ["from_center", "from_center"], ["squares"]),
        helper.make_node("Neg", ["squares"], ["output_final"]),
        *(helper.make_node("Mul", ["squares", f"scale{i}"], [f"output{i}"]) for i in range(4)),
    ]
    order = ["output0", "output1", "output_final", "output2", "output3"]
    return save(
        path,
        nodes,
        {f"input{i}": [batch, 3, side, side] for i in (0, 1)},
        {name: [batch, count, side, side] for name in order},
        {
            **convolutions(),
            "centers": np.array(centers, np.float32).reshape(1, -1, 1, 1),
            **{f"scale{i}": np.array(i + 1, np.float32) for i in range(4)},
        },
    )


def paint(
    path: Path, pixels: NDArray[Any] | Sequence[int], size: tuple[int, int] = (20, 12), mode: str = "RGB"
) -> None:
    """A picture of one colour, or of the pixels (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(pixels, np.uint8)
    if array.ndim == 1:
        array = np.broadcast_to(array, (size[1], size[0], 3))
    Image.fromarray(np.ascontiguousarray(array)).convert(mode).save(path)
