"""A small sparse4d whose outputs are known for every frame, frames, and the contract once more in plain Python."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.spatial.transform import Rotation

MODEL = {"num_cameras": 2, "input_height": 32, "input_width": 48, "num_queries": 40, "num_temp_instances": 24,
         "embed_dims": 16, "anchor_dims": 11, "num_classes": 3}  # fmt: skip
C, H, W, Q, K, E, A, N = MODEL.values()
START = 1.7e9  # seconds since 1970: float32 has steps of 128 s there
STREAM = [("a", 0.0), ("a", 0.5), ("a", 1.0), ("a", 5.0), ("b", 5.5), ("b", 6.0), ("a", 6.5), ("a", 6.5)]
RESETS = [True, False, False, True, True, False, True, True]
LEVELS, POINTS, GROUPS = ((4, 6), (2, 3)), 3, 8
Tables = dict[str, np.ndarray]


def tables(count: int = len(STREAM), seed: int = 0) -> Tables:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-math.pi, math.pi, (count, Q))
    anchors = rng.normal(0, 20, (count, Q, A))
    anchors[..., 3:6] = rng.normal(0.5, 0.4, (count, Q, 3))
    anchors[..., 6], anchors[..., 7] = np.sin(angle), np.cos(angle)
    anchors[..., 8:] = rng.normal(0, 3, (count, Q, 3))
    found = {
        "cls": rng.normal(-1.5, 1.5, (count, Q, N)),
        "anchor": anchors,
        "quality": rng.normal(0, 1, (count, Q, 2)),
        "weight": rng.normal(0, 0.02, (A, E)),
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


def msda_constants() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(9)
    areas = [h * w for h, w in LEVELS]
    starts = [[c * sum(areas) + sum(areas[:level]) for level in range(len(areas))] for c in range(C)]
    return {
        "features": rng.normal(0, 1, (1, C * sum(areas), E)).astype(np.float32),
        "shapes": np.array([LEVELS] * C, np.int32),
        "starts": np.array(starts, np.int32),
        "locations": rng.uniform(-0.2, 1.2, (1, Q, POINTS, C, 2)).astype(np.float32),
        "weights": rng.normal(0, 1, (1, Q, POINTS, C, len(LEVELS), GROUPS)).astype(np.float32),
    }


def write_model(path: Path, table: Tables, *, timestamp: bool = False, dynamic: bool = False, msda: int = 6) -> Path:
    """Row i of the tables for the frame whose image is i / 10; what was cached comes back in the first K queries.

    Cached anchors become the first K predictions; the mean of a cached feature is added to its query's class logits.
    """
    image = ["batch", "cameras", 3, H, W] if dynamic else [1, C, 3, H, W]
    inputs = {
        "img": (TensorProto.FLOAT, image),
        "projection_mat": (TensorProto.FLOAT, [*image[:2], 4, 4]),
        "image_wh": (TensorProto.FLOAT, [*image[:2], 2]),
        "input_cached_feature": (TensorProto.FLOAT, [image[0], K, E]),
        "input_cached_anchor": (TensorProto.FLOAT, [image[0], K, A]),
        "prev_exists": (TensorProto.FLOAT, [image[0]]),
        "interval_mask": (TensorProto.BOOL, [image[0], 1, 1]),
        **({"timestamp": (TensorProto.FLOAT, [image[0]])} if timestamp else {}),
    }
    outputs = {f"classification{i}": N for i in (1, 2)} | {f"prediction{i}": A for i in range(1, 7)}
    outputs |= {f"quality{i}": 2 for i in (1, 2)} | {"output_cached_feature": E, "output_cached_anchor": A}
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["img"], ["mean"], keepdims=0),
        node("Mul", ["mean", "ten"], ["scaled"]),
        node("Round", ["scaled"], ["rounded"]),
        node("Cast", ["rounded"], ["whole"], to=TensorProto.INT64),
        node("Reshape", ["whole", "flat"], ["index"]),
        *(node("Gather", [name, "index"], [f"{name}_now"], axis=0) for name in ("cls", "anchor", "quality")),
        node("Reshape", ["prev_exists", "ones"], ["prev"]),
        node("Greater", ["prev", "half"], ["has"]),
        node("Slice", ["anchor_now", "k", "q", "one"], ["fresh"]),
        node("Concat", ["input_cached_anchor", "fresh"], ["carried"], axis=1),
        node("Where", ["has", "carried", "anchor_now"], ["anchors"]),
        node("ReduceMean", ["input_cached_feature"], ["cached_mean"], axes=[2], keepdims=1),
        node("Pad", ["cached_mean", "padding"], ["added"]),
        node("Cast", ["interval_mask"], ["mask"], to=TensorProto.FLOAT),  # an and with prev_exists
        node("Mul", ["added", "mask"], ["masked"]),
        node("Add", ["cls_now", "masked"], ["logits"]),
        node("MatMul", ["anchors", "weight"], ["projected"]),
        node("Mul", ["features", "mean"], ["seen"]),
    ]
    for i in range(msda):
        names = [f"seen{i}" if i else "seen", "shapes", "starts", "locations", "weights"]
        nodes.append(node("MSDA", names, [f"sampled{i}"], name=f"msda{i}", domain="nv"))
        nodes.append(node("Add", [f"sampled{i}", f"sum{i - 1}" if i else "zero"], [f"sum{i}"]))
        nodes.append(node("Mul", ["seen", "half"], [f"seen{i + 1}"]))
    nodes += [
        node("Mul", [f"sum{msda - 1}" if msda else "zero", "zero"], ["nothing"]),
        node("Add", ["projected", "nothing"], ["output_cached_feature"]),
        node("Identity", ["anchors"], ["output_cached_anchor"]),
        *(node("Identity", ["anchors"], [f"prediction{i}"]) for i in range(1, 7)),
        *(node("Identity", ["logits"], [f"classification{i}"]) for i in (1, 2)),
        node("Identity", ["quality_now"], ["quality1"]),
    ]
    if timestamp:
        nodes += [node("Mul", ["timestamp", "ten"], ["late"]), node("Add", ["quality_now", "late"], ["quality2"])]
    else:
        nodes.append(node("Identity", ["quality_now"], ["quality2"]))
    constants: dict[str, Any] = {
        **table, **(msda_constants() if msda else {"features": np.ones((1, 1, E), np.float32)}),
        "ten": np.float32(10), "half": np.float32(0.5), "zero": np.float32(0), "flat": np.array([-1], np.int64),
        "ones": np.array([-1, 1, 1], np.int64), "k": np.array([K], np.int64), "q": np.array([Q], np.int64),
        "one": np.array([1], np.int64), "padding": np.array([0, 0, 0, 0, Q - K, 0], np.int64),
    }  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "sparse4d",
        [info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [info(name, TensorProto.FLOAT, [image[0], Q, width]) for name, width in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nv", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def pose(index: int) -> np.ndarray:
    """Where the vehicle is at a frame, far from the origin."""
    found = np.eye(4)
    found[:3, :3] = Rotation.from_euler("zyx", [0.2 * index, 0.01 * index, -0.02]).as_matrix()
    found[:3, 3] = [500 + 3 * index, -200 + index, 0.1 * index]
    return found.astype(np.float32)


def frame_arrays(index: int) -> dict[str, np.ndarray]:
    return {
        "img": np.full((1, C, 3, H, W), index / 10, np.float32),
        "projection_mat": np.tile(np.eye(4, dtype=np.float32), (1, C, 1, 1)),
        "image_wh": np.tile(np.array([W, H], np.float32), (1, C, 1)),
        "T_global": pose(index),
    }


def write_frames(folder: Path) -> Path:
    """NPZ files and the manifest."""
    frames = []
    for index, (scene, time) in enumerate(STREAM):
        path = folder / "frames" / f"{index}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **frame_arrays(index))
        frames.append({"scene": scene, "timestamp": START + time, "tensors": f"frames/{index}.npz"})
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"version": 1, "frames": frames}))
    return manifest


def plain_sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def plain_stream(
    table: Tables, settings: dict[str, float], skip: tuple[int, ...] = (), late: bool = False
) -> list[Any]:
    """Section 5 of the contract with the model above, one number at a time; a line per frame."""
    lines: list[Any] = []
    cache: list[dict[str, Any]] = []
    previous: tuple[str, float, int] | None = None
    begins: dict[str, float] = {}
    next_id = 0
    for index, (scene, time) in enumerate(STREAM):
        begins.setdefault(scene, time)
        if index in skip:
            continue
        valid = bool(cache) and previous is not None and previous[0] == scene
        valid = valid and 0 < time - previous[1] <= settings["max_time_interval"]
        anchors = [[float(v) for v in row] for row in table["anchor"][index]]
        logits = [[float(v) for v in row] for row in table["cls"][index]]
        if not valid:
            cache = []
        else:
            change = np.linalg.inv(pose(index).astype(float)) @ pose(previous[2]).astype(float)
            step = time - previous[1]
            for k, one in enumerate(cache):
                a = one["anchor"]
                centre = change @ [a[0] + a[8] * step, a[1] + a[9] * step, a[2] + a[10] * step, 1]
                cos = change[0, 0] * a[7] + change[0, 1] * a[6]
                sin = change[1, 0] * a[7] + change[1, 1] * a[6]
                speed = change[:3, :3] @ a[8:]
                anchors[k] = [*centre[:3], *a[3:6], sin, cos, *speed]
                logits[k] = [v + sum(one["feature"]) / E for v in logits[k]]
        confidences = [max(plain_sigmoid(v) for v in row) for row in logits]
        raw = list(confidences)
        ids = [one["id"] for one in cache] + [-1] * (Q - len(cache))
        for k in range(Q):
            if ids[k] < 0 and confidences[k] >= settings["tracking_threshold"]:
                ids[k] = next_id
                next_id += 1
        for k, one in enumerate(cache):
            confidences[k] = max(confidences[k], one["confidence"] * settings["confidence_decay"])
        weight = table["weight"]
        cache = [
            {"anchor": anchors[k], "confidence": confidences[k], "id": ids[k],
             "feature": [sum(anchors[k][j] * float(weight[j, e]) for j in range(A)) for e in range(E)]}
            for k in sorted(range(Q), key=lambda k: -confidences[k])[:K]
        ]  # fmt: skip
        previous = scene, time, index
        rows = []
        for k in sorted(range(Q), key=lambda k: -raw[k])[: int(settings["num_output"])]:
            quality = float(table["quality"][index, k, 0]) + (10 * (time - begins[scene]) if late else 0)
            rows.append((raw[k] * plain_sigmoid(quality), k))
        rows.sort(key=lambda row: -row[0])
        rows = [(score, k) for score, k in rows if raw[k] >= settings["score_threshold"]]
        lines.append(
            {
                "frame_index": index,
                "scene": scene,
                "timestamp": START + time,
                "temporal_reset": not valid,
                "boxes_3d": [[*anchors[k][:3], *(math.exp(v) for v in anchors[k][3:6]),
                              math.atan2(anchors[k][6], anchors[k][7]), *anchors[k][8:]] for _, k in rows],
                "scores_3d": [score for score, _ in rows],
                "labels_3d": [logits[k].index(max(logits[k])) for _, k in rows],
                "cls_scores": [raw[k] for _, k in rows],
                "instance_ids": [ids[k] for _, k in rows],
            }
        )  # fmt: skip
    return lines


def plain_msda(features: Any, shapes: Any, starts: Any, locations: Any, weights: Any) -> np.ndarray:
    """The operator by its definition: corner by corner, float64."""
    batch, queries, points, cameras, _ = locations.shape
    groups, channels = weights.shape[-1], features.shape[2]
    out = np.zeros((batch, queries, channels))
    for b, q, p, c in np.ndindex(batch, queries, points, cameras):
        x, y = (float(v) for v in locations[b, q, p, c])
        if not (0 < x < 1 and 0 < y < 1):
            continue
        for level, (height, width) in enumerate(shapes[c]):
            column, row = x * width - 0.5, y * height - 0.5
            for j, i in ((math.floor(row) + dj, math.floor(column) + di) for dj in (0, 1) for di in (0, 1)):
                if 0 <= j < height and 0 <= i < width:
                    share = (1 - abs(row - j)) * (1 - abs(column - i))
                    value = features[b, starts[c, level] + j * width + i].astype(float)
                    out[b, q] += share * value * np.repeat(weights[b, q, p, c, level], channels // groups)
    return out
