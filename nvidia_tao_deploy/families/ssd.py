"""SSD-like detectors: stretched images, and the two outputs of an NMS (SSD detection output) plugin."""

from __future__ import annotations

from functools import partial

import numpy as np

from nvidia_tao_deploy.arrays import Array, Floats
from nvidia_tao_deploy.families.kitti_detection import NmsPlugin, decode_nms, nms_network, nms_rows
from nvidia_tao_deploy.network import Port
from nvidia_tao_deploy.transforms.transform import Geometry


def _place(corners: Array, geometry: Geometry) -> Floats:
    """Corners in [0, 1] of the canvas, rounded to its whole pixels (half to even) and clipped to it, on the source."""
    size = np.array(geometry.network_size * 2, np.float32)
    # float32 products, as the contract rounds them
    return geometry.to_source(np.clip(np.rint(corners * size), 0, size))


PLUGIN = NmsPlugin(
    outputs=(Port("NMS", channels=(1,)), Port("NMS_1", channels=(1,))),
    rows=nms_rows("NMS", "NMS_1"),
    place=_place,
    first_class_id=1,  # 0 is the background
)
decode_detection_output = partial(decode_nms, plugin=PLUGIN)


def boxes_on_canvas(boxes_xyxy: Floats, geometry: Geometry) -> Floats:
    """Source pixels -> whole pixels of the canvas, half to even."""
    (width, height), (net_width, net_height) = geometry.source_size, geometry.network_size
    ratio = (width / net_width, height / net_height) * 2
    return np.asarray(np.rint(boxes_xyxy / ratio))


def truth_on_canvas(boxes_xyxy: Floats, geometry: Geometry) -> Floats:
    """As :func:`boxes_on_canvas`, clipped one pixel short of the canvas, as training does."""
    width, height = geometry.network_size
    return np.clip(boxes_on_canvas(boxes_xyxy, geometry), 0, (width - 1, height - 1) * 2)


ssd_network = partial(nms_network, plugin=PLUGIN, resize="stretch_bilinear", places=(truth_on_canvas, boxes_on_canvas))
"""spec -> an SSD-like detector."""
