"""Segmentation and change: a class or a segment per pixel. Resizing is OpenCV's in both columns."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from benchmarks.decoders.rows import BATCH, Case, row
from nvidia_tao_deploy.transforms.transform import Geometry

SIZE = 512
SQUARE = Geometry((640, 480), (SIZE, SIZE), (SIZE / 640, SIZE / 480))


def best_class(scores: list[list[list[float]]]) -> list[list[int]]:
    """Per pixel of rows (C lists of rows) the index of the largest score, the lowest among ties."""
    found = []
    for lines in zip(*scores, strict=True):
        line = []
        for pixel in zip(*lines, strict=True):
            best = 0
            for index, value in enumerate(pixel):
                if value != value:
                    raise ValueError("NaN")
                if value > pixel[best]:
                    best = index
            line.append(best)
        found.append(line)
    return found


@row("unet (512x512, classes from the model)", "unet")
def unet() -> Case:
    """The model has taken the decision: classes are checked and stored small."""
    from nvidia_tao_deploy.cv.unet import decode_maps

    values = np.random.default_rng(0).integers(0, 20, (BATCH, SIZE, SIZE)).astype(np.int32)

    def plain() -> list[Any]:
        found = []
        for image in values:
            rows = []
            for line in image.tolist():
                for value in line:
                    if not 0 <= value < 20:
                        raise ValueError(value)
                rows.append(bytes(line))
            found.append(np.frombuffer(b"".join(rows), np.uint8).reshape(SIZE, SIZE))
        return found

    return Case(lambda: [m.class_ids for m in decode_maps(values, [SQUARE] * BATCH, 20, sigmoid=False)], plain)


@row("segformer (19 classes, 128x128 logits to 512x512)", "segformer")
def segformer() -> Case:
    """Logits stretched to the input's size, then the best class."""
    from nvidia_tao_deploy.predictions.masks import resized_logits
    from nvidia_tao_deploy.predictions.segmentation import argmax_map

    logits = np.random.default_rng(0).normal(0, 2, (2, 19, SIZE // 4, SIZE // 4)).astype(np.float32)

    def plain() -> list[Any]:
        stretched = [cv2.resize(plane, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for plane in logits[0]]
        return [best_class([plane[: SIZE // 4].tolist() for plane in stretched])]

    return Case(lambda: [argmax_map(resized_logits(image, (SIZE, SIZE)), 19) for image in logits], plain, 1 / 8)


@row("visual_changenet segment (2 classes, 256x256)", "visual_changenet")
def changenet() -> Case:
    """The larger of two logits per pixel."""
    from nvidia_tao_deploy.cv.visual_changenet.segment import class_maps

    logits = np.random.default_rng(0).normal(0, 2, (BATCH, 2, 256, 256)).astype(np.float32)
    return Case(lambda: class_maps({"output": logits}, []), lambda: [best_class(image.tolist()) for image in logits])


@row("mask2former semantic (150 classes, 512x512)", "mask2former")
def mask2former_semantic() -> Case:
    """The best of 150 planes."""
    from nvidia_tao_deploy.predictions.segmentation import argmax_map

    scores = np.random.default_rng(0).random((1, 150, SIZE, SIZE), np.float32)
    return Case(
        lambda: [argmax_map(image, 150) for image in scores],
        lambda: [best_class([plane[:16].tolist() for plane in scores[0]])],
        16 / SIZE,
    )


def discs(count: int) -> np.ndarray:
    """(count, SIZE, SIZE) float32 in [0, 1]: soft discs here and there."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    centres, radii = rng.uniform(0, SIZE, (count, 2)), rng.uniform(20, 120, count)
    return np.stack(
        [1 / (1 + np.exp((np.hypot(x - a, y - b) - r) / 4)) for (a, b), r in zip(centres, radii, strict=True)]
    )


@row("mask2former instance (100 masks of 512x512, 25 above the threshold)", "mask2former")
def mask2former_instance() -> Case:
    """Masks to the source image, and their boxes."""
    from nvidia_tao_deploy.predictions.queries import instances

    masks = (discs(100) > 0.5).astype(np.float32)
    scores, ids = np.linspace(0, 1, 100).astype(np.float32), np.arange(100)

    def plain() -> list[Any]:
        found = []
        for mask, score, label in zip(masks[::-1], scores[::-1].tolist(), ids[::-1].tolist(), strict=True):
            if score <= 0.75:
                continue
            cells = mask.tolist()
            xs, ys, placed = [], [], []
            for y in range(480):
                source = cells[int((y + 0.5) * SIZE / 480)]
                line = [source[int((x + 0.5) * SIZE / 640)] > 0.5 for x in range(640)]
                placed.append(line)
                inside = [x for x, value in enumerate(line) if value]
                xs += inside
                ys += [y] * bool(inside)
            box = (min(xs), min(ys), max(xs) + 1, max(ys) + 1) if xs else (0, 0, 0, 0)
            found.append((*box, score, label, placed))
        return [found]

    return Case(lambda: [instances(masks, scores, ids, SQUARE, 0.75)], plain)


@row("mask2former panoptic (100 queries of 512x512, 25 above the threshold)", "mask2former")
def mask2former_panoptic() -> Case:
    """Queries compete for pixels; segments that lose most of theirs are dropped."""
    from nvidia_tao_deploy.predictions.queries import panoptic_map

    masks = discs(100).astype(np.float32)
    scores, ids = np.linspace(0.3, 1, 100).astype(np.float32), np.arange(100) % 20
    weighted, isthing = masks * scores[:, None, None], [i % 2 == 0 for i in range(20)]
    least = float(scores[75])

    def ours() -> list[Any]:
        row = panoptic_map(
            weighted, masks, scores, ids, SQUARE, isthing=isthing, object_threshold=least, overlap_threshold=0.8
        )
        return [row.segment_ids]

    def plain() -> list[Any]:
        kept = [q for q, score in enumerate(scores.tolist()) if score >= least]
        shown, inside = [weighted[q].tolist() for q in kept], [masks[q].tolist() for q in kept]
        owner, owned, left, original = [], [0] * len(kept), [0] * len(kept), [0] * len(kept)
        for y in range(SIZE):
            line = []
            for x in range(SIZE):
                best = 0
                for k in range(len(kept)):
                    if shown[k][y][x] > shown[best][y][x]:
                        best = k
                    if inside[k][y][x] >= 0.5:
                        original[k] += 1
                owned[best] += 1
                left[best] += inside[best][y][x] >= 0.5
                line.append(best)
            owner.append(line)
        segment, of_stuff, count = [0] * len(kept), {}, 0
        for k, query in enumerate(kept):
            label = int(ids[query])
            if not (owned[k] and original[k] and left[k]) or owned[k] / original[k] < 0.8:
                continue
            if label in of_stuff:
                segment[k] = of_stuff[label]
                continue
            count += 1
            segment[k] = count
            if not isthing[label]:
                of_stuff[label] = count
        result = [
            [segment[k] if inside[k][y][x] >= 0.5 else 0 for x, k in enumerate(line)] for y, line in enumerate(owner)
        ]
        return [result]

    return Case(ours, plain)


@row("oneformer (150 queries of 128x128, 133 classes, 512x512)", "oneformer")
def oneformer() -> Case:
    """Sums over queries of class probability times mask probability."""
    from nvidia_tao_deploy.predictions.queries import semantic_map

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (150, 134)).astype(np.float32)
    masks = rng.normal(0, 4, (150, SIZE // 4, SIZE // 4)).astype(np.float32)

    def plain() -> list[Any]:
        classes = []
        for line in logits.tolist():
            odds = [math.exp(value - max(line)) for value in line]
            classes.append([value / sum(odds) for value in odds[:-1]])
        stretched = [cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)[0].tolist() for mask in masks]
        line = []
        for pixel in zip(*stretched, strict=True):
            inside = [1 / (1 + math.exp(-value)) for value in pixel]
            sums = [sum(a * b for a, b in zip(inside, column, strict=True)) for column in zip(*classes, strict=True)]
            line.append(sums.index(max(sums)))
        return [[line]]

    return Case(lambda: [semantic_map(logits, masks, (SIZE, SIZE))], plain, 1 / SIZE)
