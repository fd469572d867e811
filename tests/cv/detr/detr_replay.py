"""Contract-true models that replay prepared outputs: the grey level of an image chooses its row."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZES = [(64, 48), (33, 101), (80, 20), (50, 50), (17, 23), (96, 64), (40, 90)]
WORDS = ["red", "blue", "foot", "##ball", "ball", "traffic", "light", "car", "man", "the", "left", "on", "zebra"]


def grey(row: int) -> int:
    return 10 + 35 * row


def write_images(folder: Path, sizes: list[tuple[int, int]] = SIZES) -> list[Path]:
    """One image of a single grey level per row, resizing leaves it as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for row, size in enumerate(sizes):
        paths.append(folder / f"image_{row}.png")
        Image.new("RGB", size, (grey(row),) * 3).save(paths[-1])
    return paths


def write_vocabulary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", ",", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return folder


def vocabulary() -> dict[str, int]:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", ",", *WORDS]
    return {token: i for i, token in enumerate(tokens)}


def write_replay(
    path: Path,
    outputs: dict[str, NDArray[np.float32]],
    *,
    normalized: bool = True,
    batch: int | None = None,
    size: tuple[int, int] = (32, 24),
    channels: int = 3,
    tokens: int = 0,
    shuffled: bool = False,
) -> Path:
    """``outputs`` hold one row per image.

    With ``tokens``, the network takes the five text inputs, and ``pred_logits`` has one column per word of the
    vocabulary: the graph looks up the column of each token, so an answer is right only if the ids are. Rows whose
    masks or positions are not those of a phrase get -50.
    """
    rows = len(next(iter(outputs.values())))
    mean, std = (MEAN, STD) if normalized else (np.zeros(3), np.ones(3))
    levels = [float((((grey(row) / 255) - mean) / std)[:channels].mean()) for row in range(rows)]
    axis: Any = "batch" if batch is None else batch
    constants = {
        "levels": np.array([levels], np.float32),
        # wide enough that an int8 build quantizes the convolution in the middle
        "widen": np.eye(16, channels, dtype=np.float32)[:, :, None, None],
        "same": np.eye(16, dtype=np.float32)[:, :, None, None],
        "narrow": np.eye(channels, 16, dtype=np.float32)[:, :, None, None],
    }
    nodes = [
        helper.make_node("Conv", ["inputs", "widen"], ["wide"], name="conv_1"),
        helper.make_node("Conv", ["wide", "same"], ["kept"], name="conv_2"),
        helper.make_node("Conv", ["kept", "narrow"], ["copied"], name="conv_3"),
        helper.make_node("ReduceMean", ["copied"], ["mean"], axes=[2, 3, 1], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Sub", ["column", "levels"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("ArgMin", ["distance"], ["row"], axis=1, keepdims=0),
    ]
    constants["one"] = np.array([1], np.int64)
    infos = []
    for name, values in outputs.items():
        constants[f"table_{name}"] = values.astype(np.float32)
        target = f"by_word_{name}" if tokens and name == "pred_logits" else name
        nodes.append(helper.make_node("Gather", [f"table_{name}", "row"], [target], axis=0))
        shape = [axis, *values.shape[1:]]
        if target != name:
            shape[2] = tokens
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    inputs = [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [axis, channels, size[1], size[0]])]
    if tokens:
        more, known = _text_nodes(outputs["pred_logits"].shape[2])
        nodes += more
        constants.update(known)
        for name, kind, shape in (
            ("input_ids", TensorProto.INT64, [axis, tokens]),
            ("attention_mask", TensorProto.BOOL, [axis, tokens]),
            ("position_ids", TensorProto.INT64, [axis, tokens]),
            ("token_type_ids", TensorProto.INT64, [axis, tokens]),
            ("text_token_mask", TensorProto.BOOL, [axis, tokens, tokens]),
        ):
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
    if shuffled:
        inputs, infos = inputs[::-1], infos[::-1]
    graph = helper.make_graph(
        nodes, "replay", inputs, infos, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def _text_nodes(words: int) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["input_ids", "two"], ["ids_column"]),
        node("Equal", ["ids_column", "all_words"], ["is_word"]),
        node("Cast", ["is_word"], ["one_hot"], to=TensorProto.FLOAT),
        node("Transpose", ["by_word_pred_logits"], ["words_first"], perm=[0, 2, 1]),
        node("MatMul", ["one_hot", "words_first"], ["token_first"], name="matmul"),
        node("Transpose", ["token_first"], ["looked_up"], perm=[0, 2, 1]),
        # a position must lie inside its phrase: position < number of tokens that the token sees
        node("Cast", ["text_token_mask"], ["seen"], to=TensorProto.FLOAT),
        node("ReduceSum", ["seen", "two"], ["phrase_length"], keepdims=0),
        node("Add", ["position_ids", "token_type_ids"], ["position"]),
        node("Cast", ["position"], ["position_float"], to=TensorProto.FLOAT),
        node("Less", ["position_float", "phrase_length"], ["inside"]),
        node("Where", ["inside", "nothing", "penalty"], ["added"]),
        node("Unsqueeze", ["added", "one"], ["added_row"]),
        node("Add", ["looked_up", "added_row"], ["checked"]),
        node("Unsqueeze", ["attention_mask", "one"], ["real"]),
        node("Where", ["real", "checked", "minus_infinity"], ["pred_logits"]),
    ]
    constants = {
        "two": np.array([2], np.int64),
        "all_words": np.arange(words, dtype=np.int64)[None, None],
        "nothing": np.array(0, np.float32),
        "penalty": np.array(-50, np.float32),
        "minus_infinity": np.array(-np.inf, np.float32),
    }
    return nodes, constants


