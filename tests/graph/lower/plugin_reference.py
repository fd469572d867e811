"""What each plugin computes, written as plain loops from its published description; slow and obvious on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

F = np.float32


def iou(a, b, normalized=True, caffe=True):
    a, b = (np.concatenate([np.minimum(v[:2], v[2:]), np.maximum(v[:2], v[2:])]) for v in (a, b))
    extra = F(0 if normalized else 1)
    area = lambda v: (v[2] - v[0] + extra) * (v[3] - v[1] + extra)  # noqa: E731
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if not normalized and caffe:
        w, h = (F(1), F(1)) if w < 0 or h < 0 else (w + F(1), h + F(1))
    if w <= 0 or h <= 0:
        return F(0)
    return w * h / (area(a) + area(b) - w * h)


def greedy(boxes, order, struck: Callable[[int, int], bool]):
    kept: list[int] = []
    for index in order:
        if not any(struck(k, index) for k in kept):
            kept.append(index)
    return kept


def greedy_rows(boxes, order, threshold, keep):
    """As greedy, with the overlaps of one box computed at once; corners are in order already."""
    kept, order = [], np.asarray(order, int)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order) and len(kept) < keep:
        best, order = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[order, 2:], boxes[best, 2:]) - np.maximum(boxes[order, :2], boxes[best, :2])
        common = sides.clip(0).prod(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            order = order[~(common / (area[order] + area[best] - common) > threshold)]
    return kept


def stable(scores):
    return np.argsort(-np.asarray(scores), kind="stable")


def per_class_nms(boxes, scores, attrs, threshold, iou_threshold, caffe):
    """boxes (N, 1 or C, 4), scores (N, C) -> list of (score, class, anchor) in output order."""
    found = []
    for c in range(scores.shape[1]):
        if c == attrs["backgroundLabelId"]:
            continue
        own = boxes[:, min(c, boxes.shape[1] - 1)]
        order = [i for i in stable(scores[:, c]) if scores[i, c] > F(threshold)][: attrs["topK"]]
        overlap = lambda k, i, own=own: (  # noqa: E731
            iou(own[k], own[i], bool(attrs["isNormalized"]), caffe) > F(iou_threshold)
        )
        found += [(scores[i, c], c, i) for i in greedy(own, order, overlap)]
    order = stable([f[0] for f in found])[: attrs["keepTopK"]] if found else []
    return [found[i] for i in order]


def batched_nms(attrs, boxes, scores):
    batch, keep = len(boxes), attrs["keepTopK"]
    scores = scores.reshape(*boxes.shape[:2], -1)
    out = [np.zeros((batch, 1), np.int32), np.zeros((batch, keep, 4), F), np.zeros((batch, keep), F)]
    labels = np.full((batch, keep), -1, F)
    for b in range(batch):
        rows = per_class_nms(
            boxes[b],
            scores[b],
            attrs,
            attrs["scoreThreshold"],
            attrs["iouThreshold"],
            bool(attrs.get("caffeSemantics", 1)),
        )
        out[0][b] = len(rows)
        for k, (score, c, i) in enumerate(rows):
            box = boxes[b, i, min(c, boxes.shape[2] - 1)]
            out[1][b, k] = box.clip(0, 1) if attrs.get("clipBoxes", 1) else box
            out[2][b, k], labels[b, k] = score, c
    return [*out, labels]


def detection_output(attrs, *inputs, static=False):
    loc, conf, prior = (inputs[i] for i in attrs["inputOrder"])
    batch, classes, keep = len(conf), attrs["numClasses"], attrs["keepTopK"]
    scores = conf.reshape(batch, -1, classes)
    if attrs["confSigmoid"]:
        scores = (1 / (1 + np.exp(-scores))).astype(F)
    count = scores.shape[1]
    sets = 1 if attrs["shareLocation"] else classes
    loc = loc.reshape(batch, count, sets, 4)
    prior = prior.reshape(batch, 2, count, 4)
    if static and attrs.get("isBatchAgnostic", 1):
        prior = np.broadcast_to(prior[:1], prior.shape)
    rows_out, counts = np.zeros((batch, 1, keep, 7), F), np.zeros((batch, 1, 1, 1), np.int32)
    for b in range(batch):
        p, v = prior[b, 0][:, None], prior[b, 1][:, None]
        size = p[..., 2:] - p[..., :2]
        centre = (p[..., :2] + p[..., 2:]) / 2
        code, own = attrs["codeType"], loc[b]
        if attrs["varianceEncodedInTarget"] and code != 3:
            v = np.ones_like(v)
        if code == 0:
            boxes = p + v * own
        elif code == 2:
            boxes = p + v * own * np.concatenate([size, size], -1)
        else:
            if code == 3:
                own = own[..., [1, 0, 3, 2]]
            c = v[..., :2] * own[..., :2] * size + centre
            s = np.exp(v[..., 2:] * own[..., 2:]) * size
            boxes = np.concatenate([c - s / 2, c + s / 2], -1)
        boxes = boxes.astype(F)
        rows = per_class_nms(boxes, scores[b], attrs, attrs["confidenceThreshold"], attrs["nmsThreshold"], True)
        rows_out[b, 0, :, 0], rows_out[b, 0, :, 1], counts[b] = b, -1, len(rows)
        for k, (score, c, i) in enumerate(rows):
            rows_out[b, 0, k] = [b, c, score, *boxes[i, min(c, sets - 1)].clip(0, 1)]
    return [rows_out, counts]


def ordered(v):
    return np.concatenate([np.minimum(v[..., :2], v[..., 2:]), np.maximum(v[..., :2], v[..., 2:])], -1)


def efficient_nms(attrs, boxes, scores, anchors=None):
    batch, count, classes = scores.shape
    keep = attrs["max_output_boxes"]
    boxes = boxes.reshape(batch, count, -1, 4)
    t = F(attrs["score_threshold"])
    if attrs["score_activation"]:
        t = F(math.log(t / (1 - t))) if t > 0 else F(-32768)
    out = [
        np.zeros((batch, 1), np.int32),
        np.zeros((batch, keep, 4), F),
        np.zeros((batch, keep), F),
        np.zeros((batch, keep), np.int32),
    ]
    for b in range(batch):
        own = np.broadcast_to(boxes[b], (count, classes, 4))
        if anchors is not None:
            a = anchors[b % len(anchors)][:, None]
            if attrs["box_coding"]:
                own = np.concatenate([own[..., :2] * a[..., 2:] + a[..., :2], a[..., 2:] * np.exp(own[..., 2:])], -1)
            else:
                own = ordered(own) + ordered(a)
        if attrs["box_coding"]:
            own = np.concatenate([own[..., :2] - own[..., 2:] / 2, own[..., :2] + own[..., 2:] / 2], -1)
        own = own.reshape(-1, 4).astype(F)
        flat = scores[b].reshape(-1)
        order = [i for i in stable(flat) if flat[i] >= t and i % classes != attrs["background_class"]][:4096]
        overlap = lambda k, i, own=own: (  # noqa: E731
            (attrs["class_agnostic"] or k % classes == i % classes) and iou(own[k], own[i]) >= F(attrs["iou_threshold"])
        )
        kept = greedy(own, order, overlap)[:keep]
        out[0][b] = len(kept)
        for k, i in enumerate(kept):
            score = 1 / (1 + np.exp(-flat[i])) if attrs["score_activation"] else flat[i]
            out[1][b, k], out[2][b, k], out[3][b, k] = own[i], score, i % classes
    return out


def efficient_nms_onnx(attrs, boxes, scores):
    batch, keep, classes = len(boxes), attrs["max_output_boxes_per_class"], scores.shape[2]
    full = {
        "score_threshold": attrs["score_threshold"],
        "iou_threshold": attrs["iou_threshold"],
        "max_output_boxes": keep,
        "background_class": -1,
        "score_activation": 0,
        "class_agnostic": 0,
        "box_coding": attrs["center_point_box"],
    }
    numbered = scores
    count, _, kept_scores, kept_classes = efficient_nms(full, boxes, numbered)
    rows = [
        (b, c, int(np.flatnonzero(numbered[b, :, c] == s)[0]))
        for b in range(batch)
        for s, c in zip(kept_scores[b, : count[b, 0]], kept_classes[b], strict=False)
    ]
    assert classes >= 1
    rows += [rows[-1] if rows else (-1, -1, -1)] * (batch * keep - len(rows))
    return [np.asarray(rows, np.int32)]


def proposal(attrs, scores, deltas):
    batch, anchors, rows, columns = scores.shape
    height, width, stride = attrs["input_height"], attrs["input_width"], attrs["rpn_stride"]
    out = np.zeros((batch, attrs["post_nms_top_n"], 4, 1), F)
    shapes = [
        (F(s) * np.sqrt(F(r)), F(s) / np.sqrt(F(r))) for s in attrs["anchor_sizes"] for r in attrs["anchor_ratios"]
    ]
    for b in range(batch):
        boxes, values = [], []
        for a in range(anchors):
            for row in range(rows):
                for column in range(columns):
                    tx, ty, tw, th = deltas[b, 4 * a : 4 * a + 4, row, column]
                    w, h = shapes[a]
                    x, y = F((column + 0.5) * stride) + w * tx, F((row + 0.5) * stride) + h * ty
                    w, h = w * np.exp(tw), h * np.exp(th)
                    box = np.asarray([x - w / 2, y - h / 2, x + w / 2, y + h / 2], F)
                    box = np.clip(box, 0, np.asarray([width - 1, height - 1, width - 1, height - 1], F))
                    small = box[2] - box[0] <= attrs["roi_min_size"] or box[3] - box[1] <= attrs["roi_min_size"]
                    boxes.append(box)
                    values.append(-np.inf if small else scores[b, a, row, column])
        order = stable(values)[: attrs["pre_nms_top_n"]]
        overlap = lambda k, i, boxes=boxes: (  # noqa: E731
            plus_one_iou(boxes[k], boxes[i]) > F(attrs["nms_iou_threshold"])
        )
        for k, i in enumerate(greedy(boxes, order, overlap)[: attrs["post_nms_top_n"]]):
            x1, y1, x2, y2 = boxes[i]
            out[b, k, :, 0] = [y1 / (height - 1), x1 / (width - 1), y2 / (height - 1), x2 / (width - 1)]
    return [out]


def plus_one_iou(a, b):
    w = max(F(0), min(a[2], b[2]) - max(a[0], b[0]) + F(1))
    h = max(F(0), min(a[3], b[3]) - max(a[1], b[1]) + F(1))
    area = lambda v: (v[2] - v[0] + F(1)) * (v[3] - v[1] + F(1))  # noqa: E731
    return w * h / (area(a) + area(b) - w * h)


def bilinear(feature, y, x):
    """feature (C, H, W) at one position inside."""
    y0, x0 = math.floor(y), math.floor(x)
    y1, x1 = min(y0 + 1, feature.shape[1] - 1), min(x0 + 1, feature.shape[2] - 1)
    fy, fx = y - y0, x - x0
    top = feature[:, y0, x0] * (1 - fx) + feature[:, y0, x1] * fx
    bottom = feature[:, y1, x0] * (1 - fx) + feature[:, y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def crop_and_resize(attrs, feature, rois):
    batch, channels, height, width = feature.shape
    ch, cw = attrs["crop_height"], attrs["crop_width"]
    rois = rois.reshape(batch, -1, 4)
    out = np.zeros((batch, rois.shape[1], channels, ch, cw), F)

    def position(low, high, size, crop, i):
        if crop == 1:
            return F(0.5) * (low + high) * (size - 1)
        return low * F(size - 1) + F(i) * ((high - low) * F(size - 1) / F(crop - 1))

    for b, r, i, j in np.ndindex(batch, rois.shape[1], ch, cw):
        y1, x1, y2, x2 = rois[b, r]
        y, x = position(y1, y2, height, ch, i), position(x1, x2, width, cw, j)
        if 0 <= y <= height - 1 and 0 <= x <= width - 1:
            out[b, r, :, i, j] = bilinear(feature[b], y, x)
    return [out]


def decode_mask_rcnn(delta, box, divisors, height, width):
    dy, dx, dh, dw = delta / np.asarray(divisors, F)
    h, w = box[2] - box[0] + 1, box[3] - box[1] + 1
    yc, xc = box[0] + h / 2 + dy * h, box[1] + w / 2 + dx * w
    h, w = np.exp(min(dh, F(math.log(1000 / 16)))) * h, np.exp(min(dw, F(math.log(1000 / 16)))) * w
    y1, x1 = yc - h / 2, xc - w / 2
    new = np.asarray([y1, x1, y1 + h - 1, x1 + w - 1], F)
    return np.clip(new, 0, np.asarray([height - 1, width - 1, height - 1, width - 1], F))


def multilevel_propose(attrs, *inputs):
    _, height, width = attrs["image_size"]
    keep, batch = attrs["keep_topk"], len(inputs[0])
    out = np.zeros((batch, keep, 4), F)
    for b in range(batch):
        found = []
        for n, level in enumerate(range(2, 7)):
            deltas, scores = inputs[2 * n][b].reshape(-1, 4), inputs[2 * n + 1][b].reshape(-1)
            stride, base = 2**level, 8 * 2**level
            anchors = []
            for row in range(height // stride):
                for column in range(width // stride):
                    for aw, ah in ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)):
                        y, x = (row + 0.5) * stride, (column + 0.5) * stride
                        anchors.append([y - ah * base / 2, x - aw * base / 2, y + ah * base / 2, x + aw * base / 2])
            boxes = [
                decode_mask_rcnn(d, np.asarray(a, F), (1, 1, 1, 1), height, width)
                for d, a in zip(deltas, anchors, strict=True)
            ]
            order = [i for i in stable(scores)[: attrs["prenms_topk"]] if scores[i] >= F(attrs["fg_threshold"])]
            kept = greedy_rows(np.asarray(boxes), order, F(attrs["iou_threshold"]), keep)
            found += [(scores[i], boxes[i]) for i in kept]
        for k, i in enumerate(stable([f[0] for f in found])[:keep] if found else []):
            out[b, k] = found[i][1]
    return [out]


def multilevel_crop(attrs, rois, *maps):
    pooled, (_, height, width) = attrs["pooled_size"], attrs["image_size"]
    out = np.zeros((*rois.shape[:2], maps[0].shape[1], pooled, pooled), F)
    for b, r in np.ndindex(rois.shape[:2]):
        y1, x1, y2, x2 = rois[b, r]
        if not (0 <= y1 < y2 <= height and 0 <= x1 < x2 <= width):
            continue
        area = (y2 - y1) * (x2 - x1)
        level = sum(area > limit for limit in (12544, 50176, 200704, 802816))
        feature, scale = maps[level][b], F(2.0 ** -(level + 2))
        for i, j in np.ndindex(pooled, pooled):
            y = np.clip(y1 * scale + (i + F(0.5)) * ((y2 - y1) * scale / pooled), 0, feature.shape[1] - 1)
            x = np.clip(x1 * scale + (j + F(0.5)) * ((x2 - x1) * scale / pooled), 0, feature.shape[2] - 1)
            out[b, r, :, i, j] = bilinear(feature, y, x)
    return [out]


def pyramid_roi_align(attrs, rois, *maps):
    if attrs["legacy"]:
        attrs = {**attrs, "roi_coords_transform": -1, "sampling_ratio": 1, "roi_coords_plusone": 0}
        attrs |= {"roi_coords_swap": 1, "roi_coords_absolute": 0, "fpn_scale": 224 / math.sqrt(2)}
        attrs |= {"image_size": [1024, 1024]}
    pooled, mode, (height, width) = attrs["pooled_size"], attrs["roi_coords_transform"], attrs["image_size"]
    image = np.asarray([height, width], F)
    out = np.zeros((*rois.shape[:2], maps[0].shape[1], pooled, pooled), F)
    for b, r in np.ndindex(rois.shape[:2]):
        ends = rois[b, r].reshape(2, 2)
        if not attrs["roi_coords_swap"]:
            ends = ends[:, ::-1]
        low, high = ends.min(0), ends.max(0)
        if attrs["roi_coords_absolute"]:
            low, high = low.clip(0, image) / image, high.clip(0, image) / image
        low, high = low.clip(0, 1), high.clip(0, 1)
        area = (high - low + (1 / image if attrs["roi_coords_plusone"] else 0)).prod() * image.prod()
        level = sum(area > (attrs["fpn_scale"] / 2 * 2**k) ** 2 for k in range(3))
        feature = maps[level][b]
        size = np.asarray(feature.shape[1:]) - (1 if mode == -1 else 0)
        shift, offset = (0.5 if mode == 2 else 0), (0.5 if mode > 0 else 0)
        start, length = low * size - shift, (high - low) * size
        step = length / (pooled - 1 if mode == -1 else pooled)
        samples = [attrs["sampling_ratio"] or max(1, math.ceil(v / pooled)) for v in length]
        for i, j in np.ndindex(pooled, pooled):
            values = []
            for k in np.ndindex(*samples):
                at = start + step * ((i, j) + (np.asarray(k) + offset) / samples)
                values.append(bilinear(feature, *at.clip(0, np.asarray(feature.shape[1:]) - 1)))
            out[b, r, :, i, j] = np.mean(values, 0)
    return [out]


def generate_detection(attrs, deltas, scores, rois):
    batch, count = rois.shape[:2]
    classes, keep = attrs["num_classes"], attrs["keep_topk"]
    _, height, width = attrs["image_size"]
    deltas, scores = deltas.reshape(batch, count, classes, 4), scores.reshape(batch, count, classes)
    out = np.zeros((batch, keep, 6), F)
    out[..., 4] = -1
    for b in range(batch):
        label = scores[b, :, 1:].argmax(1) + 1
        best = scores[b][np.arange(count), label]
        boxes = [
            decode_mask_rcnn(deltas[b, i, label[i]], rois[b, i], (10, 10, 5, 5), height, width) for i in range(count)
        ]
        order = [i for i in stable(best) if best[i] >= F(attrs["score_threshold"]) and best[i] > F(0.01)]
        overlap = lambda k, i, boxes=boxes, label=label: (  # noqa: E731
            label[k] == label[i] and iou(boxes[k], boxes[i]) > F(attrs["iou_threshold"])
        )
        for k, i in enumerate(greedy(boxes, order, overlap)[:keep]):
            out[b, k] = [*boxes[i], label[i], best[i]]
    return [out]


def resize_nearest(attrs, x):
    scale = F(attrs["scale"])
    rows = [min(int(i / scale), x.shape[2] - 1) for i in range(int(x.shape[2] * scale))]
    columns = [min(int(i / scale), x.shape[3] - 1) for i in range(int(x.shape[3] * scale))]
    return [x[:, :, rows][:, :, :, columns]]


def deformable_attention(attrs, value, shapes, starts, locations, weights):
    batch, queries, heads, levels, points, _ = locations.shape
    out = np.zeros((batch, queries, heads, value.shape[3]))
    for b, q, m, level, p in np.ndindex(batch, queries, heads, levels, points):
        height, width = (int(v) for v in shapes[level])
        x, y = locations[b, q, m, level, p] * np.asarray([width, height]) - 0.5
        for row, column in ((math.floor(y) + i, math.floor(x) + j) for i in (0, 1) for j in (0, 1)):
            if 0 <= row < height and 0 <= column < width:
                share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[b, q, m, level, p]
                out[b, q, m] += share * value[b, starts[level] + row * width + column, m]
    return [out.astype(F)]


def pillar_scatter(attrs, features, coords, counts):
    height, width = attrs["dense_shape"]
    out = np.zeros((len(features), features.shape[2], height, width), F)
    for b, count in enumerate(counts):
        for i in range(count):
            out[b, :, coords[b, i, 2], coords[b, i, 3]] = features[b, i]
    return [out]


def decode_boxes(attrs, cls, box, direction):
    batch, rows, columns = cls.shape[:3]
    anchors = np.asarray(attrs["anchors"], F).reshape(-1, 4)
    low_x, low_y, _, high_x, high_y, _ = attrs["point_cloud_range"]
    count = len(anchors)
    out, found = np.zeros((batch, rows * columns * count, 9), F), np.zeros(batch, np.int32)
    for b, i, j, a in np.ndindex(batch, rows, columns, count):
        logits = cls[b, i, j].reshape(count, -1)[a]
        score = 1 / (1 + np.exp(-logits.max()))
        if not score >= F(attrs["score_thresh"]):
            continue
        t, d = box[b, i, j].reshape(count, 7)[a], direction[b, i, j].reshape(count, 2)[a]
        dx, dy, dz, angle = anchors[a]
        diagonal = math.hypot(dx, dy)
        x = t[0] * diagonal + low_x + j * (high_x - low_x) / (columns - 1)
        y = t[1] * diagonal + low_y + i * (high_y - low_y) / (rows - 1)
        z = t[2] * dz + dz / 2 + attrs["anchor_bottom_height"][a // 2]
        period = 2 * math.pi / attrs["num_dir_bins"]
        turned = t[6] + angle - attrs["dir_offset"]
        yaw = turned - math.floor(turned / period + attrs["dir_limit_offset"]) * period
        yaw += attrs["dir_offset"] + period * (0 if d[0] > d[1] else 1)
        row = [x, y, z, math.exp(t[3]) * dx, math.exp(t[4]) * dy, math.exp(t[5]) * dz, yaw, logits.argmax(), score]
        out[b, found[b]] = row
        found[b] += 1
    return [out, found]


def voxel_generator(attrs, points, counts):
    area, size = np.asarray(attrs["point_cloud_range"], F), np.asarray(attrs["voxel_size"], F)
    per_voxel, limit, depth = attrs["max_num_points_per_voxel"], attrs["max_voxels"], points.shape[2]
    columns = int(np.rint((area[3] - area[0]) / size[0]))
    voxels = np.zeros((len(points), limit, per_voxel, depth + 6), F)
    coords, pillars = np.zeros((len(points), limit, 4), np.int32), np.zeros(len(points), np.int32)
    for b, count in enumerate(counts):
        groups: dict[int, list[Any]] = {}
        for p in points[b, :count]:
            if (p[:3] >= area[:3]).all() and (p[:3] < area[3:]).all():
                column, row = (int(np.floor((p[k] - area[k]) / size[k])) for k in (0, 1))
                groups.setdefault(row * columns + column, []).append(p)
        pillars[b] = min(len(groups), limit)
        for v, cell in enumerate(sorted(groups)[:limit]):
            own = np.asarray(groups[cell][:per_voxel])
            row, column = divmod(cell, columns)
            coords[b, v] = [0, 0, row, column]
            centre = [(column + 0.5) * size[0] + area[0], (row + 0.5) * size[1] + area[1], area[2] + size[2] / 2]
            voxels[b, v, : len(own)] = np.concatenate(
                [own, own[:, :3] - own[:, :3].mean(0), own[:, :3] - np.asarray(centre, F)], 1
            )
    return [voxels, coords, pillars]


REFERENCE: dict[str, Callable[..., list[np.ndarray]]] = {
    "BatchedNMS_TRT": batched_nms,
    "BatchedNMSDynamic_TRT": batched_nms,
    "NMS_TRT": lambda attrs, *inputs: detection_output(attrs, *inputs, static=True),
    "NMSDynamic_TRT": detection_output,
    "EfficientNMS_TRT": efficient_nms,
    "EfficientNMS_ONNX_TRT": efficient_nms_onnx,
    "Proposal": proposal,
    "ProposalDynamic": proposal,
    "CropAndResize": crop_and_resize,
    "CropAndResizeDynamic": crop_and_resize,
    "ResizeNearest_TRT": resize_nearest,
    "ResizeNearestDynamic": resize_nearest,
    "MultilevelProposeROI_TRT": multilevel_propose,
    "MultilevelCropAndResize_TRT": multilevel_crop,
    "PyramidROIAlign_TRT": pyramid_roi_align,
    "GenerateDetection_TRT": generate_detection,
    "SpecialSlice_TRT": lambda _, x: [x[..., :4]],
    "MultiscaleDeformableAttnPlugin_TRT": deformable_attention,
    "VoxelGeneratorPlugin": voxel_generator,
    "PillarScatterPlugin": pillar_scatter,
    "DecodeBbox3DPlugin": decode_boxes,
}
