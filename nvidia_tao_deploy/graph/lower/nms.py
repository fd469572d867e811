"""The detection plugins that decode, suppress and sort: BatchedNMS, NMS (SSD detection output) and EfficientNMS."""

from __future__ import annotations

import math

import numpy as np

from nvidia_tao_deploy.graph.lower.emit import FLOAT, INT32, INT64, CannotLowerError, Emitter, Operand, Tensor
from nvidia_tao_deploy.graph.lower.node import PluginNode
from nvidia_tao_deploy.graph.lower.suppress import NOTHING, Overlap, Selection, greedy

EFFICIENT_NMS_CANDIDATES = 4096  # per image over all classes, fixed in the plugin


def lower_batched_nms(g: Emitter, node: PluginNode) -> list[Tensor]:
    """BatchedNMS_TRT and BatchedNMSDynamic_TRT.

    Returns num_detections (B, 1) int32, boxes (B, K, 4), scores (B, K), classes (B, K) float with -1 for padding.
    """
    node.expect_inputs(2)
    boxes, scores = node.inputs
    _, anchors, sets, _ = g.fixed(boxes, 4)
    scores = g.reshape(scores, -1, anchors, node.integer("numClasses"))
    overlap = _caffe_overlap(node, node.number("iouThreshold"), caffe=node.flag("caffeSemantics", 1))
    least, clip = node.number("scoreThreshold", 0.0), node.flag("clipBoxes", 1)
    chosen, picked, labels = _best_per_class(g, node, boxes, scores, anchors, sets, least, overlap, clip)
    return [_count(g, chosen), picked, chosen.scores(g), labels]


def lower_detection_output(g: Emitter, node: PluginNode) -> list[Tensor]:
    """NMS_TRT and NMSDynamic_TRT: SSD decoding, then suppression per class.

    Returns (B, 1, K, 7) rows of image index, label, score, x1, y1, x2, y2, and (B, 1, 1, 1) int32 counts. The plugin
    declares the counts as float and stores int32 bits in them; here they are true integers.
    """
    node.expect_inputs(3)
    order = [int(position) for position in node.numbers("inputOrder", 3, [0, 1, 2])]
    loc, conf, prior = (node.inputs[position] for position in order)
    g.batch_source = conf
    classes, keep = node.integer("numClasses"), node.integer("keepTopK")
    anchors = math.prod(g.fixed(conf, (2, 3, 4))[1:]) // classes
    sets = 1 if node.flag("shareLocation", 1) else classes

    scores = g.reshape(conf, -1, anchors, classes)
    if node.flag("confSigmoid", 0):
        scores = g("Sigmoid", scores)
    prior = g.reshape(prior, -1, 2, anchors, 4)
    if node.op_type == "NMS_TRT" and node.flag("isBatchAgnostic", 1):
        prior = g.slice(prior, 0, 0, 1)
    boxes = _decode_ssd(
        g,
        g.reshape(loc, -1, anchors, sets, 4),
        g.reshape(g.slice(prior, 1, 0, 1), -1, anchors, 1, 4),
        g.reshape(g.slice(prior, 1, 1, 2), -1, anchors, 1, 4),
        code=node.integer("codeType", 1),
        variance_in_target=node.flag("varianceEncodedInTarget", 0),
    )
    overlap = _caffe_overlap(node, node.number("nmsThreshold"), caffe=True)
    least = node.number("confidenceThreshold", 0.0)
    chosen, picked, labels = _best_per_class(g, node, boxes, scores, anchors, sets, least, overlap, clip=True)
    image = g("Add", g.cast(g.batch_index(), FLOAT), np.zeros((1, keep), np.float32))
    columns = [g.reshape(column, -1, keep, 1) for column in (image, labels, chosen.scores(g))]
    rows = g.concat([*columns, picked], 2)
    return [g.reshape(rows, -1, 1, keep, 7), g.reshape(_count(g, chosen), -1, 1, 1, 1)]


