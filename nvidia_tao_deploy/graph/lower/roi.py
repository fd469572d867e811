"""Plugins of two-stage detectors: proposals, crops and the final detections."""

from __future__ import annotations

import math

import numpy as np

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.graph.lower.emit import FLOAT, CannotLowerError, Emitter, Operand, Tensor
from nvidia_tao_deploy.graph.lower.node import PluginNode
from nvidia_tao_deploy.graph.lower.sample import bilinear, level_by_area, outer, per_roi, pyramid_rows, sample_rois
from nvidia_tao_deploy.graph.lower.suppress import NOTHING, Overlap, greedy

# The score of a proposal that is too small: below every real one, but still a candidate.
LAST_RESORT = -3.0e38
MAX_GROWTH = math.log(1000 / 16)  # largest exponent of a box's growth in the Mask R-CNN plugins
MASK_RCNN_LEVELS = range(2, 7)
MINIMUM_DETECTION_SCORE = 0.01  # GenerateDetection drops what is not above, whatever its threshold


def lower_proposal(g: Emitter, node: PluginNode) -> list[Tensor]:
    """Proposal and ProposalDynamic: (N, post_nms_top_n, 4, 1), rows y1, x1, y2, x2 in 0..1."""
    node.expect_inputs(2)
    scores, deltas = node.inputs
    _, anchors, rows, columns = g.fixed(scores, 4)
    height, width = node.number("input_height"), node.number("input_width")
    centre_x, centre_y, anchor_w, anchor_h = _proposal_anchors(node, anchors, rows, columns)
    total = anchors * rows * columns
    wanted = min(node.integer("pre_nms_top_n"), total)
    keep = node.integer("post_nms_top_n")

    flat = g.reshape(g.transpose(g.reshape(deltas, -1, anchors, 4, rows * columns), 0, 1, 3, 2), -1, total, 4)
    tx, ty, tw, th = (g.reshape(part, -1, total) for part in g.columns(flat, 4, axis=2))
    x, y = g("Add", g("Mul", tx, anchor_w), centre_x), g("Add", g("Mul", ty, anchor_h), centre_y)
    half_w = g("Mul", g("Mul", g("Exp", tw), anchor_w), 0.5)
    half_h = g("Mul", g("Mul", g("Exp", th), anchor_h), 0.5)
    x1, x2 = (g.clamp(g(op, x, half_w), 0.0, width - 1) for op in ("Sub", "Add"))
    y1, y2 = (g.clamp(g(op, y, half_h), 0.0, height - 1) for op in ("Sub", "Add"))
    smallest = node.number("roi_min_size")
    large = g("And", g("Greater", g("Sub", x2, x1), smallest), g("Greater", g("Sub", y2, y1), smallest))
    ranked, index = g.top_k(g("Where", large, g.reshape(scores, -1, total), LAST_RESORT), wanted, NOTHING)
    boxes = g.concat([g.reshape(part, -1, total, 1) for part in (x1, y1, x2, y2)], 2)
    boxes = g.take_rows(boxes, index, 4)
    overlap = Overlap(node.number("nms_iou_threshold"), plus_one=True, plus_one_intersection=True)
    chosen = greedy(g, boxes, ranked, wanted, keep, overlap)
    picked = chosen.rows(g, boxes)
    relative = g("Div", picked, np.asarray([width - 1, height - 1, width - 1, height - 1], np.float32))
    swapped = g("Gather", relative, np.asarray([1, 0, 3, 2]), axis=2)
    return [g.reshape(swapped, -1, keep, 4, 1)]


