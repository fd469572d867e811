"""Images/s of each family's decode at realistic sizes, and of the COCO evaluation, against plain references.

    python -m benchmarks.postprocess            # all of it, about half a minute
    python -m benchmarks.postprocess --images 5000 --only coco

Decoders are compared with the same arithmetic written as plain Python loops over boxes (both see the same outputs, and
the numbers of detections must agree); the COCO evaluation with pycocotools on the same detections, 12 numbers equal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.transforms.transform import Geometry

GEOMETRY = Geometry((640, 480), (640, 640), (1.0, 640 / 480))
BATCH = 8
Case = tuple[Callable[[], list[Any]], Callable[[], list[Any]]]


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="of the COCO evaluation")
    parser.add_argument("--detections", type=int, default=100, help="per image of the COCO evaluation")
    parser.add_argument("--only", help="one case, or coco")
    options = parser.parse_args()
    from benchmarks.pipeline import _machine

    figures: dict[str, Any] = {"machine": _machine(), "date": date.today().isoformat(), "decode_images_per_second": {}}
    for name, make in CASES.items():
        if options.only in (None, name):
            ours, plain = make()
            assert list(map(len_of, ours())) == list(map(len_of, plain())), name
            fast, slow = rate(ours), rate(plain)
            figures["decode_images_per_second"][name] = {
                "ours": round(fast),
                "plain": round(slow, 1),
                "gain": round(fast / slow, 1),
            }
    if options.only in (None, "coco"):
        figures["coco_evaluation"] = coco(options.images, options.detections)
    print(json.dumps(figures, indent=2))


def rate(run: Callable[[], list[Any]]) -> float:
    """Images/s, the best of three turns of at least 0.2 seconds or two runs."""
    best = 0.0
    for _ in range(3):
        began, runs = time.perf_counter(), 0
        while runs < 2 or time.perf_counter() - began < 0.2:
            run()
            runs += 1
        best = max(best, runs * BATCH / (time.perf_counter() - began))
    return best


def len_of(result: Any) -> int:
    """What must agree: the number of detections, or of scores."""
    return len(getattr(result, "scores", result))


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

    return lambda: list(decode_detr(logits, boxes, geometries, keep)), plain


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
            for row in range(int(outputs["BatchedNMS"][image, 0])):
                if (score := float(scores[image, row])) > 0.3:
                    box = outputs["BatchedNMS_1"][image, row]
                    x1, y1, x2, y2 = (float(value) * 640 for value in box)
                    x1, y1, x2, y2 = x1, y1 / (640 / 480), x2, y2 / (640 / 480)
                    label = int(outputs["BatchedNMS_3"][image, row])
                    rows.append((max(x1, 0.0), max(y1, 0.0), min(x2, 640.0), min(y2, 480.0), score, names[label]))
            found.append(rows)
        return found

    return lambda: list(decode_batched_nms(outputs, geometries, names, 0.3, clip=True)), plain


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
            for row in rows[image, 0]:
                if float(row[2]) > 0.3:
                    x1, y1, x2, y2 = (min(max(round(float(value) * 640), 0), 640) for value in row[3:])
                    kept.append((x1, y1 / (640 / 480), x2, y2 / (640 / 480), float(row[2]), names[int(row[1]) - 1]))
            found.append(kept)
        return found

    return lambda: list(decode_detection_output(outputs, geometries, names, 0.3)), plain


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
            for row in range(int(outputs["num_detections"][image, 0])):
                y1, x1, y2, x2 = (float(value) for value in outputs["detection_boxes"][image, row])
                corners = (x1, y1 / (640 / 480), x2, y2 / (640 / 480))
                clipped = tuple(min(max(c, 0.0), s) for c, s in zip(corners, (640, 480) * 2, strict=True))
                score, label = outputs["detection_scores"][image, row], outputs["detection_classes"][image, row]
                rows.append((*clipped, float(score), int(label) + 1))
            found.append(rows)
        return found

    return lambda: list(decode_efficient_nms(outputs, geometries, 100, clip=True)), plain


def detectnet() -> Case:
    """detectnet_v2: three classes on a grid of 60x34 with ten objects each, weighted DBSCAN."""
    from nvidia_tao_deploy.cv.detectnet_v2.decode import ClassClustering, decode

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
    settings = ClassClustering("DBSCAN", 0.05, 0.4, 1, 0.5, 4.0)
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

    return lambda: list(decode(coverage, offsets, geometries, [settings] * classes)), plain


def classification() -> Case:
    """classification_pyt: softmax over 1,000 classes."""
    from nvidia_tao_deploy.families.classification import softmax

    logits = np.random.default_rng(0).normal(0, 3, (BATCH, 1000)).astype(np.float32)

    def plain() -> list[Any]:
        found = []
        for row in logits:
            odds = [math.exp(value) for value in row.tolist()]
            total = sum(odds)
            found.append([value / total for value in odds])
        return found

    return lambda: list(softmax(logits)), plain


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
            for number, row in enumerate(rows[image].tolist()):
                y1, x1, y2, x2, label, score = row
                mask = logits[image, number, int(label)].tolist()
                probabilities = [[1 / (1 + math.exp(-value)) for value in line] for line in mask]
                kept.append((x1, y1 / (640 / 480), x2, y2 / (640 / 480), score, int(label), probabilities))
            found.append(kept)
        return found

    return lambda: list(decode_masks(outputs, geometries)), plain


CASES: dict[str, Callable[[], Case]] = {
    "rtdetr (300 queries, 80 classes)": lambda: detr(300, 80, 300),
    "dino (900 queries, 91 classes)": lambda: detr(900, 91, 300),
    "yolo_v4 (200 rows)": yolo,
    "ssd (200 rows)": ssd,
    "efficientdet (100 rows)": efficientdet,
    "detectnet_v2 (60x34, 3 classes, DBSCAN)": detectnet,
    "classification_pyt (1000 classes)": classification,
    "mask_rcnn (100 masks of 28x28)": mask_rcnn,
}


def coco(images: int, detections: int) -> dict[str, Any]:
    """Seconds of our evaluation and of pycocotools', and whether the 12 numbers agree to the last bit."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from nvidia_tao_deploy.data.coco import CocoDetection
    from nvidia_tao_deploy.metrics.coco import CocoMetric
    from nvidia_tao_deploy.predictions.types import Detections

    rng = np.random.default_rng(0)
    categories = [{"id": i + 1, "name": f"c{i}"} for i in range(80)]
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    predictions = []
    for image in range(images):
        document["images"].append({"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 480})
        truth = int(rng.integers(0, 15))
        corners = rng.uniform(0, 400, (truth, 2))
        sizes = rng.uniform(8, 200, (truth, 2))
        labels = rng.integers(1, 81, truth)
        for (x, y), (w, h), label in zip(corners.tolist(), sizes.tolist(), labels.tolist(), strict=True):
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        hits = np.concatenate([corners, corners + sizes], axis=1) + rng.normal(0, 6, (truth, 4))
        noise = rng.uniform(0, 400, (detections - truth, 2))
        boxes = np.concatenate([hits, np.concatenate([noise, noise + rng.uniform(8, 200, noise.shape)], axis=1)])
        classes = np.concatenate([labels, rng.integers(1, 81, detections - truth)])
        predictions.append(Detections(boxes, rng.random(detections), classes))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(document))
        for image in document["images"]:
            (Path(folder) / image["file_name"]).touch()
        dataset = CocoDetection(path, Path(folder))
        samples = [dataset[i] for i in range(len(dataset))]
        began = time.perf_counter()
        metric = CocoMetric(dataset)
        for sample in samples:
            metric.update(sample, predictions[int(sample.id)])
        ours = metric.stats()
        fast = time.perf_counter() - began

        truth_set = COCO(str(path))
        began = time.perf_counter()
        rows = [
            np.column_stack(
                [
                    np.full(len(p), i),
                    p.boxes_xyxy[:, :2],
                    p.boxes_xyxy[:, 2:] - p.boxes_xyxy[:, :2],
                    p.scores,
                    p.class_ids,
                ]
            )
            for i, p in enumerate(predictions)
        ]
        evaluation = COCOeval(truth_set, truth_set.loadRes(np.concatenate(rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        slow = time.perf_counter() - began
    return {
        "images": images,
        "detections_per_image": detections,
        "seconds": round(fast, 2),
        "images_per_second": round(images / fast),
        "pycocotools_seconds": round(slow, 2),
        "gain": round(slow / fast, 1),
        "equal_to_the_last_bit": bool(np.array_equal(ours, evaluation.stats)),
    }


if __name__ == "__main__":
    main()
