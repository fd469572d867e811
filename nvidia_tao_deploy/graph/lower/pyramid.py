"""PyramidROIAlign_TRT."""

from __future__ import annotations

from nvidia_tao_deploy.graph.lower.emit import CannotLowerError, Emitter, Tensor
from nvidia_tao_deploy.graph.lower.node import PluginNode


def lower_pyramid_roi_align(g: Emitter, node: PluginNode) -> list[Tensor]:
    raise CannotLowerError("todo")