def _proposal_anchors(node: PluginNode, anchors: int, rows: int, columns: int) -> tuple[Array, Array, Array, Array]:
    """Centre x, y, width and height of every anchor, (1, anchors * rows * columns) float32 each."""
    sizes, ratios = node.numbers("anchor_sizes"), node.numbers("anchor_ratios")
    if len(sizes) * len(ratios) != anchors:
        raise CannotLowerError(f"{len(sizes)} sizes and {len(ratios)} ratios do not make its {anchors} anchors")
    stride = node.number("rpn_stride")
    root = np.sqrt(np.asarray(ratios, np.float32))
    size = np.asarray(sizes, np.float32)[:, None]
    y, x = np.meshgrid((np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, indexing="ij")
    shape = (anchors, rows, columns)

    def spread(values: Array) -> Array:
        return np.broadcast_to(values, shape).reshape(1, -1).astype(np.float32)

    width, height = (size * root).reshape(-1, 1, 1), (size / root).reshape(-1, 1, 1)
    return spread(x), spread(y), spread(width), spread(height)


def lower_crop_and_resize(g: Emitter, node: PluginNode) -> list[Tensor]:
    """CropAndResize and CropAndResizeDynamic: feature (N, C, H, W), rois (N, R, 4, 1) -> (N, R, C, ch, cw)."""
    node.expect_inputs(2)
    feature, rois = node.inputs
    crop_h, crop_w = node.integer("crop_height"), node.integer("crop_width")
    count = g.fixed(rois, (3, 4))[1]
    pyramid = pyramid_rows(g, [feature])
    ((height, width),) = pyramid.sizes
    y1, x1, y2, x2 = g.columns(g.reshape(rois, -1, count, 4), 4, axis=2)
    y = _crop_positions(g, y1, y2, height, crop_h)  # (N, R, ch)
    x = _crop_positions(g, x1, x2, width, crop_w)
    inside = g("And", _within(g, g.unsqueeze(y, 3), height), _within(g, g.unsqueeze(x, 2), width))
    y_all, x_all = outer(
        g, g.clamp(y, 0.0, float(height - 1)), g.clamp(x, 0.0, float(width - 1)), count, crop_h, crop_w
    )
    samples = bilinear(g, pyramid, y_all, x_all, 0, width, float(height - 1), float(width - 1))
    samples = g.reshape(samples, -1, count, crop_h * crop_w, pyramid.channels)
    kept = g("Where", g.reshape(inside, -1, count, crop_h * crop_w, 1), samples, 0.0)
    return [g.reshape(g.transpose(kept, 0, 1, 3, 2), -1, count, pyramid.channels, crop_h, crop_w)]


def _crop_positions(g: Emitter, low: Tensor, high: Tensor, size: int, crop: int) -> Tensor:
    """(N, R, crop) sample positions in pixels from normalised ends (N, R, 1): both ends are sampled."""
    if crop == 1:
        return g("Mul", g("Mul", g("Add", low, high), 0.5), float(size - 1))
    step = g("Div", g("Mul", g("Sub", high, low), float(size - 1)), float(crop - 1))
    return g("Add", g("Mul", low, float(size - 1)), g("Mul", step, np.arange(crop, dtype=np.float32)))


def _within(g: Emitter, position: Tensor, size: int) -> Tensor:
    return g("Not", g("Or", g("Less", position, 0.0), g("Greater", position, float(size - 1))))


def lower_multilevel_propose(g: Emitter, node: PluginNode) -> list[Tensor]:
    """MultilevelProposeROI_TRT: (N, keep_topk, 4), rows y1, x1, y2, x2 in pixels."""
    node.expect_inputs(2 * len(MASK_RCNN_LEVELS))
    _, height, width = (int(v) for v in node.numbers("image_size", 3))
    keep, limit = node.integer("keep_topk"), node.integer("prenms_topk")
    threshold = node.number("fg_threshold")
    all_boxes, all_scores, levels = [], [], []
    for level, delta, score in zip(MASK_RCNN_LEVELS, node.inputs[::2], node.inputs[1::2], strict=True):
        anchors = _mask_rcnn_anchors(level, height, width)
        count = len(anchors)
        if g.fixed(score, (2, 3, 4))[1] != count:
            problem = f"image_size {height}x{width} makes {count} anchors on level {level}, not as its inputs"
            raise CannotLowerError(problem)
        flat = g.reshape(score, -1, count)
        rows: Operand = anchors[None]
        deltas = g.reshape(delta, -1, count, 4)
        if limit < count:
            flat, index = g.top_k(flat, limit, NOTHING)
            deltas, rows = g.take_rows(deltas, index, 4), g("Gather", anchors, index, axis=0)
        all_scores.append(g("Where", g.at_least(flat, threshold), flat, NOTHING))
        all_boxes.append(_decode_mask_rcnn(g, deltas, rows, height, width))
        levels.append(np.full(min(limit, count), level, np.float32))
    scores, boxes = g.concat(all_scores, 1), g.concat(all_boxes, 1)
    # One list with the levels kept apart like classes: the keep_topk best of all levels are the same as the best of
    # what keep_topk per level would leave.
    level_of = np.concatenate(levels)
    overlap = Overlap(node.number("iou_threshold"))
    chosen = greedy(g, boxes, scores, len(level_of), keep, overlap, level_of[None])
    return [chosen.rows(g, boxes)]


def _mask_rcnn_anchors(level: int, height: int, width: int) -> Array:
    """(A, 4) float32 y1, x1, y2, x2: three shapes per position, row-major."""
    stride, base = 2**level, 8.0 * 2**level
    y = stride / 2 + stride * np.arange(math.ceil(height / stride))
    x = stride / 2 + stride * np.arange(math.ceil(width / stride))
    half = base / 2 * np.asarray([[1.0, 1.0], [0.7, 1.4], [1.4, 0.7]])  # (height, width)
    centre = np.stack(np.meshgrid(y, x, indexing="ij"), -1)[:, :, None, :]
    return np.concatenate([centre - half, centre + half], -1).reshape(-1, 4).astype(np.float32)


def _decode_mask_rcnn(
    g: Emitter, deltas: Operand, boxes: Operand, height: int, width: int, divisors: tuple[float, ...] = ()
) -> Tensor:
    """Boxes y1, x1, y2, x2 with pixel sides (max - min + 1), moved and grown by dy, dx, dh, dw, then clamped."""
    if divisors:
        deltas = g("Div", deltas, np.asarray(divisors, np.float32))
    low, high = g.slice(boxes, -1, 0, 2), g.slice(boxes, -1, 2, 4)
    size = g("Add", g("Sub", high, low), 1.0)
    centre = g("Add", low, g("Mul", size, 0.5))
    shift, grow = g.slice(deltas, -1, 0, 2), g("Min", g.slice(deltas, -1, 2, 4), MAX_GROWTH)
    centre = g("Add", g("Mul", shift, size), centre)
    size = g("Mul", g("Exp", grow), size)
    low = g("Sub", centre, g("Mul", size, 0.5))
    high = g("Sub", g("Add", low, size), 1.0)
    edge = np.asarray([height - 1, width - 1, height - 1, width - 1], np.float32)
    return g.clamp(g.concat([low, high], 2), 0.0, edge)


def lower_multilevel_crop(g: Emitter, node: PluginNode) -> list[Tensor]:
    """MultilevelCropAndResize_TRT: rois (N, R, 4) in pixels and maps P2..P6 -> (N, R, C, p, p).

    A roi outside the image or without area gives zeros; the plugin leaves its output unwritten.
    """
    node.expect_inputs(1 + len(MASK_RCNN_LEVELS))
    rois, *maps = node.inputs
    pooled = node.integer("pooled_size")
    _, image_h, image_w = (int(v) for v in node.numbers("image_size", 3))
    count = g.fixed(rois, 3)[1]
    pyramid = pyramid_rows(g, maps)
    y1, x1, y2, x2 = g.columns(rois, 4, axis=2)  # (N, R, 1)
    roi_h, roi_w = g("Sub", y2, y1), g("Sub", x2, x1)
    area = g("Mul", roi_h, roi_w)
    level = level_by_area(g, area, 224.0 * 224.0 / 4, len(maps), count)

    scale = per_roi(g, level, [1.0 / 2**step for step in MASK_RCNN_LEVELS], np.float32)
    bins = (np.arange(pooled, dtype=np.float32) + 0.5)[None, None]

    def positions(low: Tensor, side: Tensor) -> Tensor:
        step = g("Div", g("Mul", side, scale), float(pooled))
        return g("Add", g("Mul", low, scale), g("Mul", step, bins))

    samples = sample_rois(g, pyramid, level, positions(y1, roi_h), positions(x1, roi_w), count, pooled)
    valid = g("And", g("Greater", roi_h, 0.0), g("Greater", roi_w, 0.0))
    for low, high, side in ((y1, y2, image_h), (x1, x2, image_w)):
        within = g("And", g.at_least(low, 0.0), g("Not", g("Greater", high, float(side))))
        valid = g("And", valid, within)
    kept = g("Where", g.unsqueeze(valid, 3), samples, 0.0)
    return [g.reshape(g.transpose(kept, 0, 1, 3, 2), -1, count, pyramid.channels, pooled, pooled)]


def lower_generate_detection(g: Emitter, node: PluginNode) -> list[Tensor]:
    """GenerateDetection_TRT: (N, K, 6), rows y1, x1, y2, x2 in pixels, class (-1 for padding), score."""
    node.expect_inputs(3)
    deltas, scores, rois = node.inputs
    _, height, width = (int(v) for v in node.numbers("image_size", 3))
    classes, keep = node.integer("num_classes"), node.integer("keep_topk")
    count = g.fixed(rois, 3)[1]
    # One class per roi, the best but the background.
    foreground = g.slice(g.reshape(scores, -1, count, classes), 2, 1, classes)
    best = g.reshape(g.reduce("ReduceMax", foreground, [2]), -1, count)
    label = g("Add", g("ArgMax", foreground, axis=2, keepdims=0), 1)
    row = g("Add", g("Mul", np.arange(count)[None], classes), label)
    own = g.take_rows(g.reshape(deltas, -1, count * classes, 4), row, 4)
    boxes = _decode_mask_rcnn(g, own, rois, height, width, divisors=(10.0, 10.0, 5.0, 5.0))
    good = g("And", g.at_least(best, node.number("score_threshold")), g("Greater", best, MINIMUM_DETECTION_SCORE))
    label = g.cast(label, FLOAT)
    overlap = Overlap(node.number("iou_threshold"))
    chosen = greedy(g, boxes, g("Where", good, best, NOTHING), count, keep, overlap, label)
    picked = chosen.rows(g, boxes)
    own_label = g("Where", chosen.valid, g("GatherElements", label, chosen.index, axis=1), -1.0)
    score = chosen.scores(g)
    return [g.concat([picked, g.unsqueeze(own_label, 2), g.unsqueeze(score, 2)], 2)]
