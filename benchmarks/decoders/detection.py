"""Detectors."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np

from benchmarks.decoders.rows import BATCH, GEOMETRY, Case, row
from nvidia_tao_deploy.transforms.transform import Geometry


def detr(queries: int, classes: int, keep: int) -> Case:
    """rtdetr, dino and their like: sigmoid, the best (query, class) pairs, boxes to the source image."""
    from nvidia_tao_deploy.predictions.detr import decode_detr

    rng = np.random.default_rng(0)
    logits = rng.normal(-4, 2, (BATCH, queries, classes)).astype(np.float32)
    boxes = rng.uniform(0.1, 0.9, (BATCH, queries, 4)).astype(np.float32)
    geometries = [GEOMETRY] * BATCH

    def plain() -> list[Any]:
        found = []
        for image in range(BATCH):
            pairs = []
            for query in range(queries):
                for label, logit in enumerate(logits[image, query].tolist()):
                    pairs.append((1 / (1 + math.exp(-logit)), query, label))
            pairs.sort(key=lambda pair: -pair[0])
            rows = []
            for score, query, label in pairs[:keep]:
                cx, cy, w, h = boxes[image, query].tolist()
                corners = ((cx - w / 2) * 640, (cy - h / 2) * 480, (cx + w / 2) * 640, (cy + h / 2) * 480)
                rows.append(
                    (*(min(max(c, 0.0), s) for c, s in zip(corners, (640, 480) * 2, strict=True)), score, label)
                )
            found.append(rows)
        return found

    return Case(lambda: list(decode_detr(logits, boxes, geometries, keep)), plain)


@row("rtdetr (300 queries, 80 classes)", "rtdetr", "deformable_detr")
def rtdetr() -> Case:
    """Few queries."""
    return detr(300, 80, 300)


@row("dino (900 queries, 91 classes)", "dino")
def dino() -> Case:
    """Many queries."""
    return detr(900, 91, 300)


@row("yolo_v4 (200 rows)", "yolo_v3", "yolo_v4", "yolo_v4_tiny")
def yolo() -> Case:
    """yolo_v3, yolo_v4: outputs of the batched NMS, 200 rows of which about half are above the threshold."""
    from nvidia_tao_deploy.families.yolo import decode_batched_nms

    rng = np.random.default_rng(0)
    scores = np.sort(rng.random((BATCH, 200)).astype(np.float32))[:, ::-1].copy()
    outputs = {
        "BatchedNMS": np.full((BATCH, 1), 200, np.int32),
        "BatchedNMS_1": rng.random((BATCH, 200, 4)).astype(np.float32),
        "BatchedNMS_2": scores,
        "BatchedNMS_3": rng.integers(0, 80, (BATCH, 200)).astype(np.float32),
    }
    names, geometries = [f"c{i}" for i in range(80)], [GEOMETRY] * BATCH

    def plain() -> list[Any]:
        found = []
        for image in range(BATCH):
            rows = []
            for line in range(int(outputs["BatchedNMS"][image, 0])):
                if (score := float(scores[image, line])) > 0.3:
                    box = outputs["BatchedNMS_1"][image, line]
                    x1, y1, x2, y2 = (float(value) * 640 for value in box)
                    x1, y1, x2, y2 = x1, y1 / (640 / 480), x2, y2 / (640 / 480)
                    label = int(outputs["BatchedNMS_3"][image, line])
                    rows.append((max(x1, 0.0), max(y1, 0.0), min(x2, 640.0), min(y2, 480.0), score, names[label]))
            found.append(rows)
        return found

    return Case(lambda: list(decode_batched_nms(outputs, geometries, names, 0.3, clip=True)), plain)


@row("ssd (200 rows)", "ssd", "dssd", "retinanet")
def ssd() -> Case:
    """ssd, dssd, retinanet: rows of 7 numbers, 200 of them."""
    from nvidia_tao_deploy.families.ssd import decode_detection_output

    rng = np.random.default_rng(0)
    rows = rng.random((BATCH, 1, 200, 7)).astype(np.float32)
    rows[..., 1] = rng.integers(1, 21, rows.shape[:-1])
    outputs = {"NMS": rows, "NMS_1": np.full((BATCH, 1, 1, 1), 200, np.int32)}
    names, geometries = [f"c{i}" for i in range(20)], [GEOMETRY] * BATCH

    def plain() -> list[Any]:
        found = []
        for image in range(BATCH):
            kept = []
            for line in rows[image, 0]:
                if float(line[2]) > 0.3:
                    x1, y1, x2, y2 = (min(max(round(float(value) * 640), 0), 640) for value in line[3:])
                    kept.append((x1, y1 / (640 / 480), x2, y2 / (640 / 480), float(line[2]), names[int(line[1]) - 1]))
            found.append(kept)
        return found

    return Case(lambda: list(decode_detection_output(outputs, geometries, names, 0.3)), plain)


@row("efficientdet (100 rows)", "efficientdet_tf1", "efficientdet_tf2")
def efficientdet() -> Case:
    """efficientdet: outputs of EfficientNMS, 100 rows."""
    from nvidia_tao_deploy.families.efficientdet import decode_efficient_nms

    rng = np.random.default_rng(0)
    outputs = {
        "num_detections": np.full((BATCH, 1), 100, np.int32),
        "detection_boxes": (rng.random((BATCH, 100, 4)) * 640).astype(np.float32),
        "detection_scores": rng.random((BATCH, 100)).astype(np.float32),
        "detection_classes": rng.integers(0, 90, (BATCH, 100)).astype(np.int32),
    }
    geometries = [GEOMETRY] * BATCH

    def plain() -> list[Any]:
        found = []
        for image in range(BATCH):
            rows = []
            for line in range(int(outputs["num_detections"][image, 0])):
                y1, x1, y2, x2 = (float(value) for value in outputs["detection_boxes"][image, line])
                corners = (x1, y1 / (640 / 480), x2, y2 / (640 / 480))
                clipped = tuple(min(max(c, 0.0), s) for c, s in zip(corners, (640, 480) * 2, strict=True))
                score, label = outputs["detection_scores"][image, line], outputs["detection_classes"][image, line]
                rows.append((*clipped, float(score), int(label) + 1))
            found.append(rows)
        return found

    return Case(lambda: list(decode_efficient_nms(outputs, geometries, 100, clip=True)), plain)


@row("detectnet_v2 (60x34, 3 classes, DBSCAN)", "detectnet_v2")
def detectnet() -> Case:
    """detectnet_v2: three classes on a grid of 60x34 with ten objects each, weighted DBSCAN."""
    from nvidia_tao_deploy.cv.detectnet_v2.decode import decode
    from nvidia_tao_deploy.cv.detectnet_v2.spec import Clustering

    rng = np.random.default_rng(0)
    rows, columns, classes, objects = 34, 60, 3, 10
    coverage = np.zeros((BATCH, classes, rows, columns), np.float32)
    offsets = np.zeros((BATCH, 4 * classes, rows, columns), np.float32)
    for image in range(BATCH):
        for channel in range(classes):
            for y, x in zip(rng.integers(2, rows - 3, objects), rng.integers(2, columns - 3, objects), strict=True):
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        coverage[image, channel, y + dy, x + dx] = 0.5 + 0.5 * rng.random()
                        sides = np.array([40 + dx * 16, 40 + dy * 16, 40 - dx * 16, 40 - dy * 16]) / 35
                        offsets[image, channel * 4 : channel * 4 + 4, y + dy, x + dx] = sides + rng.normal(0, 0.02, 4)
    geometry = Geometry((1920, 1080), (960, 544), (0.5, 544 / 1080))
    settings = Clustering(
        coverage_threshold=0.05,
        dbscan_eps=0.4,
        dbscan_min_samples=1,
        dbscan_confidence_threshold=0.5,
        minimum_bounding_box_height=4,
    )
    geometries = [geometry] * BATCH

    def distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0.0) * max(height, 0.0)
        sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return 1 - shared / (sum(sizes) - shared)

    def plain() -> list[Any]:
        found = []
        for image in range(BATCH):
            kept = []
            for channel in range(classes):
                cells = []
                for x in range(columns):
                    for y in range(rows):
                        score = float(coverage[image, channel, y, x])
                        if score > 0.05:
                            left, top, right, bottom = offsets[image, channel * 4 : channel * 4 + 4, y, x].tolist()
                            cx, cy = x * 16 + 0.5, y * 16 + 0.5
                            box = (cx - left * 35, cy - top * 35, cx + right * 35, cy + bottom * 35)
                            cells.append((box, score))
                near = [[j for j, b in enumerate(cells) if distance(a[0], b[0]) <= 0.4] for a in cells]
                cluster = [-1] * len(cells)
                count = 0
                for start in range(len(cells)):
                    if cluster[start] >= 0 or sum(cells[j][1] for j in near[start]) < 1:
                        continue
                    cluster[start], todo = count, [start]
                    while todo:
                        here = todo.pop()
                        if sum(cells[j][1] for j in near[here]) < 1:
                            continue
                        for j in near[here]:
                            if cluster[j] < 0:
                                cluster[j] = count
                                todo.append(j)
                    count += 1
                for number in range(count):
                    mine = [cells[j] for j in range(len(cells)) if cluster[j] == number]
                    total = sum(score for _, score in mine)
                    box = tuple(sum(b[i] * s for b, s in mine) / total for i in range(4))
                    if total > 0.5 and box[3] - box[1] > 4:
                        kept.append((*box, total, channel + 1))
            found.append(kept)
        return found

    return Case(lambda: list(decode(coverage, offsets, geometries, [settings] * classes)), plain)


@row("mask_rcnn (100 masks of 28x28)", "mask_rcnn")
def mask_rcnn() -> Case:
    """mask_rcnn: 100 detections with 28x28 masks of 91 classes."""
    from nvidia_tao_deploy.cv.mask_rcnn.decode import decode_masks

    rng = np.random.default_rng(0)
    rows = (rng.random((BATCH, 100, 6)) * 640).astype(np.float32)
    rows[..., 4] = rng.integers(1, 91, (BATCH, 100))
    logits = rng.normal(0, 2, (BATCH, 100, 91, 28, 28)).astype(np.float32)
    outputs = {"generate_detections": rows, "mask_fcn_logits/BiasAdd": logits}
    geometries = [GEOMETRY] * BATCH

    def plain() -> list[Any]:
        found = []
        for image in range(BATCH):
            kept = []
            for number, line in enumerate(rows[image].tolist()):
                y1, x1, y2, x2, label, score = line
                mask = logits[image, number, int(label)].tolist()
                probabilities = [[1 / (1 + math.exp(-value)) for value in line] for line in mask]
                kept.append((x1, y1 / (640 / 480), x2, y2 / (640 / 480), score, int(label), probabilities))
            found.append(kept)
        return found

    return Case(lambda: list(decode_masks(outputs, geometries)), plain)


@row("faster_rcnn (200 rows)", "faster_rcnn")
def faster_rcnn() -> Case:
    """Rows of the NMS, corners divided by the canvas's sides less one."""
    from nvidia_tao_deploy.cv.faster_rcnn import decode_rois

    rng = np.random.default_rng(0)
    rows = rng.random((BATCH, 1, 200, 7)).astype(np.float32)
    rows[..., 1] = rng.integers(0, 20, rows.shape[:-1])
    outputs = {"nms_out": rows, "nms_out_1": np.full((BATCH, 1, 1, 1), 200, np.int32)}
    names = [f"c{i}" for i in range(20)]

    def plain() -> list[Any]:
        found = []
        for image in range(BATCH):
            kept = []
            for line in rows[image, 0]:
                if float(line[2]) > 0.3:
                    x1, y1, x2, y2 = (float(value) * 639 for value in line[3:])
                    kept.append((x1, y1 / (640 / 480), x2, y2 / (640 / 480), float(line[2]), names[int(line[1])]))
            found.append(kept)
        return found

    return Case(lambda: list(decode_rois(outputs, [GEOMETRY] * BATCH, names, 0.3)), plain)


