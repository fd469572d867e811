"""Replay models of efficientdet, mask_rcnn and faster_rcnn with plugin nodes, their data, the contract in plain Python.

A replay model knows an image by the grey level of its first pixel, and hands what was prepared for it to the real
plugin nodes: anchors and offsets near the objects, and feature maps in which each class shines where its objects are.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from cv.kitti import kitti_replay as kitti
from graph.lower import plugin_reference as plugins
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw
from pycocotools import mask as codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

F = np.float32
NET = (128, 64)  # width, height
SIZES = [(160, 80), (80, 120), (128, 64), (300, 40), (64, 64), (97, 61)]
CLASSES = 4  # with the background
KEYS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl"]
ROIS, DETECTIONS, SIDE = 8, 6, 8


@dataclass
class Picture:
    """An image and its objects: (category 1..3, x, y, w, h) in source pixels."""

    size: tuple[int, int]
    objects: list[tuple[int, float, float, float, float]]

    @property
    def scale(self) -> float:
        """Network pixels per source pixel."""
        return 1 / max(self.size[0] / NET[0], self.size[1] / NET[1])


def pictures(seed: int = 4) -> list[Picture]:
    """Objects of different sizes; the last picture has none."""
    rng = np.random.default_rng(seed)
    found = []
    for size in SIZES:
        objects = []
        for _ in range(3):
            w, h = rng.uniform(0.25, 0.5, 2) * size
            x, y = rng.uniform(0, 0.5, 2) * size
            objects.append((int(rng.integers(1, CLASSES)), *(float(round(v, 2)) for v in (x, y, w, h))))
        found.append(Picture(size, objects))
    found[-1].objects.clear()
    return found


def polygon(box: tuple[float, ...]) -> list[float]:
    """An ellipse in a box, as points."""
    x, y, w, h = box
    angles = np.linspace(0, 2 * np.pi, 17)[:-1]
    points = np.stack([x + w / 2 + w / 2 * np.cos(angles), y + h / 2 + h / 2 * np.sin(angles)], 1)
    return [round(float(v), 2) for v in points.ravel()]


def write_coco(folder: Path, all_pictures: list[Picture], ids: tuple[int, ...] = (1, 2, 3), **changes: Any) -> Path:
    """images/ and instances.json; ``ids``: the categories' ids."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    document["categories"] = [{"id": i, "name": f"class{n}"} for n, i in enumerate(ids, 1)]
    for number, picture in reversed(list(enumerate(all_pictures))):
        name = f"{number:03d}.png"
        Image.new("RGB", picture.size, (kitti.level(number),) * 3).save(images / name)
        width, height = picture.size
        document["images"].append({"id": 7 * number + 3, "file_name": name, "width": width, "height": height})
        for k, (category, *box) in enumerate(picture.objects):
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": 7 * number + 3,
                    "category_id": ids[category - 1],
                    "bbox": box,
                    "area": round(box[2] * box[3] * 0.78, 1),
                    "iscrowd": int(k == 2 and number == 1),
                    "segmentation": [polygon(tuple(box))],
                }
            )
    document.update(changes)
    (folder / "instances.json").write_text(json.dumps(document))
    return folder / "instances.json"


def by_pycocotools(json_file: Path, results: list[dict[str, Any]], kind: str, image_ids: list[int]) -> dict[str, float]:
    """The 12 numbers; ``kind`` bbox or segm."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(json_file))
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    prefix = "mask_" if kind == "segm" else ""
    return {f"{prefix}{key}": float(F(v)) for key, v in zip(KEYS, evaluation.stats, strict=True)}


def index_nodes(source: str, slope: float, offset: float, count: int) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Nodes from an NCHW tensor to "index": round(first pixel * slope + offset); int8 takes the middle convolution."""
    weights = {
        "widen": np.eye(16, 3, dtype=F)[..., None, None],
        "keep": np.eye(16, dtype=F)[..., None, None],
        "narrow": np.eye(3, 16, dtype=F)[..., None, None],
        "zeros": np.zeros(3, np.int64),
        "ones": np.ones(3, np.int64),
        "axes": np.array([1, 2, 3], np.int64),
        "slope": np.array(slope, F),
        "offset": np.array(offset, F),
        "low": np.array(0, F),
        "high": np.array(count - 1, F),
        "flat": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", [source, "widen"], ["stem"], name="stem"),
        helper.make_node("Conv", ["stem", "keep"], ["body"], name="body"),
        helper.make_node("Conv", ["body", "narrow"], ["features"], name="head"),
        helper.make_node("Slice", ["features", "zeros", "ones", "axes"], ["first"]),
        helper.make_node("Mul", ["first", "slope"], ["sloped"]),
        helper.make_node("Add", ["sloped", "offset"], ["number"]),
        helper.make_node("Round", ["number"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["index"]),
    ]
    return nodes, weights


def gathers(tables: dict[str, np.ndarray]) -> list[Any]:
    return [helper.make_node("Gather", [f"table_{name}", "index"], [name], axis=0) for name in tables]


def finished(
    name: str,
    nodes: list[Any],
    image: tuple[str, list[Any]],
    outputs: list[tuple[str, int, list[Any]]],
    weights: dict[str, np.ndarray],
    tables: dict[str, np.ndarray],
) -> onnx.ModelProto:
    constants = {**weights, **{f"table_{key}": table for key, table in tables.items()}}
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(image[0], TensorProto.FLOAT, image[1])],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


