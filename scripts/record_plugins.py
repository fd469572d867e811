"""Record what the real TensorRT plugins compute, as small fixtures for the tests of the plugin lowering.

    python record_plugins.py OUT_FOLDER [--seconds 180] [--family batched_nms ...]

Runs on a GPU with TensorRT 8.5 or 8.6 (written for 8.5.3.1, the last wheel that carries its libraries), numpy and
cuda-python; needs nothing from this repository. Every case is one network holding one plugin, made with the builder's
own API: plugins with the dynamic interface in an explicit batch network, the older ones in an implicit batch network,
the only place where they ever worked. Each family of plugins runs in a child process; a plugin that kills its process
costs one case, which is recorded as failed, and the child is started again behind it.

Writes OUT_FOLDER/<family>.npz, readable with ``allow_pickle=False``:
    meta     JSON text: TensorRT version, GPU, and per case name, op_type, attrs, implicit_batch, inputs and outputs as
             [name, key of the array], constant inputs, plugin fields the creator knows, ``repeatable`` (two runs gave
             the same bytes), or ``error``.
    a0, a1   the arrays; equal ones are stored once.
Output buffers are filled with 0x7f bytes beforehand: what a plugin leaves unwritten shows as 3.39615e38 or 2139062143.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
CRASHED = 3
UNWRITTEN_BYTE = 0x7F


@dataclass
class Case:
    """One plugin, one set of attributes, one set of inputs."""

    name: str
    op: str
    attrs: dict[str, Any]
    inputs: dict[str, Array]
    outputs: list[str]
    implicit_batch: bool = False
    constants: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


def distinct_scores(rng: np.random.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
    """Scores without ties, in random order."""
    count = math.prod(shape)
    values = low + (high - low) * (np.arange(count) + 0.5) / count
    return rng.permutation(values).reshape(shape).astype(np.float32)


def tied_scores(rng: np.random.Generator, *shape: int) -> Array:
    return (rng.integers(0, 9, shape) / 8).astype(np.float32)


def clustered_boxes(rng: np.random.Generator, *shape: int, scale: float = 1.0, clusters: int = 8) -> Array:
    """Boxes (..., 4) xyxy around a few centres, so that suppression chains are long; some reach out of [0, scale]."""
    centres = rng.uniform(0, 1, (clusters, 2))
    pick = centres[rng.integers(0, clusters, shape)] + rng.normal(0, 0.04, (*shape, 2))
    size = rng.uniform(0.08, 0.35, (*shape, 2))
    boxes = np.concatenate([pick - size / 2, pick + size / 2], axis=-1) * scale
    return np.asarray(boxes, np.float32)


def grid_boxes(rng: np.random.Generator, *shape: int) -> Array:
    """Boxes on a coarse binary grid: many overlaps fall exactly on 1/2, 1/3, 1/4."""
    corner = rng.integers(0, 4, (*shape, 2)) / 8
    size = rng.integers(1, 4, (*shape, 2)) / 8
    return np.concatenate([corner, corner + size], axis=-1).astype(np.float32)


def half(values: Array) -> Array:
    """Rounded through float16, which the archive compresses to about half."""
    return np.asarray(values, np.float16).astype(np.float32)


def batched_nms_cases() -> list[Case]:
    rng = np.random.default_rng(1)
    outputs = ["BatchedNMS", "BatchedNMS_1", "BatchedNMS_2", "BatchedNMS_3"]
    base = {
        "shareLocation": 1,
        "backgroundLabelId": -1,
        "numClasses": 3,
        "topK": 60,
        "keepTopK": 20,
        "scoreThreshold": 0.3,
        "iouThreshold": 0.5,
        "isNormalized": 1,
        "clipBoxes": 1,
    }
    boxes, scores = clustered_boxes(rng, 3, 60, 1), distinct_scores(rng, 3, 60, 3)
    same = np.broadcast_to(np.asarray([0.1, 0.2, 0.6, 0.7], np.float32), (1, 60, 1, 4)).copy()
    plain = {
        "batch3": ({}, boxes, scores),
        "batch1_trailing_axis": ({}, boxes[:1], scores[:1, :, :, None]),
        "top_k_below_n": ({"topK": 15, "keepTopK": 15}, boxes, scores),
        "background0": ({"backgroundLabelId": 0}, boxes, scores),
        "keep_above_candidates": ({"topK": 300, "keepTopK": 200, "scoreThreshold": 0.1}, boxes, scores),
        "keep_above_top_k": ({"topK": 10, "keepTopK": 20}, boxes, scores),
        "nothing_over_threshold": ({"scoreThreshold": 0.999}, boxes, scores),
        "threshold0_zero_scores": ({"scoreThreshold": 0.0}, boxes, np.where(scores < 0.7, 0, scores)),
        "negative_scores": ({"scoreThreshold": -2.0, "topK": 200, "keepTopK": 150}, boxes, scores - np.float32(0.6)),
        "all_suppressed": ({}, same, scores[:1]),
        "ties": ({"keepTopK": 30}, boxes, tied_scores(rng, 3, 60, 3)),
        "ties_top_k_below_n": ({"topK": 12, "keepTopK": 12}, boxes, tied_scores(rng, 3, 60, 3)),
        "score_equals_threshold": ({"scoreThreshold": 0.5}, boxes, tied_scores(rng, 3, 60, 3)),
        "iou_equals_threshold": ({"keepTopK": 60}, grid_boxes(rng, 3, 60, 1), scores),
        "iou_third": ({"keepTopK": 60, "iouThreshold": 1 / 3}, grid_boxes(rng, 3, 60, 1), scores),
        "iou0": ({"iouThreshold": 0.0}, boxes, scores),
        "iou1": ({"iouThreshold": 1.0, "keepTopK": 60}, boxes, scores),
        "swapped_corners": ({}, boxes[..., [2, 3, 0, 1]], scores),
        "no_clip": ({"clipBoxes": 0}, boxes, scores),
        "per_class_boxes": ({"shareLocation": 0}, clustered_boxes(rng, 3, 60, 3), scores),
        "per_class_boxes_background": (
            {"shareLocation": 0, "backgroundLabelId": 1},
            clustered_boxes(rng, 2, 60, 3),
            scores[:2],
        ),
        "score_bits": ({"scoreBits": 8}, boxes, scores),
        "pixels_caffe": (
            {"isNormalized": 0, "clipBoxes": 0, "caffeSemantics": 1},
            clustered_boxes(rng, 2, 60, 1, scale=40),
            scores[:2],
        ),
        "pixels_not_caffe": (
            {"isNormalized": 0, "clipBoxes": 0, "caffeSemantics": 0},
            clustered_boxes(rng, 2, 60, 1, scale=40),
            scores[:2],
        ),
        "pixels_tiny_caffe": (
            {"isNormalized": 0, "clipBoxes": 0, "caffeSemantics": 1, "iouThreshold": 0.3},
            clustered_boxes(rng, 1, 60, 1, scale=2),
            scores[:1],
        ),
        "pixels_clip": ({"isNormalized": 0}, boxes[:1] * 3, scores[:1]),
        "normalized_not_caffe": ({"caffeSemantics": 0}, boxes[:1], scores[:1]),
    }
    cases = [
        Case(name, "BatchedNMSDynamic_TRT", {**base, **attrs}, {"boxes": b, "scores": s}, outputs)
        for name, (attrs, b, s) in plain.items()
    ]
    cases += [
        Case(f"static_{c.name}", "BatchedNMS_TRT", c.attrs, c.inputs, outputs, implicit_batch=True)
        for c in cases
        if c.name in ("batch3", "ties", "per_class_boxes", "pixels_caffe")
    ]
    return cases


def efficient_nms_cases() -> list[Case]:
    rng = np.random.default_rng(2)
    outputs = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]
    base = {
        "score_threshold": 0.3,
        "iou_threshold": 0.5,
        "max_output_boxes": 20,
        "background_class": -1,
        "score_activation": 0,
        "class_agnostic": 0,
        "box_coding": 0,
    }
    boxes, scores = clustered_boxes(rng, 3, 60), distinct_scores(rng, 3, 60, 3)
    logits = distinct_scores(rng, 3, 60, 3, low=-5, high=5)
    same = np.broadcast_to(np.asarray([0.1, 0.2, 0.6, 0.7], np.float32), (1, 60, 4)).copy()
    corners = clustered_boxes(rng, 1, 60)
    centre_size = np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)
    deltas = rng.normal(0, 0.2, (3, 60, 4)).astype(np.float32)
    cap = {"score_threshold": 0.02, "iou_threshold": 0.4, "max_output_boxes": 150}
    many = {
        "boxes": half(clustered_boxes(rng, 1, 2500, clusters=120)),
        "scores": distinct_scores(rng, 1, 2500, 2, low=0.03),
    }
    plain: dict[str, tuple[dict[str, Any], dict[str, Array]]] = {
        "batch3": ({}, {"boxes": boxes, "scores": scores}),
        "boxes_n14": ({}, {"boxes": boxes[:1, :, None], "scores": scores[:1]}),
        "per_class_boxes": ({}, {"boxes": clustered_boxes(rng, 2, 60, 3), "scores": scores[:2]}),
        "background0": ({"background_class": 0}, {"boxes": boxes, "scores": scores}),
        "keep_above_candidates": ({"max_output_boxes": 300}, {"boxes": boxes, "scores": scores}),
        "nothing_over_threshold": ({"score_threshold": 0.999}, {"boxes": boxes, "scores": scores}),
        "all_suppressed": ({}, {"boxes": same, "scores": scores[:1]}),
        "ties": ({}, {"boxes": boxes, "scores": tied_scores(rng, 3, 60, 3)}),
        "score_equals_threshold": (
            {"score_threshold": 0.5, "iou_threshold": 1.0, "max_output_boxes": 200},
            {"boxes": boxes[:1], "scores": tied_scores(rng, 1, 60, 3)},
        ),
        "iou_equals_threshold": ({"max_output_boxes": 60}, {"boxes": grid_boxes(rng, 3, 60), "scores": scores}),
        "iou0": ({"iou_threshold": 0.0}, {"boxes": boxes[:1], "scores": scores[:1]}),
        "iou1": ({"iou_threshold": 1.0, "max_output_boxes": 60}, {"boxes": boxes[:1], "scores": scores[:1]}),
        "sigmoid": ({"score_activation": 1}, {"boxes": boxes, "scores": logits}),
        "sigmoid_threshold0": (
            {"score_activation": 1, "score_threshold": 0.0, "max_output_boxes": 200},
            {"boxes": boxes[:1], "scores": logits[:1]},
        ),
        "threshold0": (
            {"score_threshold": 0.0, "max_output_boxes": 200},
            {"boxes": boxes[:1], "scores": np.where(scores[:1] < 0.5, 0, scores[:1])},
        ),
        "class_agnostic": ({"class_agnostic": 1}, {"boxes": boxes, "scores": scores}),
        "centre_size": ({"box_coding": 1}, {"boxes": np.repeat(centre_size, 3, 0), "scores": scores}),
        "anchors_centre_size": (
            {"box_coding": 1, "score_activation": 1},
            {"boxes": deltas, "scores": logits, "anchors": centre_size},
        ),
        "anchors_corner": ({}, {"boxes": deltas / 4, "scores": scores, "anchors": corners}),
        "anchors_per_image": (
            {"box_coding": 1},
            {"boxes": deltas, "scores": scores, "anchors": np.repeat(centre_size, 3, 0)},
        ),
        "cap_4096": (cap, many),
        "swapped_corners": ({}, {"boxes": boxes[:1][..., [2, 3, 0, 1]], "scores": scores[:1]}),
    }
    cases = [Case(name, "EfficientNMS_TRT", {**base, **a}, i, outputs) for name, (a, i) in plain.items()]
    # Scores are (B, N, C) here too: who uses the plugin for ONNX NonMaxSuppression transposes them first.
    onnx_base = {"score_threshold": 0.3, "iou_threshold": 0.5, "max_output_boxes_per_class": 10, "center_point_box": 0}
    onnx_style = {
        "onnx_batch3": ({}, boxes, scores),
        "onnx_one_class": ({}, boxes[:1], np.ascontiguousarray(scores[:1, :, :1])),
        "onnx_one_class_large": (
            {"max_output_boxes_per_class": 50},
            boxes[:2],
            np.ascontiguousarray(scores[:2, :, :1]),
        ),
        "onnx_centre": ({"center_point_box": 1}, np.repeat(centre_size, 3, 0), scores),
        "onnx_nothing": ({"score_threshold": 0.999}, boxes[:1], scores[:1]),
    }
    cases += [
        Case(name, "EfficientNMS_ONNX_TRT", {**onnx_base, **a}, {"boxes": b, "scores": s}, ["selected_indices"])
        for name, (a, b, s) in onnx_style.items()
    ]
    return cases


def detection_output_cases() -> list[Case]:
    rng = np.random.default_rng(3)
    count, classes = 50, 4
    base = {
        "shareLocation": 1,
        "varianceEncodedInTarget": 0,
        "backgroundLabelId": 0,
        "numClasses": classes,
        "topK": 40,
        "keepTopK": 20,
        "confidenceThreshold": 0.3,
        "nmsThreshold": 0.5,
        "inputOrder": [1, 2, 0],
        "confSigmoid": 0,
        "isNormalized": 1,
        "codeType": 1,
    }
    variances = np.broadcast_to(np.asarray([0.1, 0.1, 0.2, 0.2], np.float32), (3, count, 4))

    def inputs(batch: int, loc_classes: int = 1, conf: Array | None = None, loc_scale: float = 1.0) -> dict[str, Array]:
        corners = clustered_boxes(rng, 1, count).repeat(batch, 0)
        prior = np.stack([corners, variances[:batch]], 1).reshape(batch, 2, count * 4, 1)
        loc = rng.normal(0, loc_scale, (batch, count * loc_classes * 4, 1, 1))
        conf = distinct_scores(rng, batch, count * classes) if conf is None else conf
        return {"anchor": prior, "loc": half(loc), "conf": conf.reshape(batch, -1, 1, 1).astype(np.float32)}

    per_image = inputs(2)
    per_image["anchor"] = per_image["anchor"].copy()
    per_image["anchor"][1, 0] = clustered_boxes(rng, count).reshape(-1, 1)
    logits = distinct_scores(rng, 3, count * classes, low=-4, high=4)
    plain: dict[str, tuple[dict[str, Any], dict[str, Array]]] = {
        "batch3": ({}, inputs(3)),
        "batch1": ({}, inputs(1)),
        "corner": ({"codeType": 0}, inputs(2, loc_scale=0.5)),
        "corner_size": ({"codeType": 2}, inputs(2)),
        "tf_centre": ({"codeType": 3}, inputs(2)),
        "variance_in_target": ({"varianceEncodedInTarget": 1}, inputs(2, loc_scale=0.2)),
        "variance_in_target_tf": ({"varianceEncodedInTarget": 1, "codeType": 3}, inputs(2)),
        "sigmoid": ({"confSigmoid": 1}, inputs(3, conf=logits)),
        "per_class": ({"shareLocation": 0, "backgroundLabelId": 3}, inputs(2, classes)),
        "frcnn": (
            {"shareLocation": 0, "backgroundLabelId": 3, "varianceEncodedInTarget": 1, "topK": 50, "keepTopK": 50},
            inputs(2, classes, loc_scale=0.2),
        ),
        "no_background": ({"backgroundLabelId": -1}, inputs(2)),
        "not_normalized": ({"isNormalized": 0}, inputs(2)),
        "keep_above_candidates": ({"topK": 200, "keepTopK": 150, "nmsThreshold": 0.3}, inputs(2)),
        "nothing_over_threshold": ({"confidenceThreshold": 0.9999}, inputs(2)),
        "ties": ({"topK": 15, "keepTopK": 15}, inputs(2, conf=tied_scores(rng, 2, count * classes))),
        "prior_per_image": ({}, per_image),
        "input_order_012": ({"inputOrder": [0, 1, 2]}, {k: inputs(1)[k] for k in ("loc", "conf", "anchor")}),
    }
    outputs = ["NMS", "NMS_1"]
    cases = [Case(name, "NMSDynamic_TRT", {**base, **a}, i, outputs) for name, (a, i) in plain.items()]
    cases += [
        Case(f"static_{c.name}", "NMS_TRT", c.attrs, c.inputs, outputs, implicit_batch=True)
        for c in cases
        if c.name in ("batch3", "per_class", "prior_per_image", "ties")
    ]
    agnostic = next(c for c in cases if c.name == "static_prior_per_image")
    attrs = {**agnostic.attrs, "isBatchAgnostic": 0}
    cases.append(Case("static_not_batch_agnostic", "NMS_TRT", attrs, agnostic.inputs, outputs, implicit_batch=True))
    return cases


def two_stage_cases() -> list[Case]:
    rng = np.random.default_rng(4)
    base = {
        "input_height": 128,
        "input_width": 160,
        "rpn_stride": 16,
        "roi_min_size": 1.0,
        "nms_iou_threshold": 0.7,
        "pre_nms_top_n": 200,
        "post_nms_top_n": 50,
        "anchor_sizes": [32.0, 64.0],
        "anchor_ratios": [1.0, 0.5, 2.0],
    }
    scores = distinct_scores(rng, 2, 6, 8, 10)
    deltas = half(rng.normal(0, 0.3, (2, 24, 8, 10)))
    proposals = {
        "batch2": ({}, scores, deltas),
        "batch1": ({}, scores[:1], deltas[:1]),
        "all_anchors": ({"pre_nms_top_n": 480, "post_nms_top_n": 300}, scores, deltas),
        "strict_nms": ({"nms_iou_threshold": 0.3}, scores, deltas),
        "most_too_small": ({"roi_min_size": 75.0, "post_nms_top_n": 100}, scores, deltas),
        "ties": ({}, tied_scores(rng, 2, 6, 8, 10), deltas),
        "post_above_pre": ({"pre_nms_top_n": 40, "post_nms_top_n": 60}, scores, deltas),
    }
    cases = [
        Case(f"proposal_{name}", "ProposalDynamic", {**base, **a}, {"scores": s, "deltas": d}, ["rois"])
        for name, (a, s, d) in proposals.items()
    ]
    first = cases[0]
    cases.append(Case("proposal_static", "Proposal", first.attrs, first.inputs, ["rois"], implicit_batch=True))

    feature = half(rng.normal(0, 1, (2, 3, 10, 12)))
    inside = np.sort(rng.uniform(0, 1, (2, 6, 2, 2)), axis=2).reshape(2, 6, 4)
    odd = np.asarray([[-0.2, 0.1, 0.5, 1.3], [0.8, 0.9, 0.2, 0.1], [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]])
    rois = np.concatenate([inside, np.stack([odd, odd[::-1]])], axis=1).astype(np.float32)[..., None]
    for height, width in ((7, 7), (1, 1), (3, 5), (14, 14)):
        attrs = {"crop_height": height, "crop_width": width}
        cases.append(
            Case(f"crop_{height}x{width}", "CropAndResizeDynamic", attrs, {"feature": feature, "rois": rois}, ["crops"])
        )
    cases.append(
        Case("crop_static", "CropAndResize", cases[-4].attrs, cases[-4].inputs, ["crops"], implicit_batch=True)
    )
    return cases


def mask_rcnn_cases() -> list[Case]:
    rng = np.random.default_rng(5)
    cases: list[Case] = []

    def levels(batch: int, height: int, width: int, make_scores: Callable[..., Array]) -> dict[str, Array]:
        sizes = [(height >> level) * (width >> level) * 3 for level in range(2, 7)]
        inputs = {}
        scores = make_scores(rng, batch, sum(sizes))
        for level, size in enumerate(sizes, start=2):
            start = sum(sizes[: level - 2])
            inputs[f"delta{level}"] = half(rng.normal(0, 0.4, (batch, size, 4)))[..., None]
            inputs[f"score{level}"] = np.ascontiguousarray(scores[:, start : start + size])[..., None, None]
        return inputs

    base = {"prenms_topk": 1000, "keep_topk": 100, "fg_threshold": 0.0, "iou_threshold": 0.7, "image_size": [3, 64, 64]}
    small = levels(2, 64, 64, distinct_scores)
    large = levels(1, 128, 192, distinct_scores)
    for name, attrs, inputs in (
        ("base", {}, small),
        ("large", {"image_size": [3, 128, 192], "prenms_topk": 4096}, large),
        ("prenms_small", {"prenms_topk": 40}, small),
        ("threshold_high", {"fg_threshold": 0.95}, small),
        ("nothing_over_threshold", {"fg_threshold": 0.99999}, small),
        ("keep_many", {"keep_topk": 1000, "iou_threshold": 0.5}, small),
        ("ties", {}, levels(1, 64, 64, tied_scores)),
    ):
        cases.append(Case(f"propose_{name}", "MultilevelProposeROI_TRT", {**base, **attrs}, inputs, ["rois"], True))

    maps = {f"p{level}": half(rng.normal(0, 1, (2, 2, 256 >> level, 256 >> level))) for level in range(2, 7)}
    corner = rng.uniform(0, 150, (2, 12, 2))
    size = np.exp(rng.uniform(np.log(2), np.log(250), (2, 12, 2)))
    rois = np.concatenate([corner, np.minimum(corner + size, 255)], -1)
    rois[0, -3:] = [[0, 0, 255, 255], [0, 0, 0, 0], [50, 60, 40, 80]]
    rois[1, -2:] = [[-5, 10, 50, 60], [10, 10, 300, 60]]
    rois = rois.astype(np.float32)
    attrs = {"pooled_size": 7, "image_size": [3, 256, 256]}
    cases.append(Case("crop_p7", "MultilevelCropAndResize_TRT", attrs, {"rois": rois, **maps}, ["crops"], True))
    # 1024 pixels reach the coarse levels too.
    wide = {f"p{level}": half(rng.normal(0, 1, (1, 1, 1024 >> level, 1024 >> level))) for level in range(4, 7)}
    wide = {"p2": np.zeros((1, 1, 256, 256), np.float32), "p3": np.zeros((1, 1, 128, 128), np.float32), **wide}
    wide_rois = np.asarray(
        [
            [
                [0, 0, 1023, 1023],
                [0, 0, 500, 500],
                [100, 50, 900, 1000],
                [0, 0, 448, 448],
                [0, 0, 896, 896],
                [3, 4, 700, 900],
            ]
        ],
        np.float32,
    )
    attrs = {"pooled_size": 4, "image_size": [3, 1024, 1024]}
    cases.append(
        Case("crop_levels", "MultilevelCropAndResize_TRT", attrs, {"rois": wide_rois, **wide}, ["crops"], True)
    )

    count, classes = 40, 5
    base = {
        "num_classes": classes,
        "keep_topk": 20,
        "score_threshold": 0.2,
        "iou_threshold": 0.5,
        "image_size": [3, 256, 256],
    }
    boxes = (clustered_boxes(rng, 2, count)[..., [1, 0, 3, 2]] * 255).clip(0, 255)
    deltas = half(rng.normal(0, 0.5, (2, count, 4 * classes)))[..., None, None]
    logits = rng.normal(0, 2, (2, count, classes))
    scores = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)[..., None, None]
    for name, attrs in (
        ("base", {}),
        ("threshold0", {"score_threshold": 0.0, "keep_topk": 60}),
        ("nothing", {"score_threshold": 0.9999}),
        ("strict_nms", {"iou_threshold": 0.1}),
        ("loose_nms", {"iou_threshold": 0.9, "keep_topk": 10}),
    ):
        inputs = {"deltas": deltas, "scores": scores, "rois": boxes}
        cases.append(Case(f"generate_{name}", "GenerateDetection_TRT", {**base, **attrs}, inputs, ["detections"], True))
    values = rng.normal(0, 1, (2, 10, 6)).astype(np.float32)
    cases.append(Case("special_slice", "SpecialSlice_TRT", {}, {"detections": values}, ["boxes"], True))
    return cases


def pyramid_cases() -> list[Case]:
    rng = np.random.default_rng(6)
    maps = {f"p{level}": half(rng.normal(0, 1, (2, 2, 256 >> level, 256 >> level))) for level in range(2, 6)}
    corner = rng.uniform(0, 150, (2, 12, 2))
    size = np.exp(rng.uniform(np.log(3), np.log(250), (2, 12, 2)))
    absolute = np.concatenate([corner, np.minimum(corner + size, 255)], -1).astype(np.float32)
    absolute[0, -1] = [0, 0, 255, 255]
    absolute[1, -1] = [0, 0, 0, 0]
    base = {
        "pooled_size": 7,
        "image_size": [256, 256],
        "fpn_scale": 60,
        "sampling_ratio": 0,
        "roi_coords_absolute": 1,
        "roi_coords_swap": 0,
        "roi_coords_plusone": 0,
        "roi_coords_transform": 2,
        "legacy": 0,
    }
    cases = []
    for name, attrs, rois in (
        ("base", {}, absolute),
        ("sampling1", {"sampling_ratio": 1}, absolute),
        ("sampling2", {"sampling_ratio": 2}, absolute),
        ("half_pixel_output", {"roi_coords_transform": 1, "sampling_ratio": 2}, absolute),
        ("no_transform", {"roi_coords_transform": 0, "sampling_ratio": 2}, absolute),
        ("align_corners", {"roi_coords_transform": -1, "sampling_ratio": 2}, absolute),
        ("swapped", {"roi_coords_swap": 1, "sampling_ratio": 2}, absolute),
        ("plus_one", {"roi_coords_plusone": 1, "sampling_ratio": 2}, absolute),
        ("relative", {"roi_coords_absolute": 0, "sampling_ratio": 2}, (absolute / 256).astype(np.float32)),
        ("legacy", {"legacy": 1}, (absolute / 256).astype(np.float32)),
    ):
        inputs = {"rois": rois, **maps}
        cases.append(Case(f"pyramid_{name}", "PyramidROIAlign_TRT", {**base, **attrs}, inputs, ["crops"], True))
        cases.append(Case(f"pyramid_explicit_{name}", "PyramidROIAlign_TRT", {**base, **attrs}, inputs, ["crops"]))
    return cases


def dense_cases() -> list[Case]:
    rng = np.random.default_rng(7)
    cases: list[Case] = []
    image = half(rng.normal(0, 1, (2, 3, 5, 7)))
    for scale in (2.0, 1.5, 0.5, 3.0):
        attrs = {"scale": scale}
        cases.append(Case(f"resize_{scale}", "ResizeNearest_TRT", attrs, {"x": image}, ["y"], implicit_batch=True))
    cases.append(Case("resize_dynamic", "ResizeNearestDynamic", {"scale": 2.0}, {"x": image}, ["y"]))

    for name, batch, heads, dim, queries, points, sizes in (
        ("small", 2, 2, 8, 6, 3, [[9, 7], [5, 4], [2, 2]]),
        ("wide", 1, 4, 32, 10, 4, [[8, 8], [4, 4]]),
        ("one_level", 3, 1, 4, 5, 1, [[6, 11]]),
    ):
        shapes = np.asarray(sizes, np.int32)
        areas = shapes.prod(1)
        start = np.concatenate([[0], areas.cumsum()[:-1]]).astype(np.int32)
        weights = rng.uniform(0, 1, (batch, queries, heads, len(sizes), points))
        inputs = {
            "value": half(rng.normal(0, 1, (batch, int(areas.sum()), heads, dim))),
            "spatial_shapes": shapes,
            "level_start_index": start,
            "sampling_locations": rng.uniform(-0.3, 1.3, (batch, queries, heads, len(sizes), points, 2)).astype(
                np.float32
            ),
            "attention_weights": weights.astype(np.float32),
        }
        # In exported graphs the shapes are constants; as inputs they would need a host round trip.
        for constants in (("spatial_shapes", "level_start_index"), ()):
            label = f"attention_{name}" if constants else f"attention_{name}_all_inputs"
            cases.append(Case(label, "MultiscaleDeformableAttnPlugin_TRT", {}, inputs, ["output"], constants=constants))
    return cases


def points_cases() -> list[Case]:
    rng = np.random.default_rng(8)
    cases: list[Case] = []
    area = [0.0, -8.0, -3.0, 16.0, 8.0, 1.0]

    def cloud(batch: int, count: int, features: int) -> Array:
        low, high = np.asarray(area[:3]) - 0.7, np.asarray(area[3:]) + 0.7
        xyz = rng.uniform(low, high, (batch, count, 3))
        rest = rng.uniform(0, 1, (batch, count, features - 3))
        return np.concatenate([xyz, rest], -1).astype(np.float32)

    base = {
        "max_num_points_per_voxel": 32,
        "max_voxels": 256,
        "point_cloud_range": area,
        "voxel_feature_num": 10,
        "voxel_size": [1.0, 1.0, 4.0],
    }
    edges = cloud(1, 60, 4)
    edges[0, :8, :3] = [
        [0, -8, -3],
        [16, 0, 0],
        [15.999, 7.999, 0.999],
        [3, 8, 0],
        [1, 1, 1],
        [1, 1, -3],
        [2, 2, 0],
        [2, 2, 0],
    ]
    voxel: tuple[tuple[str, dict[str, Any], Array, list[int]], ...] = (
        ("batch2", {}, cloud(2, 200, 4), [200, 120]),
        ("edges", {}, edges, [60]),
        ("five_features", {"voxel_feature_num": 11}, cloud(1, 150, 5), [150]),
        ("no_points", {}, cloud(1, 20, 4), [0]),
        (
            "coarse",
            {"voxel_size": [4.0, 4.0, 4.0], "max_voxels": 16, "max_num_points_per_voxel": 64},
            cloud(1, 90, 4),
            [90],
        ),
        (
            "voxels_exactly_full",
            {"max_voxels": 8, "voxel_size": [8.0, 4.0, 4.0], "max_num_points_per_voxel": 64},
            cloud(1, 150, 4),
            [150],
        ),
    )
    for name, attrs, points, counts in voxel:
        inputs = {"points": points, "num_points": np.asarray(counts, np.int32)}
        outputs = ["voxels", "coords", "num_pillars"]
        cases.append(Case(f"voxel_{name}", "VoxelGeneratorPlugin", {**base, **attrs}, inputs, outputs))

    height, width, pillars = 6, 7, 20
    cells = np.stack([rng.permutation(height * width)[:pillars] for _ in range(2)])
    coords = np.stack([np.zeros_like(cells), np.zeros_like(cells), cells // width, cells % width], -1).astype(np.int32)
    features = half(rng.normal(0, 1, (2, pillars, 64)))
    for name, batch, counts in (("batch2", 2, [20, 13]), ("batch1", 1, [15]), ("none", 1, [0])):
        inputs = {
            "features": features[:batch],
            "coords": coords[:batch],
            "num_pillars": np.asarray(counts, np.int32),
        }
        cases.append(Case(f"scatter_{name}", "PillarScatterPlugin", {"dense_shape": [height, width]}, inputs, ["map"]))

    anchors = [
        3.9,
        1.6,
        1.56,
        0.0,
        3.9,
        1.6,
        1.56,
        1.57,
        0.8,
        0.6,
        1.73,
        0.0,
        0.8,
        0.6,
        1.73,
        1.57,
        1.76,
        0.6,
        1.73,
        0.0,
        1.76,
        0.6,
        1.73,
        1.57,
    ]
    base = {
        "point_cloud_range": area,
        "anchors": anchors,
        "anchor_bottom_height": [-1.78, -0.6, -0.7],
        "dir_offset": 0.78539,
        "dir_limit_offset": 0.0,
        "num_dir_bins": 2,
        "score_thresh": 0.3,
    }
    heads = {
        "cls": distinct_scores(rng, 2, 6, 5, 18, low=-4, high=3),
        "box": half(rng.normal(0, 0.5, (2, 6, 5, 42))),
        "dir": rng.normal(0, 1, (2, 6, 5, 12)).astype(np.float32),
    }
    single = {name: value[:1] for name, value in heads.items()}
    for name, attrs, inputs in (
        ("batch2", {}, heads),
        ("batch1", {}, single),
        ("limit_half", {"dir_limit_offset": 0.5, "dir_offset": 0.0}, single),
        ("nothing", {"score_thresh": 0.999}, single),
        ("everything", {"score_thresh": 0.0}, single),
    ):
        outputs = ["boxes", "num_boxes"]
        cases.append(Case(f"decode_{name}", "DecodeBbox3DPlugin", {**base, **attrs}, inputs, outputs))
    return cases


FAMILIES: dict[str, Callable[[], list[Case]]] = {
    "batched_nms": batched_nms_cases,
    "efficient_nms": efficient_nms_cases,
    "detection_output": detection_output_cases,
    "two_stage": two_stage_cases,
    "mask_rcnn": mask_rcnn_cases,
    "pyramid": pyramid_cases,
    "dense": dense_cases,
    "points": points_cases,
}


class Recorder:
    """Builds a network around one plugin and runs it."""

    def __init__(self) -> None:
        import tensorrt as trt

        try:
            from cuda.bindings import runtime as cudart
        except ImportError:
            from cuda import cudart

        self.trt, self.cudart = trt, cudart
        self.logger = trt.Logger(trt.Logger.ERROR)
        trt.init_libnvinfer_plugins(self.logger, "")
        self.stream = self.check(cudart.cudaStreamCreate())
        self.runtime = trt.Runtime(self.logger)
        self.engines: dict[str, Any] = {}

    def check(self, result: Any) -> Any:
        error, *values = result
        if int(error) != 0:
            raise CudaError(f"CUDA error {error}")
        return values[0] if values else None

    def describe(self) -> dict[str, Any]:
        properties = self.check(self.cudart.cudaGetDeviceProperties(0))
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        return {"tensorrt": self.trt.__version__, "gpu": name.strip("\x00")}

    def creator(self, op: str) -> Any:
        creator = self.trt.get_plugin_registry().get_plugin_creator(op, "1", "")
        if creator is None:
            raise LookupError(f"no plugin {op} version 1 in TensorRT {self.trt.__version__}")
        return creator

    def plugin_fields(self, op: str) -> list[str]:
        """Attributes the plugin's creator declares; a note only, and the binding's name for them has changed."""
        creator = self.creator(op)
        declared = getattr(creator, "field_names", None) or getattr(creator, "plugin_field_names", None) or ()
        return [declared_field.name for declared_field in declared]

    def plugin(self, case: Case) -> Any:
        trt = self.trt
        held = []
        for name, value in case.attrs.items():
            items = value if isinstance(value, list) else [value]
            whole = all(isinstance(item, int) for item in items)
            data = np.asarray(items, np.int32 if whole else np.float32)
            kind = trt.PluginFieldType.INT32 if whole else trt.PluginFieldType.FLOAT32
            held.append((trt.PluginField(name, data, kind), data))
        plugin = self.creator(case.op).create_plugin(case.name, trt.PluginFieldCollection([pair[0] for pair in held]))
        if plugin is None:
            raise RuntimeError("the plugin creator refused the attributes")
        return plugin

    def build(self, case: Case) -> Any:
        trt = self.trt
        if set(case.inputs) & set(case.outputs):
            raise ValueError("an input and an output of the case share a name")
        builder = trt.Builder(self.logger)
        explicit = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        network = builder.create_network(0 if case.implicit_batch else explicit)
        config = builder.create_builder_config()
        config.set_tactic_sources(0)  # cuBLAS and cuDNN may be stubs on the recording machine
        config.clear_flag(trt.BuilderFlag.TF32)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)
        if case.implicit_batch:
            builder.max_batch_size = next(iter(case.inputs.values())).shape[0]
        tensors = []
        for name, array in case.inputs.items():
            if name in case.constants:
                tensors.append(network.add_constant(array.shape, np.ascontiguousarray(array)).get_output(0))
            else:
                dtype = trt.int32 if array.dtype == np.int32 else trt.float32
                shape = array.shape[1:] if case.implicit_batch else array.shape
                tensors.append(network.add_input(name, dtype, shape))
        layer = network.add_plugin_v2(tensors, self.plugin(case))
        if layer.num_outputs != len(case.outputs):
            raise RuntimeError(f"the plugin has {layer.num_outputs} outputs, not {len(case.outputs)}")
        for index, name in enumerate(case.outputs):
            tensor = layer.get_output(index)
            tensor.name = name
            network.mark_output(tensor)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise RuntimeError("the builder returned no engine")
        engine = self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise RuntimeError("the engine does not load")
        return engine

    def engine(self, case: Case) -> Any:
        constants = [case.inputs[name].tolist() for name in case.constants]
        shapes = [(name, array.shape) for name, array in case.inputs.items()]
        key = json.dumps([case.op, case.attrs, case.implicit_batch, shapes, constants])
        if key not in self.engines:
            self.engines[key] = self.build(case)
        return self.engines[key]

    def run(self, case: Case) -> tuple[list[Array], bool]:
        """Outputs of the case, and whether a second run gave the same bytes."""
        engine = self.engine(case)
        context = engine.create_execution_context()
        try:
            first, second = self.execute(case, engine, context), self.execute(case, engine, context)
        finally:
            del context
        return first, all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))

    def execute(self, case: Case, engine: Any, context: Any) -> list[Array]:
        cudart, trt = self.cudart, self.trt
        batch = next(iter(case.inputs.values())).shape[0]
        pointers: dict[str, int] = {}
        hosts: dict[str, Array] = {}
        try:
            for index in range(engine.num_bindings):
                name = engine.get_binding_name(index)
                if engine.binding_is_input(index):
                    host = np.ascontiguousarray(case.inputs[name])
                else:
                    shape = tuple(engine.get_binding_shape(index))
                    shape = (batch, *shape) if case.implicit_batch else shape
                    host = np.empty(shape, trt.nptype(engine.get_binding_dtype(index)))
                    host.view(np.uint8).reshape(-1)[:] = UNWRITTEN_BYTE
                hosts[name] = host
                pointers[name] = self.check(cudart.cudaMalloc(max(host.nbytes, 256)))
                kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
                self.check(cudart.cudaMemcpy(pointers[name], host.ctypes.data, host.nbytes, kind))
            bindings = [int(pointers[engine.get_binding_name(i)]) for i in range(engine.num_bindings)]
            if case.implicit_batch:
                done = context.execute_async(batch_size=batch, bindings=bindings, stream_handle=int(self.stream))
            else:
                done = context.execute_async_v2(bindings=bindings, stream_handle=int(self.stream))
            self.check(cudart.cudaStreamSynchronize(self.stream))
            if not done:
                raise RuntimeError("execution failed")
            results = []
            for name in case.outputs:
                host = np.empty_like(hosts[name])
                kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
                self.check(cudart.cudaMemcpy(host.ctypes.data, pointers[name], host.nbytes, kind))
                results.append(host)
            return results
        finally:
            for pointer in pointers.values():
                cudart.cudaFree(pointer)


class CudaError(RuntimeError):
    """The CUDA context may be broken for good: start a new process."""


def record_child(family: str, folder: Path, start: int) -> int:
    """Record the cases of one family from index ``start``, one file each; returns the exit status."""
    cases = FAMILIES[family]()
    recorder = Recorder()
    (folder / "machine.json").write_text(json.dumps(recorder.describe()))
    for index in range(start, len(cases)):
        case = cases[index]
        (folder / "current").write_text(str(index))
        began, note, outputs, broken = time.monotonic(), {}, [], False
        try:
            note["fields"] = recorder.plugin_fields(case.op)
            unknown = sorted(set(case.attrs) - set(note["fields"]))
            if note["fields"] and unknown:
                note["unknown_fields"] = unknown
            outputs, note["repeatable"] = recorder.run(case)
        except Exception as error:  # the point is to record every case, whatever it does
            note["error"] = f"{type(error).__name__}: {error}"
            broken = isinstance(error, CudaError)
        note["seconds"] = round(time.monotonic() - began, 2)
        np.savez(
            folder / f"case{index}.npz",
            note=np.asarray(json.dumps(note)),
            **{f"o{i}": a for i, a in enumerate(outputs)},
        )
        print(f"{family} {index} {case.op} {case.name}: {note.get('error', 'ok')} ({note['seconds']} s)", flush=True)
        if broken:
            return CRASHED
    return 0


def record_family(family: str, folder: Path, deadline: float) -> str | None:
    """Run children until every case of the family is recorded; returns why it stopped early."""
    folder.mkdir(parents=True, exist_ok=True)
    total, start = len(FAMILIES[family]()), 0
    while start < total:
        left = deadline - time.monotonic()
        if left < 5:
            return "out of time"
        command = [sys.executable, str(Path(__file__).resolve()), str(folder), "--child", family, "--start", str(start)]
        try:
            status = subprocess.run(command, timeout=left, check=False).returncode
        except subprocess.TimeoutExpired:
            return "out of time"
        if status == 0:
            return None
        current = folder / "current"
        if not current.exists():
            return f"the recorder could not start (exit status {status})"
        index = int(current.read_text())
        if not (folder / f"case{index}.npz").exists():
            note = {"error": f"the process died with status {status}"}
            np.savez(folder / f"case{index}.npz", note=np.asarray(json.dumps(note)))
            print(f"{family} {index}: {note['error']}", flush=True)
        start = index + 1
        current.unlink()
    return None


def write_fixture(family: str, folder: Path, path: Path, stopped: str | None) -> None:
    arrays: dict[str, Array] = {}
    keys: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def store(array: Array) -> str:
        identity = (array.dtype.str, array.shape, array.tobytes())
        if identity not in keys:
            keys[identity] = f"a{len(keys)}"
            arrays[keys[identity]] = array
        return keys[identity]

    records = []
    for index, case in enumerate(FAMILIES[family]()):
        record: dict[str, Any] = {
            "name": case.name,
            "op_type": case.op,
            "attrs": case.attrs,
            "implicit_batch": case.implicit_batch,
            "constants": list(case.constants),
        }
        path_of_case = folder / f"case{index}.npz"
        if not path_of_case.exists():
            record["error"] = stopped or "not recorded"
        else:
            with np.load(path_of_case, allow_pickle=False) as data:
                record.update(json.loads(str(data["note"])))
                outputs = [data[f"o{i}"] for i in range(len(data.files) - 1)]
            if "error" not in record:
                record["inputs"] = [[name, store(array)] for name, array in case.inputs.items()]
                record["outputs"] = [[name, store(array)] for name, array in zip(case.outputs, outputs, strict=True)]
        records.append(record)
    machine = folder / "machine.json"
    meta = {"machine": json.loads(machine.read_text()) if machine.exists() else None, "cases": records}
    np.savez_compressed(path, meta=np.asarray(json.dumps(meta)), **arrays)
    failed = sum("error" in record for record in records)
    print(f"{path}: {len(records) - failed} of {len(records)} cases, {path.stat().st_size} bytes", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the fixtures go")
    parser.add_argument("--seconds", type=float, default=180.0, help="time limit for everything")
    parser.add_argument("--family", choices=sorted(FAMILIES), nargs="+", default=list(FAMILIES))
    parser.add_argument(
        "--work", type=Path, default=None, help="folder for intermediate files (default: a temporary one)"
    )
    parser.add_argument("--child", choices=sorted(FAMILIES), help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return record_child(options.child, options.folder, options.start)
    import tempfile

    deadline = time.monotonic() + options.seconds
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for family in options.family:
            stopped = record_family(family, work / family, deadline)
            if stopped:
                print(f"{family}: {stopped}", flush=True)
            write_fixture(family, work / family, options.folder / f"{family}.npz", stopped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
