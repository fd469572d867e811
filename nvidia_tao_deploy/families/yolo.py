"""YOLO detectors: letterboxed images, and the four outputs of a BatchedNMS plugin."""

from __future__ import annotations

from functools import partial

import numpy as np

from nvidia_tao_deploy.arrays import Floats
from nvidia_tao_deploy.families.kitti_detection import NmsPlugin, decode_nms, nms_network
from nvidia_tao_deploy.network import Port
from nvidia_tao_deploy.transforms.transform import Geometry

# Counts (B, 1), corners (B, K, 4) in [0, 1] of the canvas, scores (B, K), class ids (B, K) from 0.
COUNTS, BOXES, SCORES, LABELS = (
    Port(f"BatchedNMS{end}", rank=3 if end == "_1" else 2) for end in ("", "_1", "_2", "_3")
)

PLUGIN = NmsPlugin(
    outputs=(COUNTS, BOXES, SCORES, LABELS),
    rows=lambda outputs: tuple(outputs[port.role] for port in (LABELS, SCORES, BOXES, COUNTS)),
    place=lambda corners, at: at.to_source(corners.astype(np.float64) * (at.network_size * 2)),
)
decode_batched_nms = partial(decode_nms, plugin=PLUGIN)


def boxes_on_canvas(boxes_xyxy: Floats, geometry: Geometry) -> Floats:
    """Source pixels -> [0, 1] of the canvas."""
    placed = boxes_xyxy * (geometry.scale * 2) + geometry.offset * 2
    return np.asarray(placed / (geometry.network_size * 2))


def truth_on_canvas(boxes_xyxy: Floats, geometry: Geometry) -> Floats:
    """As :func:`boxes_on_canvas`, clipped to the canvas."""
    return np.clip(boxes_on_canvas(boxes_xyxy, geometry), 0.0, 1.0)


yolo_network = partial(nms_network, plugin=PLUGIN, resize="letterbox", places=(truth_on_canvas, boxes_on_canvas))
"""spec -> a YOLO detector; ``augmentation_config.output_depth`` counts where the spec has it."""
