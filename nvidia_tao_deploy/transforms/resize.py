"""How a source image comes onto the network's canvas: pure functions, one per geometry.

Every function takes (h, w, C) uint8 pixels and the canvas size (width, height), and returns the canvas with the
scale and offset that place source pixels on it. OpenCV resizes work on float32, so nothing is rounded to whole
grey levels; Pillow resizes are antialiased and round to uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

PillowFilter = Literal["bilinear", "bicubic", "lanczos"]
Size = tuple[int, int]

# What efficientdet and mask_rcnn pad with: the ImageNet mean in whole RGB levels.
IMAGENET_GREY = (124, 116, 104)


class Placed(NamedTuple):
    """Pixels on the canvas.

    Attributes:
        pixels: (H, W, C), uint8, float32 or float64, values 0..255.
        scale: (scale_x, scale_y), canvas pixels per source pixel.
        offset: (left, top) of the source's corner on the canvas, canvas pixels.
    """

    pixels: NDArray[Any]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)


Resize = Callable[[NDArray[Any], Size], Placed]


def stretch(image: NDArray[np.uint8], size: Size) -> Placed:
    """OpenCV INTER_LINEAR on float32 to exactly ``size``; aspect ratio not kept. Same size: pixels as they are."""
    return Placed(_linear(image, size), _ratio(image, size))


def stretch_pillow(image: NDArray[np.uint8], size: Size, *, method: PillowFilter) -> Placed:
    """Pillow resize on uint8 to exactly ``size``; aspect ratio not kept."""
    return Placed(_pillow(image, size, method), _ratio(image, size))


def center_crop(image: NDArray[np.uint8], size: Size, *, method: PillowFilter, margin: int = 32) -> Placed:
    """Pillow resize until both sides cover ``size`` + ``margin``, then cut ``size`` from the centre.

    The classification reference: sides truncated to integers, the corner rounded half to even.
    """
    (height, width), (net_width, net_height) = image.shape[:2], size
    ratio = max((net_width + margin) / width, (net_height + margin) / height)
    wide, high = int(width * ratio), int(height * ratio)
    left, top = (round(side / 2) - round(net / 2) for side, net in ((wide, net_width), (high, net_height)))
    resized = _pillow(image, (wide, high), method)
    return Placed(
        resized[top : top + net_height, left : left + net_width],
        (wide / width, high / height),
        (float(-left), float(-top)),
    )


def enlarge_crop(image: NDArray[np.uint8], size: Size, *, factor: float = 1.14) -> Placed:
    """ml_recog: Pillow bilinear to ``factor`` times ``size``, aspect ratio not kept, then ``size`` cut from the centre.

    The enlarged sides are truncated to integers, the corner is rounded half to even.
    """
    net_width, net_height = size
    wide, high = int(net_width * factor), int(net_height * factor)
    left, top = round((wide - net_width) / 2), round((high - net_height) / 2)
    resized = _pillow(image, (wide, high), "bilinear")
    return Placed(
        resized[top : top + net_height, left : left + net_width],
        _ratio(image, (wide, high)),
        (float(-left), float(-top)),
    )


def letterbox(image: NDArray[np.uint8], size: Size) -> Placed:
    """Keep the aspect ratio, centre, fill with the source's per-channel mean; float64.

    The yolo and faster_rcnn contract: r = min(H/h, W/w), sides rounded half to even, OpenCV INTER_LINEAR.
    """
    (height, width), (net_width, net_height) = image.shape[:2], size
    ratio = min(net_height / height, net_width / width)
    wide, high = max(round(ratio * width), 1), max(round(ratio * height), 1)
    left, top = (net_width - wide) // 2, (net_height - high) // 2
    canvas = np.empty((net_height, net_width, image.shape[2]), np.float64)
    canvas[:] = _channel_means(image)
    canvas[top : top + high, left : left + wide] = _linear(image, (wide, high))
    return Placed(canvas, (wide / width, high / height), (float(left), float(top)))


def resize_pad(image: NDArray[np.uint8], size: Size, *, fill: tuple[int, ...] = IMAGENET_GREY) -> Placed:
    """Keep the aspect ratio, top left, pad right and below with ``fill``; Pillow bilinear (efficientdet, mask_rcnn).

    The scale is the unrounded 1 / max(w/W, h/H) on both axes, as the contract divides boxes by it.
    """
    (height, width), (net_width, net_height) = image.shape[:2], size
    scale = 1.0 / max(width / net_width, height / net_height)
    wide, high = max(round(width * scale), 1), max(round(height * scale), 1)
    canvas = np.empty((net_height, net_width, image.shape[2]), np.uint8)
    canvas[:] = fill[: image.shape[2]]
    canvas[:high, :wide] = _pillow(image, (wide, high), "bilinear")
    return Placed(canvas, (scale, scale))


def longest_side(image: NDArray[np.uint8], size: Size) -> Placed:
    """Keep the aspect ratio, top left, pad right and below with 0; OpenCV INTER_LINEAR on float32.

    rtdetr with ``preserve_aspect_ratio``: on a square canvas this makes the longest side the canvas's side.
    """
    (height, width), (net_width, net_height) = image.shape[:2], size
    ratio = min(net_height / height, net_width / width)
    wide, high = max(round(ratio * width), 1), max(round(ratio * height), 1)
    canvas = np.zeros((net_height, net_width, image.shape[2]), np.float32)
    canvas[:high, :wide] = _linear(image, (wide, high))
    return Placed(canvas, (wide / width, high / height))


def height_then_pad(image: NDArray[np.uint8], size: Size) -> Placed:
    """ocrnet with ``keep_aspect_ratio``: Pillow bicubic to the canvas's height, width rounded up and at most the
    canvas's; columns to its right repeat the last one."""
    (height, width), (net_width, net_height) = image.shape[:2], size
    wide = min(math.ceil(net_height * (width / height)), net_width)
    resized = _pillow(image, (wide, net_height), "bicubic")
    pixels = np.pad(resized, ((0, 0), (0, net_width - wide), (0, 0)), mode="edge")
    return Placed(pixels, (wide / width, net_height / height))


