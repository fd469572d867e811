"""A replay model for point clouds: the intensity of the first point says which prepared rows come out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

AREA = [0.0, -20.0, -3.0, 40.0, 20.0, 1.0]
NAMES = ["Car", "Pedestrian", "Cyclist"]
POINTS = 64


def write_replay(path: Path, frames: Sequence[np.ndarray], *, batch: int | str = "batch") -> Path:
    """``points`` (B, 64, 4), ``num_points`` -> ``output_boxes`` (B, R, 9), NaN behind the end, and ``num_boxes``.

    Row 0 of the tables is for a cloud without points: no boxes.
    """
    frames = [np.zeros((0, 9)), *frames]
    table = np.full((len(frames), max(map(len, frames)) + 3, 9), np.nan, np.float32)
    for number, rows in enumerate(frames):
        table[number, : len(rows)] = rows
    weights = {
        "table": table,
        "counts": np.array([len(rows) for rows in frames], np.int32),
        "starts": np.array([0, 3], np.int64),
        "ends": np.array([1, 4], np.int64),
        "axes": np.array([1, 2], np.int64),
        "eye": np.eye(1, dtype=np.float32),
        "flat": np.array([-1], np.int64),
        "top": np.array(len(frames) - 1, np.float32),
        "none": np.array(0, np.float32),
        "zero": np.array(0, np.int32),
    }
    nodes = [
        helper.make_node("Slice", ["points", "starts", "ends", "axes"], ["first"]),
        helper.make_node("MatMul", ["first", "eye"], ["number"], name="body"),
        helper.make_node("Round", ["number"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "none", "top"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["output_boxes"], axis=0),
        helper.make_node("Gather", ["counts", "index"], ["found"], axis=0),
        helper.make_node("Mul", ["num_points", "zero"], ["nothing"]),
        helper.make_node("Add", ["found", "nothing"], ["num_boxes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "replay",
        [
            helper.make_tensor_value_info("points", TensorProto.FLOAT, [batch, POINTS, 4]),
            helper.make_tensor_value_info("num_points", TensorProto.INT32, [batch]),
        ],
        [
            helper.make_tensor_value_info("output_boxes", TensorProto.FLOAT, [batch, table.shape[1], 9]),
            helper.make_tensor_value_info("num_boxes", TensorProto.INT32, [batch]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 7) boxes of the area, many of which overlap."""
    boxes = np.column_stack([rng.uniform(5, 18, count), rng.uniform(-8, 8, count), rng.uniform(-1.2, -0.8, count)])
    return np.column_stack([boxes, rng.uniform(1, 4.5, (count, 3)), rng.uniform(-4, 4, count)])


def label_lines(boxes: np.ndarray, class_ids: np.ndarray, names: Sequence[str] = NAMES) -> str:
    """Label file of (n, 7) boxes x, y, z, l, w, h, yaw."""
    lines = []
    for (x, y, z, length, width, height, yaw), class_id in zip(boxes.tolist(), class_ids.tolist(), strict=True):
        values = " ".join(f"{value!r}" for value in (height, width, length, x, y, z, yaw))
        lines.append(f"{names[class_id]} 0.00 0 0.00 0 0 0 0 {values}\n")
    return "".join(lines)


def write_cloud(path: Path, number: int, rng: np.random.Generator, count: int = 40) -> np.ndarray:
    """A cloud (count, 4) inside the area whose first point says ``number``; returns it."""
    points = rng.uniform([1, -19, -2, 0], [39, 19, 0, 1], (count, 4)).astype(np.float32)
    points[:1, 3] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, points)
    else:
        points.tofile(path)
    return points