# efficientdet ---------------------------------------------------------------------------------------------------------

EFFICIENT_NMS = {
    "background_class": -1,
    "max_output_boxes": 10,
    "score_threshold": 0.05,
    "iou_threshold": 0.5,
    "score_activation": 1,
    "box_coding": 1,
}


def efficientdet_tables(all_pictures: list[Picture], seed: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """deltas (M, P, 4) and logits (M, P, C); anchors (1, P, 4) as y, x, h, w."""
    rng = np.random.default_rng(seed)
    count = 24
    anchors = np.concatenate([rng.uniform(5, 60, (count, 2)), rng.uniform(10, 40, (count, 2))], 1).astype(F)
    deltas = rng.normal(0, 0.3, (len(all_pictures), count, 4))
    logits = rng.uniform(-6, -1, (len(all_pictures), count, 3))
    for number, picture in enumerate(all_pictures):
        for k, (category, x, y, w, h) in enumerate(picture.objects):
            for copy in range(3):
                noise = rng.normal(0, [0.02, 0.06, 0.15][copy], 4)
                ay, ax, ah, aw = anchors[3 * k + copy]
                s = picture.scale
                centre = [((y + h / 2) * s - ay) / ah, ((x + w / 2) * s - ax) / aw]
                deltas[number, 3 * k + copy] = np.array([*centre, np.log(h * s / ah), np.log(w * s / aw)]) + noise
                logits[number, 3 * k + copy, category - 1] = rng.choice([0.5, 1.0, 1.5])  # ties
    logits[3] = -9  # nothing is found here
    return {"deltas": deltas.astype(F), "logits": logits.astype(F)}, anchors[None]


def efficientdet(all_pictures: list[Picture], batch: int | str = "N", *, keep: int = 10) -> onnx.ModelProto:
    tables, anchors = efficientdet_tables(all_pictures)
    nodes, weights = index_nodes("planes", 1 / 20, -0.5, len(all_pictures))
    names = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]
    attributes = {**EFFICIENT_NMS, "max_output_boxes": keep, "plugin_version": "1"}
    plugin = helper.make_node(
        "EfficientNMS_TRT", ["deltas", "logits", "anchors"], names, name="nms/non_maximum_suppression", **attributes
    )
    nodes = [helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]), *nodes, *gathers(tables), plugin]
    kinds = [TensorProto.INT32, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32]
    shapes = [[batch, 1], [batch, keep, 4], [batch, keep], [batch, keep]]
    image = ("input", [batch, NET[1], NET[0], 3])
    weights["anchors"] = anchors
    return finished("efficientdet", nodes, image, list(zip(names, kinds, shapes, strict=True)), weights, tables)


def efficientdet_outputs(all_pictures: list[Picture]) -> list[np.ndarray]:
    tables, anchors = efficientdet_tables(all_pictures)
    return plugins.efficient_nms({**EFFICIENT_NMS, "class_agnostic": 0}, *tables.values(), anchors)


def plain_efficientdet(
    outputs: list[np.ndarray], image: int, size: tuple[int, int], limit: int = 100
) -> list[tuple[int, float, list[float]]]:
    """(category, score, x1 y1 x2 y2) of one image."""
    scale = 1 / max(size[0] / NET[0], size[1] / NET[1])
    rows = []
    for k in range(min(limit, int(outputs[0][image].item()))):
        y1, x1, y2, x2 = (float(v) / scale for v in outputs[1][image, k])
        rows.append((int(outputs[3][image, k]) + 1, float(outputs[2][image, k]), [x1, y1, x2, y2]))
    return rows