RESIZES: dict[str, Resize] = {
    "stretch": stretch,
    "stretch_bilinear": partial(stretch_pillow, method="bilinear"),
    "stretch_bicubic": partial(stretch_pillow, method="bicubic"),
    "stretch_lanczos": partial(stretch_pillow, method="lanczos"),
    "center_crop_bilinear": partial(center_crop, method="bilinear"),
    "center_crop_bicubic": partial(center_crop, method="bicubic"),
    "enlarge_crop": enlarge_crop,
    "letterbox": letterbox,
    "resize_pad": resize_pad,
    "longest_side": longest_side,
    "height_then_pad": height_then_pad,
}


def _ratio(image: NDArray[Any], size: Size) -> tuple[float, float]:
    return size[0] / image.shape[1], size[1] / image.shape[0]


def _linear(image: NDArray[np.uint8], size: Size) -> NDArray[Any]:
    """(size) float32 by OpenCV INTER_LINEAR; the uint8 pixels themselves where the size is already right."""
    import cv2

    if (image.shape[1], image.shape[0]) == size:
        return image
    resized = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return resized.reshape(size[1], size[0], image.shape[2])  # OpenCV drops a channel axis of 1


def _channel_means(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(C,) means in float64; sums of grey levels are exact, and OpenCV takes them 10 times as fast as numpy."""
    import cv2

    sums = np.array(cv2.sumElems(image)[: image.shape[2]], dtype=np.float64)
    return np.asarray(sums / (image.shape[0] * image.shape[1]))


def _pillow(image: NDArray[np.uint8], size: Size, method: PillowFilter) -> NDArray[np.uint8]:
    from PIL import Image

    if (image.shape[1], image.shape[0]) == size:
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = np.asarray(picture.resize(size, Image.Resampling[method.upper()]))
    return resized.reshape(size[1], size[0], image.shape[2])
