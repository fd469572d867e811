"""Plugins that only resize or slice."""

from __future__ import annotations

import numpy as np

from nvidia_tao_deploy.graph.lower.emit import Emitter, Tensor
from nvidia_tao_deploy.graph.lower.node import PluginNode


def lower_resize_nearest(g: Emitter, node: PluginNode) -> list[Tensor]:
    """ResizeNearest_TRT: (N, C, H, W) -> (N, C, int(H * scale), int(W * scale)), source pixel = int(target / scale)."""
    node.expect_inputs(1)
    scale = node.number("scale")
    return [
        g(
            "Resize",
            node.inputs[0],
            "" if g.opset >= 13 else np.zeros(0, np.float32),
            np.asarray([1, 1, scale, scale], np.float32),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    ]


def lower_special_slice(g: Emitter, node: PluginNode) -> list[Tensor]:
    """SpecialSlice_TRT: detections (N, K, 6) -> boxes (N, K, 4)."""
    node.expect_inputs(1)
    return [g.slice(node.inputs[0], 2, 0, 4)]
