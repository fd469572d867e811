"""Replay models of the KITTI family, the data they belong to, and the contract in plain Python.

A replay model looks at the brightness of its input, an image of one grey level, and hands the boxes and scores
prepared for that image to the real plugin node.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from graph.lower import plugin_reference
from metrics.test_kitti_metric import plain_ap, plain_entries
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

NET = (96, 64)
SIZES = [(120, 80), (80, 120), (96, 64), (300, 40), (50, 50), (97, 61), (64, 96)]
CLASSES = ["bicycle", "car", "person"]
MAPPING = {"Heavy Truck": "Car", "car": "car", "Person": "person", "bike": "bicycle"}
NAMES = {0: ["bike"], 1: ["Heavy Truck", "CAR"], 2: ["person"]}
KEEP, ANCHORS = 12, 24
MEAN = (103.939, 116.779, 123.68)
FAMILIES = {
    **dict.fromkeys(("yolo_v3", "yolo_v4", "yolo_v4_tiny"), "yolo"),
    **dict.fromkeys(("ssd", "dssd", "retinanet"), "ssd"),
}
BASE = {"yolo_v4_tiny": "yolo_v4", "dssd": "ssd"}


def level(image: int) -> int:
    """The grey level of an image, by which the model knows it."""
    return 20 * image + 10


@dataclass
class Scene:
    """One image: size, objects [class, difficult, x1, y1, x2, y2] in source pixels, boxes and scores of the model."""

    size: tuple[int, int]
    truth: list[list[float]]
    boxes: np.ndarray  # (ANCHORS, 4) in [0, 1] of the canvas
    scores: np.ndarray  # (ANCHORS, 3)


def letterbox(size: tuple[int, int]) -> tuple[float, float, int, int]:
    """nw, nh, left, top of the contract."""
    ratio = min(NET[1] / size[1], NET[0] / size[0])
    wide, high = round(ratio * size[0]), round(ratio * size[1])
    return wide, high, (NET[0] - wide) // 2, (NET[1] - high) // 2


def to_canvas(family: str, size: tuple[int, int], box: Any) -> list[float]:
    """A source box on the canvas, [0, 1], as the trainer's loader places it; not rounded, not clipped."""
    if family == "ssd":
        return [v / side for v, side in zip(box, size * 2, strict=True)]
    wide, high, left, top = letterbox(size)
    (x1, y1, x2, y2), (w, h) = box, size
    xs = [(x / w * wide + left) / NET[0] for x in (x1, x2)]
    ys = [(y / h * high + top) / NET[1] for y in (y1, y2)]
    return [xs[0], ys[0], xs[1], ys[1]]


def scenes(family: str, seed: int = 3) -> list[Scene]:
    """Objects of all kinds (difficult, half outside, without area), found well, badly, twice or not at all."""
    rng = np.random.default_rng(seed)
    found = []
    for size in SIZES:
        truth = []
        for _ in range(rng.integers(1, 5)):
            corner = rng.uniform(-0.1, 0.6, 2) * size
            sides = rng.uniform(0.2, 0.5, 2) * size
            box = np.round([*corner, *(corner + sides)], 2)
            truth.append([int(rng.integers(0, 3)), float(rng.random() < 0.3), *box])
        truth.append([1, 0.0, 5.0, 5.0, 5.0, 20.0])  # no area
        boxes = rng.uniform(0, 0.8, (ANCHORS, 2))
        boxes = np.concatenate([boxes, boxes + rng.uniform(0.05, 0.4, (ANCHORS, 2))], axis=1)
        scores = rng.uniform(0, 0.04, (ANCHORS, 3))
        for number, row in enumerate(truth[:-1]):
            for copy in range(2):
                spread = 0.02 if copy == 0 else 0.06
                boxes[2 * number + copy] = np.array(to_canvas(family, size, row[2:])) + rng.uniform(-spread, spread, 4)
                scores[2 * number + copy, int(row[0])] = rng.integers(0, 11) / 10  # ties, and scores of 0 and 1
        for number in range(ANCHORS - 4, ANCHORS):
            scores[number, rng.integers(0, 3)] = rng.integers(1, 8) / 10
        boxes[-1] = [0.8, 0.7, 1.3, 1.2]  # out of the canvas
        found.append(Scene(size, truth, boxes.astype(np.float32), scores.astype(np.float32)))
    found[4].scores[:] = 0  # nothing is found here
    return found