def coco_rows(rows: list[tuple[int, float, list[float]]], image: int, ids: tuple[int, ...] = (1, 2, 3)) -> list[Any]:
    return [
        {
            "image_id": 7 * image + 3,
            "category_id": ids[c - 1],
            "score": s,
            "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]],
        }
        for c, s, b in rows
    ]


# mask_rcnn ------------------------------------------------------------------------------------------------------------

IMAGE_SIZE = [3, NET[1], NET[0]]
PROPOSE = {"prenms_topk": 4096, "keep_topk": ROIS, "fg_threshold": 0.0, "iou_threshold": 0.7, "image_size": IMAGE_SIZE}
GENERATE = {
    "num_classes": CLASSES,
    "keep_topk": DETECTIONS,
    "score_threshold": 0.0,
    "iou_threshold": 0.5,
    "image_size": IMAGE_SIZE,
}
SHIFT = np.tile(np.array([0.1, -0.2, 0.1, 0.05], F), (1, 1, CLASSES, 1))  # of every box, by the second stage
GAIN, SHARPNESS = F(6), F(8)


def painted(picture: Picture, size: tuple[int, int]) -> np.ndarray:
    """(CLASSES, h, w) share of each cell that a class covers, of a canvas of the network's size."""
    planes = []
    for category in range(CLASSES):
        plane = Image.new("L", (NET[0] * 4, NET[1] * 4))
        draw = ImageDraw.Draw(plane)
        for own, x, y, w, h in picture.objects:
            if own == category:
                draw.ellipse([v * picture.scale * 4 for v in (x, y, x + w, y + h)], fill=255)
        planes.append(cv2.resize(np.asarray(plane, F) / 255, size, interpolation=cv2.INTER_AREA))
    return np.stack(planes).astype(F)