def write_coco(path: Path, names: list[str], categories: dict[int, str], annotations: list[dict[str, Any]]) -> Path:
    images = [
        {"id": 100 + row, "file_name": name, "width": SIZES[row][0], "height": SIZES[row][1]}
        for row, name in enumerate(names)
    ]
    rows = [{"id": n + 1, "iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a} for n, a in enumerate(annotations)]
    listed = [{"id": i, "name": name} for i, name in categories.items()]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": listed}))
    return path


def truth_boxes(seed: int, category_ids: list[int]) -> list[dict[str, Any]]:
    """Random annotations of rows 0..5; the last image has none, and one annotation is a crowd."""
    rng = np.random.default_rng(seed)
    found = []
    for row, (width, height) in enumerate(SIZES[:-1]):
        for _ in range(rng.integers(1, 5)):
            w, h = rng.uniform(4, width / 2), rng.uniform(4, height / 2)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            box = [round(float(v), 2) for v in (x, y, w, h)]
            found.append({"image_id": 100 + row, "category_id": int(rng.choice(category_ids)), "bbox": box})
    found[-1]["iscrowd"] = 1
    return found


def center_boxes(xywh: Any, row: int) -> NDArray[np.float32]:
    """x, y, width, height in pixels -> centre form in [0, 1]."""
    x, y, w, h = np.asarray(xywh, np.float64).reshape(-1, 4).T
    width, height = SIZES[row]
    return np.stack([(x + w / 2) / width, (y + h / 2) / height, w / width, h / height], axis=1).astype(np.float32)


def plain_decode(scores: Any, boxes: Any, size: tuple[int, int], k: int) -> list[tuple[int, int, float, list[float]]]:
    """(query, class, score, x1 y1 x2 y2) of the contract, one pair at a time."""
    pairs = [(float(scores[q][c]), q, c) for q in range(len(scores)) for c in range(len(scores[q]))]
    pairs.sort(key=lambda pair: -pair[0])  # stable: the lowest index first among equals
    found = []
    for score, q, c in pairs[:k]:
        cx, cy, w, h = (np.float32(v) for v in boxes[q])
        half = np.float32(0.5)
        corners = [cx - w * half, cy - h * half, cx + w * half, cy + h * half]
        limits = [size[0], size[1]] * 2
        found.append(
            (q, c, score, [min(max(float(v) * m, 0.0), float(m)) for v, m in zip(corners, limits, strict=True)])
        )
    return found


def pycocotools_numbers(json_file: Path, rows: list[dict[str, Any]], kind: str = "bbox") -> list[float]:
    """The 12 numbers over all images of the file."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(json_file))
        evaluation = COCOeval(truth, truth.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(np.float32(v)) for v in evaluation.stats]