def lower_efficient_nms(g: Emitter, node: PluginNode) -> list[Tensor]:
    """EfficientNMS_TRT.

    Returns num_detections (B, 1) int32, boxes (B, K, 4) corners, scores (B, K), classes (B, K) int32, zero padded.

    Two things of the plugin are left out. With a score threshold below 0.007 it also emits candidates under the
    threshold, with score -32768, when there is room. With more than 4095 candidates it never looks at the last one.
    """
    node.expect_inputs(2, 3)
    keep = node.integer("max_output_boxes", 100)
    chosen, picked, labels, _ = _efficient(g, node, keep, node.integer("box_coding", 0))
    score = g("Sigmoid", chosen.score) if node.flag("score_activation", 0) else chosen.score
    return [
        _count(g, chosen),
        picked,
        g("Where", chosen.valid, score, 0.0),
        g.cast(g("Where", chosen.valid, labels, 0.0), INT32),
    ]


def lower_efficient_nms_onnx(g: Emitter, node: PluginNode) -> list[Tensor]:
    """EfficientNMS_ONNX_TRT: rows (image, class, box) int32 (B * max per class, 3), best first within an image.

    Spare rows repeat the last one, all are -1 when nothing is found. The plugin's budget is ``max per class`` rows per
    image whatever the number of classes. Scores are (B, N, C), unlike those of ONNX NonMaxSuppression: importers that
    use the plugin for that op transpose them first (seen in what TensorRT 8.5.3.1 computes).
    """
    node.expect_inputs(2)
    keep = node.integer("max_output_boxes_per_class", 100)
    chosen, _, labels, anchor = _efficient(g, node, keep, node.integer("center_point_box", 0))
    images = g("Add", g.batch_index(), np.zeros((1, keep), np.int64))
    columns = [images, g.cast(labels, INT64), anchor]
    rows = g.reshape(g.concat([g.reshape(column, -1, keep, 1) for column in columns], 2), -1, 3)
    # Valid rows of every image first, in order: a stable compaction by running count.
    found = g.cast(g.reshape(chosen.valid, -1), FLOAT)
    position = g.cast(g("Sub", g("CumSum", found, 0), 1.0), INT64)
    total = g.cast(g.reduce("ReduceSum", found, [0]), INT64)
    spare = g("Shape", found)
    target = g("Where", g.reshape(chosen.valid, -1), position, spare)
    blank = g("Expand", np.asarray([[-1]], np.int64), g.concat([g("Add", spare, np.asarray([1])), np.asarray([3])], 0))
    compact = g("ScatterND", blank, g.unsqueeze(target, 1), rows)
    count_up = g.cast(g("CumSum", g("Add", g("Mul", found, 0.0), 1.0), 0, exclusive=1), INT64)
    last = g("Sub", total, np.asarray([1]))
    within = g("Less", count_up, total)
    at = g("Where", within, count_up, g("Where", g("Less", last, np.asarray([0])), np.asarray([0]), last))
    return [g.cast(g("Gather", compact, at, axis=0), INT32)]