def write_data(folder: Path, all_scenes: list[Scene]) -> tuple[Path, Path]:
    """images/ and labels/; the names do not sort in the order of writing."""
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for number, scene in reversed(list(enumerate(all_scenes))):
        Image.new("RGB", scene.size, (level(number),) * 3).save(images / f"{number:03d}.png")
        lines = ["DontCare 0 0 0 1 1 30 30 0 0 0 0 0 0 0"]
        for row_number, (class_id, difficult, *box) in enumerate(scene.truth):
            names = NAMES[int(class_id)]
            occluded = (1 + row_number % 2) if difficult else ("0.0" if row_number % 2 else 0)
            corners = " ".join(f"{v:.2f}" for v in box)
            lines.append(f"{names[row_number % len(names)]} 0.00 {occluded} 0.00 {corners} 0 0 0 0 0 0 0")
        (labels / f"{number:03d}.txt").write_text("\n".join(lines) + "\n")
    return images, labels


def model(network: str, all_scenes: list[Scene], *, batch: int | str = "N", **changes: Any) -> onnx.ModelProto:
    """A contract-true replay model; ``changes`` are plugin attributes."""
    family = FAMILIES[network]
    count = len(all_scenes)
    tables = plugin_inputs(network, all_scenes)
    attrs = {**attributes(network), **changes}
    weights = {
        "widen": np.eye(16, 3, dtype=np.float32)[..., None, None],
        "keep": np.eye(16, dtype=np.float32)[..., None, None],
        "narrow": np.eye(3, 16, dtype=np.float32)[..., None, None],
        "first": np.array([0], np.int64),
        "shift": np.array(MEAN[0] - 10, np.float32),
        "step": np.array(1 / 20, np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(count - 1, np.float32),
        "flat": np.array([-1], np.int64),
        **{f"table_{name}": table for name, table in tables.items()},
    }
    nodes = [
        # identities; int8 takes the middle one, as the others are small or last
        helper.make_node("Conv", ["Input", "widen"], ["stem"], name="stem"),
        helper.make_node("Conv", ["stem", "keep"], ["body"], name="body"),
        helper.make_node("Conv", ["body", "narrow"], ["features"], name="head"),
        helper.make_node("GlobalAveragePool", ["features"], ["mean"]),
        helper.make_node("Gather", ["mean", "first"], ["blue"], axis=1),
        helper.make_node("Add", ["blue", "shift"], ["level"]),
        helper.make_node("Mul", ["level", "step"], ["number"]),
        helper.make_node("Round", ["number"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["index"]),
        *(helper.make_node("Gather", [f"table_{name}", "index"], [name], axis=0) for name in tables),
    ]
    if family == "yolo":
        op, names = "BatchedNMSDynamic_TRT", ["BatchedNMS", "BatchedNMS_1", "BatchedNMS_2", "BatchedNMS_3"]
        kinds = [TensorProto.INT32, *[TensorProto.FLOAT] * 3]
        shapes = [[batch, 1], [batch, KEEP, 4], [batch, KEEP], [batch, KEEP]]
    else:
        op, names, kinds = "NMSDynamic_TRT", ["NMS", "NMS_1"], [TensorProto.FLOAT] * 2
        shapes = [[batch, 1, KEEP, 7], [batch, 1, 1, 1]]
    nodes.append(helper.make_node(op, list(tables), names, name="plugin", **attrs))
    graph = helper.make_graph(
        nodes,
        network,
        [helper.make_tensor_value_info("Input", TensorProto.FLOAT, [batch, 3, NET[1], NET[0]])],
        [helper.make_tensor_value_info(*entry) for entry in zip(names, kinds, shapes, strict=True)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)


def attributes(network: str) -> dict[str, Any]:
    """The plugin attributes of the contract."""
    common = {"shareLocation": 1, "isNormalized": 1, "keepTopK": KEEP, "topK": 2 * KEEP, "scoreBits": 16}
    if FAMILIES[network] == "yolo":
        limits = {"scoreThreshold": 0.05, "iouThreshold": 0.6}
        return {**common, **limits, "backgroundLabelId": -1, "numClasses": 3, "clipBoxes": 1}
    limits = {"confidenceThreshold": 0.05, "nmsThreshold": 0.6}
    kind = {"confSigmoid": int(network == "retinanet"), "varianceEncodedInTarget": 0, "codeType": 1}
    return {**common, **limits, **kind, "backgroundLabelId": 0, "numClasses": 4, "inputOrder": [1, 2, 0]}


def plugin_inputs(network: str, all_scenes: list[Scene]) -> dict[str, np.ndarray]:
    """What the body of the network hands to the plugin, per image."""
    boxes = np.stack([scene.boxes for scene in all_scenes])
    scores = np.stack([scene.scores for scene in all_scenes])
    if FAMILIES[network] == "yolo":
        return {"boxes": boxes[:, :, None], "scores": scores[..., None]}
    count = len(all_scenes)
    scores = np.concatenate([np.full((count, ANCHORS, 1), 0.9, np.float32), scores], axis=2)
    if network == "retinanet":
        scores = np.log(np.clip(scores, 1e-6, 1 - 1e-6) / (1 - np.clip(scores, 1e-6, 1 - 1e-6))).astype(np.float32)
    prior = np.tile(np.array([0.2, 0.2, 0.7, 0.6], np.float32), (ANCHORS, 1))
    variance = np.array([0.1, 0.1, 0.2, 0.2], np.float32)
    size, centre = prior[:, 2:] - prior[:, :2], (prior[:, 2:] + prior[:, :2]) / 2
    shift = ((boxes[..., 2:] + boxes[..., :2]) / 2 - centre) / size / variance[:2]
    grow = np.log((boxes[..., 2:] - boxes[..., :2]) / size) / variance[2:]
    loc = np.concatenate([shift, grow], axis=2).astype(np.float32)
    anchors = np.stack([prior.ravel(), np.tile(variance, ANCHORS)])[None]
    return {
        "anchor_data": np.repeat(anchors, count, axis=0)[..., None],
        "loc": loc.reshape(count, -1, 1, 1),
        "conf": scores.reshape(count, -1, 1, 1),
    }


def plugin_outputs(network: str, all_scenes: list[Scene]) -> dict[str, np.ndarray]:
    """What the plugin makes of it, by the reference written for the lowering tests."""
    tables = list(plugin_inputs(network, all_scenes).values())
    if FAMILIES[network] == "yolo":
        values = plugin_reference.batched_nms(attributes(network), *tables)
        return dict(zip(["BatchedNMS", "BatchedNMS_1", "BatchedNMS_2", "BatchedNMS_3"], values, strict=True))
    return dict(zip(["NMS", "NMS_1"], plugin_reference.detection_output(attributes(network), *tables), strict=True))


def plain_rows(network: str, outputs: dict[str, np.ndarray], image: int, threshold: float) -> list[list[float]]:
    """[class, score, box on the canvas in the metric's units] of one image, row by row."""
    rows = []
    if FAMILIES[network] == "yolo":
        for k in range(int(outputs["BatchedNMS"][image, 0])):
            score = outputs["BatchedNMS_2"][image, k]
            if score > np.float32(threshold):
                box = outputs["BatchedNMS_1"][image, k]
                rows.append([int(outputs["BatchedNMS_3"][image, k]), float(score), *map(float, box)])
        return rows
    for k in range(int(outputs["NMS_1"][image, 0, 0, 0])):
        _, label, score, *box = outputs["NMS"][image, 0, k]
        if score > np.float32(threshold):
            pixels = [np.float32(v) * np.float32(side) for v, side in zip(box, NET * 2, strict=True)]
            whole = [min(max(round(float(v)), 0), side) for v, side in zip(pixels, NET * 2, strict=True)]
            rows.append([int(label), float(score), *whole])
    return rows


def plain_source(family: str, size: tuple[int, int], box: list[float]) -> list[float]:
    """A row's box in source pixels, for label files."""
    if family == "ssd":
        return [v * side / net for v, side, net in zip(box, size * 2, NET * 2, strict=True)]
    wide, high, left, top = letterbox(size)
    xs = [min(max((x * NET[0] - left) * size[0] / wide, 0), size[0]) for x in box[0::2]]
    ys = [min(max((y * NET[1] - top) * size[1] / high, 0), size[1]) for y in box[1::2]]
    return [xs[0], ys[0], xs[1], ys[1]]


def plain_truth(family: str, scene: Scene) -> list[list[float]]:
    """[class, difficult, box on the canvas in the metric's units], filtered as the contract says; ssd ids from 1."""
    rows = []
    for class_id, difficult, *box in scene.truth:
        if family == "yolo":
            placed = [min(max(v, 0.0), 1.0) for v in to_canvas(family, scene.size, box)]
        else:
            ratios = [side / net for side, net in zip(scene.size * 2, NET * 2, strict=True)]
            whole = [round(v / ratio) for v, ratio in zip(box, ratios, strict=True)]
            placed = [min(max(v, 0), net - 1) for v, net in zip(whole, NET * 2, strict=True)]
        if placed[2] - placed[0] > 1e-3 and placed[3] - placed[1] > 1e-3:
            rows.append([class_id + (family == "ssd"), difficult, *placed])
    return rows


def expected(
    network: str, all_scenes: list[Scene], *, threshold: float = 0.01, iou: float = 0.5, mode: str = "SAMPLE"
) -> dict[str, float]:
    """AP by class and mAP, by the contract's definition."""
    family, outputs = FAMILIES[network], plugin_outputs(network, all_scenes)
    results = {}
    for number, name in enumerate(CLASSES):
        entries: list[tuple[int, float]] = []
        for image, scene in enumerate(all_scenes):
            found = plain_rows(network, outputs, image, threshold)
            entries += plain_entries(plain_truth(family, scene), found, number + (family == "ssd"), iou)
        results[f"AP_{name}"] = plain_ap(entries, threshold, mode)
    return {**results, "mAP": sum(results.values()) / len(results)}


def spec(network: str, folder: Path, **sections: Any) -> dict[str, Any]:
    """A good YAML spec for data and model below ``folder``."""
    return {
        "results_dir": str(folder / "results"),
        "dataset_config": {
            "target_class_mapping": MAPPING,
            "validation_data_sources": [
                {"image_directory_path": str(folder / "images"), "label_directory_path": str(folder / "labels")}
            ],
        },
        "evaluate": {"trt_engine": str(folder / f"{network}.onnx")},
        "inference": {"trt_engine": str(folder / f"{network}.onnx")},
        **sections,
    }


def write_text_spec(path: Path, folder: Path | None, extra: str = "") -> Path:
    """The same in protobuf text; ``folder``: where the validation data lies, None for none."""
    lines = ["# as the established files are written", "eval_config {", "  batch_size: 3", "}", "dataset_config {"]
    for key, value in MAPPING.items():
        lines += ["  target_class_mapping {", f'    key: "{key}"', f'    value: "{value}"', "  }"]
    if folder:
        lines += ["  validation_data_sources: {", f'    image_directory_path: "{folder / "images"}"']
        lines += [f'    label_directory_path: "{folder / "labels"}"', "  }"]
    lines += ["}", "nms_config { confidence_threshold: 0.01 clustering_iou_threshold: 0.6 top_k: 12 }", extra]
    path.write_text("\n".join(lines) + "\n")
    return path
