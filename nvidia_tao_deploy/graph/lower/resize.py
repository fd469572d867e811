"""Plugins for which there is one standard operator."""

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


def lower_batch_tile(g: Emitter, node: PluginNode) -> list[Tensor]:
    """BatchTilePlugin_TRT: the second input (1, ...) repeated to the batch of the first."""
    node.expect_inputs(2)
    like, tiled = node.inputs
    rest = np.ones(len(g.fixed(tiled, range(1, 9))) - 1, np.int64)
    return [g("Expand", tiled, g.concat([g.slice(g("Shape", like), 0, 0, 1), rest], 0))]


def lower_leaky_relu(g: Emitter, node: PluginNode) -> list[Tensor]:
    """LReLU_TRT."""
    node.expect_inputs(1)
    return [g("LeakyRelu", node.inputs[0], alpha=node.number("negSlope"))]


def lower_instance_normalization(g: Emitter, node: PluginNode) -> list[Tensor]:
    """InstanceNormalization_TRT: scales and biases are attributes, or in version 1 two more inputs."""
    node.expect_inputs(1, 3)
    x, *given = node.inputs
    scales, bias = given or (g.const(np.asarray(node.numbers(name), np.float32)) for name in ("scales", "bias"))
    result = g("InstanceNormalization", x, scales, bias, epsilon=node.number("epsilon"))
    return [g("LeakyRelu", result, alpha=node.number("alpha", 0)) if node.flag("relu", 0) else result]