def _best_per_class(
    g: Emitter,
    node: PluginNode,
    boxes: Tensor,
    scores: Tensor,
    anchors: int,
    sets: int,
    threshold: float,
    overlap: Overlap,
    clip: bool,
) -> tuple[Selection, Tensor, Tensor]:
    """Choose among the ``topK`` best boxes of every class, of boxes (B, N, 1 or C, 4) and scores (B, N, C).

    Returns the selection with its boxes (B, K, 4), zero where none is, and its classes (B, K), -1 where none is.
    """
    background, top_k, classes = node.integer("backgroundLabelId", -1), node.integer("topK"), node.integer("numClasses")
    if sets not in (1, classes):
        raise CannotLowerError(f"it has {sets} sets of boxes for {classes} classes")
    by_class = g.transpose(scores, 0, 2, 1)
    wanted = g("Greater", by_class, threshold)
    if 0 <= background < classes:
        wanted = g("And", wanted, (np.arange(classes) != background)[None, :, None])
    by_class = g("Where", wanted, by_class, NOTHING)

    source = g.reshape(g.transpose(boxes, 0, 2, 1, 3) if sets > 1 else boxes, -1, sets * anchors, 4)
    if top_k < anchors:
        by_class, index = g.top_k(by_class, top_k, NOTHING)
        if sets > 1:
            index = g("Add", index, (np.arange(classes, dtype=np.int64) * anchors)[None, :, None])
        source = g.take_rows(source, g.reshape(index, -1, classes * top_k), 4)
    elif sets == 1 and classes > 1:
        source = g("Tile", source, np.asarray([1, classes, 1], np.int64))
    table = np.repeat(np.arange(classes, dtype=np.float32), min(top_k, anchors))
    by_class, of_class = g.reshape(by_class, -1, len(table)), table[None] if classes > 1 else None
    corners = _ordered_corners(g, source)
    chosen = greedy(g, corners, by_class, len(table), node.integer("keepTopK"), overlap, of_class)
    picked = chosen.rows(g, source)
    return (
        chosen,
        g.clamp(picked, 0.0, 1.0) if clip else picked,
        g("Where", chosen.valid, g("Gather", table, chosen.index, axis=0), -1.0),
    )


def _ordered_corners(g: Emitter, boxes: Tensor) -> Tensor:
    first, second = g.slice(boxes, -1, 0, 2), g.slice(boxes, -1, 2, 4)
    return g.concat([g("Min", first, second), g("Max", first, second)], -1)


def _caffe_overlap(node: PluginNode, threshold: float, caffe: bool) -> Overlap:
    pixels = not node.flag("isNormalized", 1)
    return Overlap(
        threshold, plus_one=pixels, plus_one_intersection=pixels and caffe, disjoint_as_point=pixels and caffe
    )


def _count(g: Emitter, chosen: Selection) -> Tensor:
    return g.reduce("ReduceSum", g.cast(chosen.valid, INT32), [1])


def _decode_ssd(
    g: Emitter, loc: Tensor, prior: Tensor, variance: Tensor, code: int, variance_in_target: bool
) -> Tensor:
    """Corners (B, N, sets, 4) of the SSD box codes 0 CORNER, 1 CENTER_SIZE, 2 CORNER_SIZE, 3 TF_CENTER."""
    l0, l1, l2, l3 = g.columns(loc, 4)
    low, high = g.slice(prior, 3, 0, 2), g.slice(prior, 3, 2, 4)
    size = g("Sub", high, low)
    if code in (0, 2):
        step = loc if variance_in_target else g("Mul", variance, loc)
        if code == 2:
            step = g("Mul", step, g.concat([size, size], 3))
        return g("Add", prior, step)
    if code not in (1, 3):
        raise CannotLowerError(f"its codeType {code} is none of 0, 1, 2, 3")
    if code == 3:
        l0, l1, l2, l3 = l1, l0, l3, l2
    centre = g("Mul", g("Add", low, high), 0.5)
    shift, grow = g.concat([l0, l1], 3), g.concat([l2, l3], 3)
    if code == 3 or not variance_in_target:
        shift = g("Mul", g.slice(variance, 3, 0, 2), shift)
        grow = g("Mul", g.slice(variance, 3, 2, 4), grow)
    centre = g("Add", g("Mul", shift, size), centre)
    half = g("Mul", g("Mul", g("Exp", grow), size), 0.5)
    return g.concat([g("Sub", centre, half), g("Add", centre, half)], 3)


