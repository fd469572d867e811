"""Text: characters from time steps, regions from probability maps."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from benchmarks.decoders.rows import Case, row

TEXTS = 64


def steps(blank: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids (64, 25) of 37 classes, about half of them blank and runs of two, and probabilities."""
    rng = np.random.default_rng(0)
    ids = np.repeat(rng.integers(0, 37, (TEXTS, 13)), 2, axis=1)[:, :25]
    ids[:, ::4] = blank
    return ids, rng.uniform(0.5, 1, ids.shape).astype(np.float32)


def ctc(blank: int) -> Case:
    """Runs of equal ids, without the blank."""
    from nvidia_tao_deploy.predictions.text import Text, decode_ctc

    ids, probabilities = steps(blank)
    classes = [chr(ord("0") + i) for i in range(37)]

    def plain() -> list[Any]:
        found = []
        for row_ids, row_probabilities in zip(ids, probabilities, strict=True):
            text, kept, total, last = "", [], np.float32(1), -1
            for step in range(len(row_ids)):
                index, probability = int(row_ids[step]), row_probabilities[step]
                if not 0 <= index < len(classes) or not math.isfinite(probability):
                    raise ValueError(index)
                total *= probability
                if index != last and index != blank:
                    text += classes[index]
                    kept.append(probability)
                last = index
            found.append(Text(text, float(total), np.array(kept, np.float32)))
        return found

    return Case(lambda: decode_ctc(ids, probabilities, classes, blank), plain)


@row("lprnet (CTC, 25 steps, 64 plates)", "lprnet")
def lprnet() -> Case:
    """The blank is the last class."""
    return ctc(36)


@row("ocrnet (CTC, 25 steps, 64 words)", "ocrnet")
def ocrnet() -> Case:
    """The blank is the first class."""
    return ctc(0)


@row("ocrnet (attention, 26 steps, 64 words)", "ocrnet")
def attention() -> Case:
    """Everything before the end token."""
    from nvidia_tao_deploy.predictions.text import Text, decode_attention

    rng = np.random.default_rng(0)
    ids, probabilities = rng.integers(2, 38, (TEXTS, 26)), rng.uniform(0.5, 1, (TEXTS, 26)).astype(np.float32)
    ids[np.arange(TEXTS), rng.integers(3, 20, TEXTS)] = 1
    classes = ["[GO]", "[s]", *(chr(ord("0") + i) for i in range(36))]

    def plain() -> list[Any]:
        found = []
        for row_ids, row_probabilities in zip(ids, probabilities, strict=True):
            text, total, kept, ended = "", np.float32(1), [], False
            for step in range(len(row_ids)):
                index, probability = int(row_ids[step]), row_probabilities[step]
                if not 0 <= index < len(classes) or not math.isfinite(probability):
                    raise ValueError(index)
                ended = ended or index == 1
                if not ended:
                    total *= probability
                    kept.append(probability)
                    text += classes[index]
            found.append(Text(text, float(total), np.array(kept, np.float32)))
        return found

    return Case(lambda: decode_attention(ids, probabilities, classes, 1), plain)


@row("ocdnet (736x1280, 60 lines)", "ocdnet")
def ocdnet() -> Case:
    """Contours of the map, scored and grown; contours, rectangles and offsets are the libraries' in both columns."""
    import pyclipper
    import shapely

    from nvidia_tao_deploy.predictions.polygons import find_regions

    rng = np.random.default_rng(0)
    values = np.zeros((736, 1280), np.float32)
    for number in range(60):
        centre = (80 + number % 10 * 120 + float(rng.uniform(-9, 9)), 60 + number // 10 * 120)
        box = cv2.boxPoints((centre, (float(rng.uniform(60, 90)), 14), float(rng.uniform(-30, 30))))
        cv2.fillPoly(values, [box.astype(np.int32)], float(rng.uniform(0.4, 1)))

    def box_of(points: Any) -> tuple[list[list[float]], float]:
        rectangle = cv2.minAreaRect(points)
        a, b, c, d = sorted(cv2.boxPoints(rectangle).tolist(), key=lambda point: point[0])
        left, right = (a, b) if b[1] > a[1] else (b, a), (c, d) if d[1] > c[1] else (d, c)
        return [left[0], right[0], right[1], left[1]], min(rectangle[1])

    def plain() -> list[Any]:
        binary = np.array([[255 if value > 0.3 else 0 for value in line] for line in values.tolist()], np.uint8)
        found = []
        for contour in cv2.findContours(binary, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]:
            box, side = box_of(contour)
            if side < 3:
                continue
            x0, y0 = (max(math.floor(min(p[i] for p in box)), 0) for i in (0, 1))
            x1, y1 = (min(math.ceil(max(p[i] for p in box)), limit - 1) for i, limit in ((0, 1280), (1, 736)))
            mask = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.uint8)
            cv2.fillPoly(mask, [np.array([[int(x - x0), int(y - y0)] for x, y in box], np.int32)], 1)
            total = count = 0
            for line, inside in zip(values[y0 : y1 + 1, x0 : x1 + 1].tolist(), mask.tolist(), strict=True):
                for value, here in zip(line, inside, strict=True):
                    if here:
                        total, count = total + value, count + 1
            if total / count < 0.55:
                continue
            shape, offset = shapely.Polygon(box), pyclipper.PyclipperOffset(2.0, 0.25)
            offset.AddPath([[int(x), int(y)] for x, y in box], pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
            points = [point for path in offset.Execute(shape.area * 1.5 / shape.length) for point in path]
            grown, side = box_of(np.array(points, np.float32))
            if side >= 5:
                found.append((grown, total / count))
        return [found]

    return Case(lambda: [find_regions(values)[1]], lambda: [[score for _, score in plain()[0]]])