class Caption(NamedTuple):
    """What the decoders read of a prompt: two tokens for each of 80 classes, with a separator between."""

    spans: np.ndarray = np.stack([np.arange(80) * 3 + 1, np.arange(80) * 3 + 3], axis=1)


def grounded() -> tuple[dict[str, np.ndarray], list[Geometry]]:
    """Logits of 900 queries and 256 tokens, boxes, and geometries that know the caption."""
    from nvidia_tao_deploy.transforms.prompt import PromptGeometry

    rng = np.random.default_rng(0)
    outputs = {
        "pred_logits": rng.normal(-4, 2, (BATCH, 900, 256)).astype(np.float32),
        "pred_boxes": rng.uniform(0.1, 0.9, (BATCH, 900, 4)).astype(np.float32),
    }
    geometry = PromptGeometry((640, 480), (640, 640), (1.0, 640 / 480), prompt=Caption())  # type: ignore[arg-type]
    return outputs, [geometry] * BATCH


def plain_grounded(outputs: dict[str, np.ndarray], image: int, keep: int) -> list[tuple[Any, ...]]:
    """(query, box, score, class) of the best pairs; a class scores the mean of its tokens."""
    pairs = []
    for query, tokens in enumerate(outputs["pred_logits"][image].tolist()):
        probabilities = [1 / (1 + math.exp(-value)) for value in tokens]
        for label, (start, stop) in enumerate(Caption().spans.tolist()):
            pairs.append((sum(probabilities[start:stop]) / (stop - start), query, label))
    pairs.sort(key=lambda pair: -pair[0])
    rows = []
    for score, query, label in pairs[:keep]:
        cx, cy, w, h = outputs["pred_boxes"][image, query].tolist()
        corners = ((cx - w / 2) * 640, (cy - h / 2) * 480, (cx + w / 2) * 640, (cy + h / 2) * 480)
        clipped = tuple(min(max(c, 0.0), s) for c, s in zip(corners, (640, 480) * 2, strict=True))
        rows.append((query, clipped, score, label))
    return rows