def _efficient(g: Emitter, node: PluginNode, keep: int, coding: int) -> tuple[Selection, Tensor, Tensor, Tensor]:
    """Selection, its corner boxes (B, K, 4), classes (B, K) float32 and box indices (B, K) int64.

    EfficientNMS_ONNX_TRT has neither anchors nor the attributes of the other plugin that have a default here.
    """
    boxes, scores, *anchors = node.inputs
    if coding not in (0, 1):
        raise CannotLowerError(f"its box coding {coding} is neither 0 nor 1")
    _, count, classes = g.fixed(scores, 3)
    box_shape = g.fixed(boxes, (3, 4))
    sets = box_shape[2] if len(box_shape) == 4 else 1
    if box_shape[1] != count or sets not in (1, classes):
        raise CannotLowerError(f"its boxes {box_shape} do not go with its scores: {count} boxes, {classes} classes")
    threshold = np.float32(node.number("score_threshold", 0.5))
    if node.flag("score_activation", 0):
        threshold = np.float32(np.log(threshold / (1 - threshold)) if threshold > 0 else -32768)
    flat = g.reshape(scores, -1, count * classes)
    wanted = g.at_least(flat, np.asarray(threshold))
    background = node.integer("background_class", -1)
    if 0 <= background < classes:
        wanted = g("And", wanted, np.tile(np.arange(classes) != background, count)[None])
    flat = g("Where", wanted, flat, NOTHING)

    flat_boxes = g.reshape(boxes, -1, count * sets, 4)
    total = count * classes
    index: Operand
    if total > EFFICIENT_NMS_CANDIDATES:
        total = EFFICIENT_NMS_CANDIDATES
        flat, index = g.top_k(flat, total, NOTHING)
        anchor = g("Div", index, classes)
        labels: Operand = g.cast(g("Sub", index, g("Mul", anchor, classes)), FLOAT)
        corners = g.take_rows(flat_boxes, index if sets > 1 else anchor, 4)
        table = None
    else:
        table = np.arange(total) // classes
        labels = (np.arange(total) % classes).astype(np.float32)[None]
        corners = flat_boxes if sets == classes else g("Gather", flat_boxes, table, axis=1)
        anchor = ""
    if anchors:
        if g.fixed(anchors[0], 3)[0] == 1:
            rows = g("Gather", g.reshape(anchors[0], count, 4), table if table is not None else anchor, axis=0)
        elif table is not None:
            rows = g("Gather", anchors[0], table, axis=1)
        else:
            rows = g.take_rows(anchors[0], anchor, 4)
        corners = _apply_anchors(g, corners, rows, coding)
    if coding == 1:
        centre, size = g.slice(corners, -1, 0, 2), g("Mul", g.slice(corners, -1, 2, 4), 0.5)
        corners = g.concat([g("Sub", centre, size), g("Add", centre, size)], 2)
    overlap = Overlap(node.number("iou_threshold", 0.5), inclusive=True)
    ordered = _ordered_corners(g, corners)
    chosen = greedy(
        g, ordered, flat, total, keep, overlap, None if node.flag("class_agnostic", 0) or classes == 1 else labels
    )
    if table is None:
        picked_anchor = g("GatherElements", anchor, chosen.index, axis=1)
        picked_label = g("GatherElements", labels, chosen.index, axis=1)
    else:
        picked_anchor = g("Gather", table, chosen.index, axis=0)
        picked_label = g("Gather", np.asarray(labels)[0], chosen.index, axis=0)
    return chosen, chosen.rows(g, corners), picked_label, picked_anchor


def _apply_anchors(g: Emitter, deltas: Tensor, anchors: Tensor, coding: int) -> Tensor:
    """Fused decoding: corner offsets are added; centre-size deltas scale with the anchor, exp for the size."""
    if coding == 0:
        # The plugin orders the corners of both before it adds them.
        return g("Add", _ordered_corners(g, deltas), _ordered_corners(g, anchors))
    centre, size = g.slice(anchors, -1, 0, 2), g.slice(anchors, -1, 2, 4)
    shift, grow = g.slice(deltas, -1, 0, 2), g.slice(deltas, -1, 2, 4)
    return g.concat([g("Add", g("Mul", shift, size), centre), g("Mul", size, g("Exp", grow))], 2)
