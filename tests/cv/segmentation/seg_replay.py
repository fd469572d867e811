"""Replay models of the segmentation networks, and images that they know by their brightest grey level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

NET = (96, 64)
SIZES = [(120, 80), (80, 120), (96, 64), (200, 40), (51, 51), (97, 61), (64, 96)]


def level(image: int) -> int:
    """The grey level of an image, by which the model knows it."""
    return 130 + 15 * image


def write_images(folder: Path, sizes: list[tuple[int, int]] = SIZES, suffix: str = ".png") -> list[Path]:
    """One image of one grey level per size."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03d}{suffix}" for i in range(len(sizes))]
    for i, path in reversed(list(enumerate(paths))):
        Image.new("RGB", sizes[i], (level(i),) * 3).save(path)
    return paths


def replay(
    tables: Mapping[str, NDArray],
    *,
    image: str,
    scale: float,
    mean: float,
    std: float = 1.0,
    channels: int = 3,
    net: tuple[int, int] = NET,
    batch: int | str = "N",
    tokens: tuple[str, int] | None = None,
    word: int = 1550,
) -> onnx.ModelProto:
    """A model that gives row i of each table for image i; input values are (grey * scale - mean) / std."""
    count = len(next(iter(tables.values())))
    weights = {
        # identities for int8, which spares the first, the last and small layers
        "widen": np.eye(16, channels, dtype=np.float32)[..., None, None],
        "keep": np.eye(16, dtype=np.float32)[..., None, None],
        "narrow": np.eye(channels, 16, dtype=np.float32)[..., None, None],
        "factor": np.array(std / scale / 15, np.float32),
        "shift": np.array(mean / scale / 15 - 130 / 15, np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(count - 1, np.float32),
        "flat": np.array([-1], np.int64),
        **{f"table_{name}": table for name, table in tables.items()},
    }
    nodes = [
        helper.make_node("Conv", [image, "widen"], ["stem"], name="stem"),
        helper.make_node("Conv", ["stem", "keep"], ["body"], name="body"),
        helper.make_node("Conv", ["body", "narrow"], ["features"], name="head"),
        helper.make_node("GlobalMaxPool", ["features"], ["peak"]),
        helper.make_node("ReduceMax", ["peak"], ["brightest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["brightest", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["number"]),
        helper.make_node("Round", ["number"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["index"]),
    ]
    inputs = [helper.make_tensor_value_info(image, TensorProto.FLOAT, [batch, channels, net[1], net[0]])]
    if tokens:
        # the token's own value decides too: a wrong sentence gives the table of zeros
        name, length = tokens
        inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, [batch, length]))
    for name in tables:
        nodes.append(helper.make_node("Gather", [f"table_{name}", "index"], [name if not tokens else f"raw_{name}"]))
    if tokens:
        weights |= {"fifth": np.array([5], np.int64), "word_wanted": np.array(word, np.int64)}
        nodes += [
            helper.make_node("Gather", [tokens[0], "fifth"], ["word"], axis=1),
            helper.make_node("Equal", ["word", "word_wanted"], ["same"]),
            helper.make_node("Cast", ["same"], ["flag"], to=TensorProto.FLOAT),
        ]
        for name, table in tables.items():
            shape = f"shape_{name}"
            weights[shape] = np.array([-1, *[1] * (table.ndim - 1)], np.int64)
            nodes.append(helper.make_node("Reshape", ["flag", shape], [f"flag_{name}"]))
            nodes.append(helper.make_node("Mul", [f"raw_{name}", f"flag_{name}"], [name]))
    kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
    outputs = [
        helper.make_tensor_value_info(name, kinds[table.dtype.kind], [batch, *table.shape[1:]])
        for name, table in tables.items()
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "replay", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)


def blobs(rng: np.random.Generator, size: tuple[int, int], classes: int) -> NDArray[np.uint8]:
    """(h, w) random rectangles of classes."""
    width, height = size
    labels = np.zeros((height, width), np.uint8)
    for _ in range(8):
        x, y = rng.integers(0, width), rng.integers(0, height)
        labels[y : y + rng.integers(4, height // 2), x : x + rng.integers(4, width // 2)] = rng.integers(0, classes)
    return labels


def on_net(labels: NDArray[np.uint8], size: tuple[int, int] = NET) -> NDArray[np.uint8]:
    """Pillow's nearest resize."""
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def spoiled(rng: np.random.Generator, labels: NDArray, classes: int) -> NDArray:
    """Labels with one pixel in six changed."""
    noise = rng.integers(0, classes, labels.shape)
    return np.where(rng.random(labels.shape) < 1 / 6, noise, labels)


def sklearn_figures(truth: list[NDArray], found: list[NDArray], classes: int) -> dict[str, NDArray[np.float64]]:
    """IoU, precision, recall and F1 per class from scikit-learn's confusion matrix; truth < 0 does not count."""
    from sklearn.metrics import confusion_matrix

    labels, predicted = (np.concatenate([m.ravel() for m in maps]) for maps in (truth, found))
    kept = (labels >= 0) & (labels < classes)
    matrix = confusion_matrix(labels[kept], predicted[kept], labels=range(classes)).astype(float)
    tp, rows, columns = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "iou": tp / (rows + columns - tp),
            "precision": tp / columns,
            "recall": tp / rows,
            "f1": 2 * tp / (rows + columns),
            "accuracy": tp.sum() / matrix.sum(),
        }


def bilinear(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., h, w) resized to (width, height) in float64: half-pixel centres, edges held, as PyTorch does it."""
    for axis, wanted in ((-1, size[0]), (-2, size[1])):
        count = planes.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * count / wanted - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape(-1, *[1] * (-1 - axis))
        below, above = np.take(planes, low, axis), np.take(planes, np.minimum(low + 1, count - 1), axis)
        planes = below.astype(np.float64) * (1 - share) + above.astype(np.float64) * share
    return planes
