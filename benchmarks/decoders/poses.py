"""Poses of objects, and objects tracked over frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.decoders.rows import BATCH, Case, row
from nvidia_tao_deploy.transforms.transform import Geometry


@row("centerpose (100 candidates, about 60 above the threshold; without the pose)", "centerpose")
def centerpose() -> Case:
    """Candidates to the source image and soft-NMS; solving for the pose is OpenCV's."""
    from nvidia_tao_deploy.cv.centerpose.decode import candidates

    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (BATCH, 100, 2))
    outputs = {
        "scores": np.sort(rng.uniform(0.1, 0.6, (BATCH, 100, 1)).astype(np.float32), axis=1)[:, ::-1].copy(),
        "bboxes": np.concatenate([corners, corners + rng.uniform(5, 28, corners.shape)], axis=2).astype(np.float32),
        "obj_scale": rng.uniform(0.5, 1.5, (BATCH, 100, 3)).astype(np.float32),
        "kps_displacement_mean": rng.uniform(0, 128, (BATCH, 100, 16)).astype(np.float32),
        "kps_heatmap_mean": np.where(rng.random((BATCH, 100, 16)) < 0.3, -10000, 64).astype(np.float32),
    }
    geometries = [Geometry((640, 480), (512, 512), (0.8, 0.8), (0.0, 64.0))] * BATCH

    def source(x: float, y: float) -> tuple[float, float]:
        return x * 4 / 0.8, (y * 4 - 64) / 0.8

    def plain() -> list[Any]:
        found = []
        for image in range(BATCH):
            rows: list[list[Any]] = []
            for k in range(100):
                if (score := float(outputs["scores"][image, k, 0])) > 0.3:
                    x1, y1, x2, y2 = outputs["bboxes"][image, k].tolist()
                    points = []
                    for role in ("kps_displacement_mean", "kps_heatmap_mean"):
                        flat = outputs[role][image, k].tolist()
                        for x, y in zip(flat[::2], flat[1::2], strict=True):
                            points.append((x, y) if x == y == -10000 else source(x, y))
                    rows.append([score, (*source(x1, y1), *source(x2, y2)), points])
            kept = []
            while rows:
                one = rows.pop(max(range(len(rows)), key=lambda i: rows[i][0]))
                kept.append(one)
                a = one[1]
                for other in rows:
                    b = other[1]
                    wide, high = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
                    if wide > 0 and high > 0:
                        areas = sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
                        other[0] *= math.exp(-((wide * high / (areas - wide * high)) ** 2) / 0.5)
                rows = [line for line in rows if line[0] >= 0.3]
            found.append([line[0] for line in kept])
        return found

    return Case(lambda: [found.scores for found in candidates(outputs, geometries, (128, 128))], plain)


@row("sparse4d (900 queries, 7 classes, 600 instances kept, 300 detections)", "sparse4d")
def sparse4d() -> Case:
    """A sequence of frames: instances moved on, ids, detections."""
    from nvidia_tao_deploy.cv.sparse4d.spec import Inference, Model
    from nvidia_tao_deploy.cv.sparse4d.tracking import Frame, Tracker, objects

    rng = np.random.default_rng(0)
    anchors = rng.normal(0, 1, (BATCH, 1, 900, 11)).astype(np.float32)
    frames = [
        {
            "classification2": rng.normal(-2, 1.5, (1, 900, 7)).astype(np.float32),
            "quality2": rng.normal(0, 1, (1, 900, 2)).astype(np.float32),
            "prediction6": anchors[image],
            "output_cached_anchor": anchors[image],
            "output_cached_feature": np.zeros((1, 900, 256), np.float32),
        }
        for image in range(BATCH)
    ]
    settings, pose = Inference(), np.eye(4)

    def ours() -> list[Any]:
        tracker, found = Tracker(Model(), settings), []
        for image, outputs in enumerate(frames):
            tracker.start(Frame(0, 0.5 * image, pose))
            found.append(objects(outputs, tracker.finish(outputs), settings).scores)
        return found

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    def moved(a: list[float], change: list[list[float]]) -> list[float]:
        centre = [a[i] + a[8 + i] * 0.5 for i in range(3)]
        place = [sum(change[i][j] * centre[j] for j in range(3)) + change[i][3] for i in range(3)]
        cos, sin = (change[i][0] * a[7] + change[i][1] * a[6] for i in range(2))
        return [*place, *a[3:6], sin, cos, *(sum(change[i][j] * a[8 + j] for j in range(3)) for i in range(3))]

    def plain() -> list[Any]:
        found, next_id = [], 0
        cached: list[tuple[float, int, Any, list[float]]] = []
        for outputs in frames:
            fed = [(one[2], moved(one[3], pose.tolist())) for one in cached]
            logits, rows = outputs["classification2"][0].tolist(), outputs["prediction6"][0].tolist()
            raw = [max(map(sigmoid, line)) for line in logits]
            ids = [one[1] for one in cached] + [-1] * (900 - len(fed))
            for k in range(900):
                if ids[k] < 0 and raw[k] >= 0.2:
                    ids[k] = next_id
                    next_id += 1
            kept = [max(score, cached[k][0] * 0.8) if k < len(cached) else score for k, score in enumerate(raw)]
            best = sorted(range(900), key=lambda k: -kept[k])[:600]
            cached = [(kept[k], ids[k], outputs["output_cached_feature"][0, k], rows[k]) for k in best]
            quality = outputs["quality2"][0].tolist()
            chosen = sorted(range(900), key=lambda k: -raw[k])[:300]
            scored = sorted(((raw[k] * sigmoid(quality[k][0]), k) for k in chosen), key=lambda pair: -pair[0])
            lines = []
            for score, k in scored:
                if raw[k] >= 0.05:
                    a = rows[k]
                    box = (*a[:3], *map(math.exp, a[3:6]), math.atan2(a[6], a[7]), *a[8:])
                    lines.append((score, ids[k], logits[k].index(max(logits[k])), box))
            found.append([line[0] for line in lines])
        return found

    return Case(ours, plain)