@row("grounding_dino (900 queries, 256 tokens, 80 classes)", "grounding_dino")
def grounding_dino() -> Case:
    """Means of token probabilities, and the best pairs."""
    from nvidia_tao_deploy.families.grounding import decode

    outputs, geometries = grounded()
    tokens = SimpleNamespace(shape=(None, 900, 256))
    ports = SimpleNamespace(inputs={"input_ids": SimpleNamespace(shape=(None, 256))}, outputs={"pred_logits": tokens})
    run = decode(SimpleNamespace(model=SimpleNamespace(num_select=300)), ports, "evaluate")  # type: ignore[arg-type]
    return Case(lambda: run(outputs, geometries), lambda: [plain_grounded(outputs, 0, 300)], 1 / BATCH)


@row("mask_grounding_dino (as above, 30 masks of 200x200 to 640x480)", "mask_grounding_dino")
def mask_grounding_dino() -> Case:
    """And the masks of the best pairs; resizing is OpenCV's in both columns."""
    from nvidia_tao_deploy.cv.mask_grounding_dino.decode import decode_classes

    outputs, geometries = grounded()
    rng = np.random.default_rng(0)
    outputs["pred_masks"] = np.repeat(rng.normal(0, 2, (1, 900, 1, 200, 200)).astype(np.float32), BATCH, axis=0)

    def plain() -> list[Any]:
        found = []
        for query, *rest in plain_grounded(outputs, 0, 30):
            mask = cv2.resize(outputs["pred_masks"][0, query, 0], (640, 480), interpolation=cv2.INTER_LINEAR)
            found.append((*rest, [[value > 0 for value in line] for line in mask.tolist()]))
        return [found]

    return Case(lambda: list(decode_classes(outputs, geometries, 30, 0.0)), plain, 1 / BATCH)