def mask_rcnn_tables(all_pictures: list[Picture], seed: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tables: dict[str, np.ndarray] = {}
    for level in range(2, 7):
        h, w = NET[1] >> level, NET[0] >> level
        deltas = rng.normal(0, 0.1, (len(all_pictures), h * w * 3, 4))
        scores = rng.uniform(0, 0.3, (len(all_pictures), h * w * 3))
        if level == 3:  # anchors of 64 pixels
            for number, picture in enumerate(all_pictures):
                for k, (_, x, y, bw, bh) in enumerate(picture.objects):
                    s = picture.scale
                    for copy in range(2):
                        row, column = rng.integers(0, h), rng.integers(0, w)
                        at = (row * w + column) * 3
                        side = 8 * 2**level + 1  # both ends count
                        cy, cx = (row + 0.5) * 2**level + 0.5, (column + 0.5) * 2**level + 0.5
                        moved = [((y + bh / 2) * s - cy) / side, ((x + bw / 2) * s - cx) / side]
                        grown = [np.log((bh * s + 1) / side), np.log((bw * s + 1) / side)]
                        deltas[number, at] = np.array([*moved, *grown]) + rng.normal(0, 0.02 + 0.1 * copy, 4)
                        scores[number, at] = 0.9 - 0.1 * k - 0.03 * copy
        tables[f"delta{level}"] = deltas[..., None].astype(F)
        tables[f"score{level}"] = scores[..., None, None].astype(F)
    for level in range(2, 7):
        size = (NET[0] >> level, NET[1] >> level)
        tables[f"map{level}"] = np.stack([painted(picture, size) for picture in all_pictures])
    return tables


def mask_rcnn(all_pictures: list[Picture], batch: int | str = "N") -> onnx.ModelProto:
    tables = mask_rcnn_tables(all_pictures)
    slope, offset = 0.224 * 255 / 20, (0.485 * 255 - 10) / 20
    nodes, weights = index_nodes("Input", slope, offset, len(all_pictures))
    maps = [f"map{level}" for level in range(2, 7)]
    pairs = [f"{kind}{level}" for level in range(2, 7) for kind in ("delta", "score")]
    make, pooled = helper.make_node, {"image_size": IMAGE_SIZE}
    nodes = [
        *nodes,
        *gathers(tables),
        make("MultilevelProposeROI_TRT", pairs, ["rois"], name="propose", **PROPOSE),
        make("MultilevelCropAndResize_TRT", ["rois", *maps], ["crops"], name="crop", pooled_size=SIDE // 4, **pooled),
        make("ReduceMean", ["crops"], ["level"], axes=[3, 4], keepdims=0),
        make("Mul", ["level", "gain"], ["class_logits"]),
        make("Softmax", ["class_logits"], ["probabilities"], axis=2),
        make("Reshape", ["probabilities", "to_scores"], ["scores"]),
        make("Mul", ["level", "none"], ["nothing"]),
        make("Reshape", ["nothing", "to_rows"], ["rows"]),
        make("Add", ["rows", "shift"], ["shifts"]),
        make("Reshape", ["shifts", "to_deltas"], ["deltas"]),
        make(
            "GenerateDetection_TRT", ["deltas", "scores", "rois"], ["generate_detections"], name="generate", **GENERATE
        ),
        make("SpecialSlice_TRT", ["generate_detections"], ["boxes"], name="slice"),
        make("MultilevelCropAndResize_TRT", ["boxes", *maps], ["cut"], name="crop2", pooled_size=SIDE // 2, **pooled),
        make("Reshape", ["cut", "to_planes"], ["cut_planes"]),
        make("ResizeNearest_TRT", ["cut_planes"], ["grown"], name="grow", scale=2.0),
        make("Sub", ["grown", "half"], ["centred"]),
        make("Mul", ["centred", "sharpness"], ["sharp"]),
        make("Reshape", ["sharp", "to_masks"], ["mask_fcn_logits/BiasAdd"]),
    ]
    weights |= {
        "gain": GAIN,
        "sharpness": SHARPNESS,
        "none": np.array(0, F),
        "half": np.array(0.5, F),
        "shift": SHIFT,
        "to_scores": np.array([-1, ROIS, CLASSES, 1, 1]),
        "to_rows": np.array([-1, ROIS, CLASSES, 1]),
        "to_deltas": np.array([-1, ROIS, 4 * CLASSES, 1, 1]),
        "to_planes": np.array([-1, CLASSES, SIDE // 2, SIDE // 2]),
        "to_masks": np.array([-1, DETECTIONS, CLASSES, SIDE, SIDE]),
    }
    outputs = [
        ("generate_detections", TensorProto.FLOAT, [batch, DETECTIONS, 6]),
        ("mask_fcn_logits/BiasAdd", TensorProto.FLOAT, [batch, DETECTIONS, CLASSES, SIDE, SIDE]),
    ]
    return finished("mask_rcnn", nodes, ("Input", [batch, 3, NET[1], NET[0]]), outputs, weights, tables)


def mask_rcnn_outputs(all_pictures: list[Picture]) -> tuple[np.ndarray, np.ndarray]:
    tables = mask_rcnn_tables(all_pictures)
    count = len(all_pictures)
    pairs = [tables[f"{kind}{level}"] for level in range(2, 7) for kind in ("delta", "score")]
    maps = [tables[f"map{level}"] for level in range(2, 7)]
    (rois,) = plugins.multilevel_propose(PROPOSE, *pairs)
    (crops,) = plugins.multilevel_crop({"pooled_size": SIDE // 4, "image_size": IMAGE_SIZE}, rois, *maps)
    odds = np.exp(crops.mean(axis=(3, 4)) * GAIN)
    scores = odds / odds.sum(axis=2, keepdims=True)
    deltas = np.broadcast_to(SHIFT, (count, ROIS, CLASSES, 4)).reshape(count, ROIS, -1, 1, 1)
    (found,) = plugins.generate_detection(GENERATE, deltas, scores[..., None, None], rois)
    (cut,) = plugins.multilevel_crop({"pooled_size": SIDE // 2, "image_size": IMAGE_SIZE}, found[..., :4], *maps)
    return found, ((cut.repeat(2, axis=3).repeat(2, axis=4) - F(0.5)) * SHARPNESS).astype(F)


def plain_paste(mask: np.ndarray, box: list[float], size: tuple[int, int]) -> np.ndarray:
    """A mask (S, S) of probabilities over a box x1 y1 x2 y2, pixel by pixel on an empty picture."""
    side = len(mask)
    grown = (side + 2) / side
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_w, half_h = (box[2] - box[0]) / 2 * grown, (box[3] - box[1]) / 2 * grown
    x1, y1, x2, y2 = (int(v) for v in (centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h))
    bordered = np.zeros((side + 2, side + 2), F)
    bordered[1:-1, 1:-1] = mask
    wide, high = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    pasted = cv2.resize(bordered, (wide, high)) > 0.5
    out = np.zeros((size[1], size[0]), np.uint8)
    for row in range(high):
        for column in range(wide):
            if 0 <= y1 + row < size[1] and 0 <= x1 + column < size[0]:
                out[y1 + row, x1 + column] = pasted[row, column]
    return out


def plain_mask_rcnn(
    rows: np.ndarray, logits: np.ndarray, size: tuple[int, int]
) -> list[tuple[int, float, list[float], np.ndarray]]:
    """(class, score, x1 y1 x2 y2, pixels) of one image."""
    scale = 1 / max(size[0] / NET[0], size[1] / NET[1])
    found = []
    for row, planes in zip(rows, logits, strict=True):
        if row[4] < 1:
            continue
        y1, x1, y2, x2 = (float(v) / scale for v in row[:4])
        mask = 1 / (1 + np.exp(-planes[int(row[4])].astype(F)))
        found.append((int(row[4]), float(row[5]), [x1, y1, x2, y2], plain_paste(mask, [x1, y1, x2, y2], size)))
    return found


def run_length(mask: np.ndarray) -> dict[str, Any]:
    return codes.encode(np.asfortranarray(mask))


# faster_rcnn ----------------------------------------------------------------------------------------------------------

KITTI_NET = kitti.NET
NAMES = ["Bicycle", "Vehicle", "person"]  # sorted as written; lower-cased the last two would change places
MAPPING = {"Heavy Truck": "Vehicle", "car": "Vehicle", "Person": "person", "bike": "Bicycle"}
STRIDE, ANCHOR_SIZES, RATIOS = 16, [16.0, 32.0], [1.0, 0.5, 2.0]
PROPOSAL = {
    "input_height": KITTI_NET[1],
    "input_width": KITTI_NET[0],
    "rpn_stride": STRIDE,
    "roi_min_size": 1.0,
    "nms_iou_threshold": 0.7,
    "pre_nms_top_n": 60,
    "post_nms_top_n": ROIS,
    "anchor_sizes": ANCHOR_SIZES,
    "anchor_ratios": RATIOS,
}
DETECTION = {
    "shareLocation": 0,
    "varianceEncodedInTarget": 1,
    "backgroundLabelId": 3,
    "confidenceThreshold": 0.02,
    "nmsThreshold": 0.3,
    "topK": ROIS,
    "keepTopK": ROIS,
    "codeType": 1,
    "numClasses": 4,
    "inputOrder": [1, 2, 0],
    "confSigmoid": 0,
    "isNormalized": 1,
    "scoreBits": 16,
}


def faster_rcnn_tables(scenes: list[kitti.Scene], seed: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    h, w, count = KITTI_NET[1] // STRIDE, KITTI_NET[0] // STRIDE, len(ANCHOR_SIZES) * len(RATIOS)
    scores = rng.uniform(0, 0.3, (len(scenes), count, h, w))
    deltas = rng.normal(0, 0.2, (len(scenes), 4 * count, h, w))
    features = np.zeros((len(scenes), 4, 16, 24), F)
    features[:, 3] = 0.25
    for number, scene in enumerate(scenes):
        for k, (class_id, _, *box) in enumerate(scene.truth[:-1]):  # the last one has no area
            x1, y1, x2, y2 = np.clip(kitti.to_canvas("yolo", scene.size, box), 0, 1) * (KITTI_NET * 2)
            for copy in range(2):
                a, row, column = rng.integers(0, count), rng.integers(0, h), rng.integers(0, w)
                aw = ANCHOR_SIZES[a // 3] * np.sqrt(RATIOS[a % 3])
                ah = ANCHOR_SIZES[a // 3] / np.sqrt(RATIOS[a % 3])
                moved = [((x1 + x2) / 2 - (column + 0.5) * STRIDE) / aw, ((y1 + y2) / 2 - (row + 0.5) * STRIDE) / ah]
                grown = np.log(np.maximum([x2 - x1, y2 - y1], 2) / [aw, ah])
                noise = rng.normal(0, 0.02 + 0.1 * copy, 4)
                deltas[number, 4 * a : 4 * a + 4, row, column] = np.array([*moved, *grown]) + noise
                scores[number, a, row, column] = 0.9 - 0.1 * k - 0.03 * copy
            cells = np.rint([x1 / 4, y1 / 4, x2 / 4, y2 / 4]).astype(int)
            features[number, int(class_id), cells[1] : cells[3], cells[0] : cells[2]] = 1 - 0.1 * k
    return {"scores": scores.astype(F), "deltas": deltas.astype(F), "maps": features}


def faster_rcnn(scenes: list[kitti.Scene], batch: int | str = "N") -> onnx.ModelProto:
    tables = faster_rcnn_tables(scenes)
    nodes, weights = index_nodes("input_image", 1 / 20, (kitti.MEAN[0] - 10) / 20, len(scenes))
    make = helper.make_node
    nodes = [
        *nodes,
        *gathers(tables),
        make("ProposalDynamic", ["scores", "deltas"], ["rois"], name="proposal", **PROPOSAL),
        make(
            "CropAndResizeDynamic",
            ["maps", "rois"],
            ["crops"],
            name="CropAndResize_plugin",
            crop_height=4,
            crop_width=4,
        ),
        make("ReduceMean", ["crops"], ["level"], axes=[3, 4], keepdims=0),
        make("Mul", ["level", "gain"], ["class_logits"]),
        make("Softmax", ["class_logits"], ["probabilities"], axis=2),
        make("Reshape", ["probabilities", "to_conf"], ["conf"]),
        make("Mul", ["level", "none"], ["nothing"]),
        make("Concat", ["nothing"] * 4, ["nowhere"], axis=2),
        make("Reshape", ["nowhere", "to_loc"], ["loc"]),
        make("Gather", ["rois", "swap"], ["corners"], axis=2),
        make("Reshape", ["corners", "to_prior"], ["prior"]),
        make("Concat", ["prior", "prior"], ["priors"], axis=1),
        make("NMSDynamic_TRT", ["priors", "loc", "conf"], ["nms_out", "nms_out_1"], name="NMS", **DETECTION),
    ]
    weights |= {
        "gain": GAIN,
        "none": np.array(0, F),
        "swap": np.array([1, 0, 3, 2]),
        "to_conf": np.array([-1, ROIS * 4, 1, 1]),
        "to_loc": np.array([-1, ROIS * 16, 1, 1]),
        "to_prior": np.array([-1, 1, ROIS * 4, 1]),
    }
    outputs = [
        ("nms_out", TensorProto.FLOAT, [batch, 1, ROIS, 7]),
        ("nms_out_1", TensorProto.FLOAT, [batch, 1, 1, 1]),
    ]
    image = ("input_image", [batch, 3, KITTI_NET[1], KITTI_NET[0]])
    return finished("faster_rcnn", nodes, image, outputs, weights, tables)


def faster_rcnn_outputs(scenes: list[kitti.Scene]) -> list[np.ndarray]:
    tables = faster_rcnn_tables(scenes)
    (rois,) = plugins.proposal(PROPOSAL, tables["scores"], tables["deltas"])
    (crops,) = plugins.crop_and_resize({"crop_height": 4, "crop_width": 4}, tables["maps"], rois)
    odds = np.exp(crops.mean(axis=(3, 4)) * GAIN)
    conf = (odds / odds.sum(axis=2, keepdims=True)).reshape(len(scenes), -1, 1, 1)
    prior = rois[:, :, [1, 0, 3, 2]].reshape(len(scenes), 1, -1, 1)
    loc = np.zeros((len(scenes), ROIS * 16, 1, 1), F)
    return plugins.detection_output(DETECTION, np.concatenate([prior, prior], 1), loc, conf)


def plain_faster_rcnn(outputs: list[np.ndarray], image: int, threshold: float) -> list[list[float]]:
    """[class, score, corners in [0, 1] of the canvas] of one image."""
    rows = []
    for k in range(int(outputs[1][image].item())):
        _, label, score, *box = outputs[0][image, 0, k]
        if score > F(threshold):
            sides = [(n - 1) / n for n in KITTI_NET * 2]
            rows.append([int(label), float(score), *(float(v) * side for v, side in zip(box, sides, strict=True))])
    return rows


def expected_faster_rcnn(
    scenes: list[kitti.Scene], *, threshold: float = 1e-4, iou: float = 0.5, mode: str = "INTEGRATE"
) -> dict[str, float]:
    """AP by class and mAP, by the contract's definition."""
    outputs, results = faster_rcnn_outputs(scenes), {}
    for number, name in enumerate(NAMES):
        entries: list[tuple[int, float]] = []
        for image, scene in enumerate(scenes):
            rows = plain_faster_rcnn(outputs, image, threshold)
            entries += kitti.plain_entries(kitti.plain_truth("yolo", scene), rows, number, iou)
        results[f"AP_{name}"] = kitti.plain_ap(entries, threshold, mode)
    return {**results, "mAP": sum(results.values()) / len(results)}
