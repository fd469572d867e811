"""Replay models of the text networks: images of one grey level each, and prepared outputs for every level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

STEP = 12
SIZES = [(120, 40), (40, 120), (64, 64), (300, 33), (100, 32), (96, 48), (97, 61)]


def level(number: int) -> int:
    """The grey level of image ``number``."""
    return STEP * number + 6


def write_images(folder: Path, names: Sequence[str]) -> None:
    """One-level images of all sizes; lossless, so that the level survives."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", SIZES[number % len(SIZES)], (level(number),) * 3).save(folder / name)


def write_replay(
    path: Path,
    shape: Sequence[int | str],
    tables: Mapping[str, np.ndarray],
    *,
    input_name: str,
    to_level: tuple[float, float],
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A model whose outputs are row i of every table for the image of level i.

    Args:
        path: the file.
        shape: of the input, NCHW.
        tables: (images, ...) by output name, in output order.
        input_name: of the input.
        to_level: (factor, offset) from the mean of the input to the grey level.
        extra: more outputs that the contract does not name, appended.
    """
    channels = int(shape[1])
    outputs = {**tables, **(extra or {})}
    count = len(next(iter(tables.values())))
    weights = {
        "widen": np.eye(16, channels, dtype=np.float32)[..., None, None],
        "keep": np.eye(16, dtype=np.float32)[..., None, None],
        "narrow": np.eye(channels, 16, dtype=np.float32)[..., None, None],
        "factor": np.array(to_level[0] / STEP, np.float32),
        "offset": np.array((to_level[1] - 6) / STEP, np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(count - 1, np.float32),
        "flat": np.array([-1], np.int64),
        **{f"table_{name}": table for name, table in outputs.items()},
    }
    nodes = [
        helper.make_node("Conv", [input_name, "widen"], ["stem"], name="stem"),
        helper.make_node("Conv", ["stem", "keep"], ["body"], name="body"),
        helper.make_node("Conv", ["body", "narrow"], ["features"], name="head"),
        helper.make_node("ReduceMean", ["features"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["number"]),
        helper.make_node("Round", ["number"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["index"]),
        *(helper.make_node("Gather", [f"table_{name}", "index"], [name], axis=0) for name in outputs),
    ]
    graph = helper.make_graph(
        nodes,
        "replay",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, list(shape))],
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(table.dtype), [shape[0], *table.shape[1:]]
            )
            for name, table in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def spell(texts: Sequence[str], classes: Sequence[str], steps: int, blank: int, seed: int = 0) -> dict[str, Any]:
    """CTC step ids that spell ``texts``, with repeats and blanks, and random probabilities."""
    rng = np.random.default_rng(seed)
    rows = []
    for text in texts:
        row: list[int] = [blank] * int(rng.integers(0, 2))
        for char in text:
            char_id = classes.index(char)
            if row and row[-1] == char_id:
                row.append(blank)
            row += [char_id] * (2 if len(row) + 2 + 2 * len(text) < steps else 1)
        row += [blank] * (steps - len(row))
        assert len(row) == steps, text
        rows.append(row)
    return {"ids": np.array(rows), "probabilities": rng.uniform(0.5, 1, (len(texts), steps)).astype(np.float32)}