@row("custom_vision (13x13 cells, 5 anchors, 20 classes)", "custom_vision")
def custom_vision() -> Case:
    """The anchor grid with its suppression; classification exports give probabilities."""
    from nvidia_tao_deploy.cv.custom_vision.decode import ANCHORS, decode_grid

    rng = np.random.default_rng(0)
    grid = rng.normal(0, 1, (BATCH, 5, 25, 13, 13)).astype(np.float32)
    grid[:, :, 4] = rng.normal(-6, 2.5, (BATCH, 5, 13, 13))
    geometry = Geometry((640, 480), (416, 416), (416 / 640, 416 / 480))

    def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared)

    def plain() -> list[Any]:
        found = []
        for image in grid.tolist():
            boxes = []
            for y in range(13):
                for x in range(13):
                    for (wide, high), channels in zip(ANCHORS.tolist(), image, strict=True):
                        dx, dy, w, h, logit, *classes = (channel[y][x] for channel in channels)
                        top = max(classes)
                        best = 1 / (1 + math.exp(-logit)) / sum(math.exp(value - top) for value in classes)
                        if best > 0.01:
                            cx, cy = (x + dx) / 13, (y + dy) / 13
                            w, h = math.exp(w) * wide / 13 / 2, math.exp(h) * high / 13 / 2
                            boxes.append(((cx - w, cy - h, cx + w, cy + h), best, classes.index(top)))
            boxes.sort(key=lambda each: -each[1])
            kept: list[Any] = []
            for each in boxes:
                if all(overlap(each[0], other[0]) <= 0.45 for other in kept):
                    kept.append(each)
            scaled = [tuple(c * s for c, s in zip(box, (640, 480) * 2, strict=True)) for box, _, _ in kept[:64]]
            found.append([tuple(min(max(c, 0), s) for c, s in zip(b, (640, 480) * 2, strict=True)) for b in scaled])
        return found

    return Case(lambda: decode_grid(grid.reshape(BATCH, -1, 13, 13), [geometry] * BATCH), plain)
