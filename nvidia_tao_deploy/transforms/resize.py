"""How a source image comes onto the network's canvas: a placement per geometry, and the code that carries it out.

A placement is computed from sizes alone, so the same one serves the CPU (:func:`resize`) and the GPU
(:mod:`nvidia_tao_deploy.transforms.on_gpu`). "linear" is OpenCV's INTER_LINEAR on float32, where nothing is rounded to
whole grey levels; the others are Pillow's filters, antialiased and rounded to uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

PillowFilter = Literal["bilinear", "bicubic", "lanczos"]
Method = Literal["linear", "bilinear", "bicubic", "lanczos"]
Size = tuple[int, int]

# What efficientdet and mask_rcnn pad with: the ImageNet mean in whole RGB levels.
IMAGENET_GREY = (124, 116, 104)


class Placement(NamedTuple):
    """The whole source is resized, a window of the result is put on the canvas.

    Attributes:
        resized: (width, height) that the whole source becomes.
        scale: (scale_x, scale_y), canvas pixels per source pixel, as the contract states it.
        method: how it is resized.
        corner: (left, top) of the resized image's corner on the canvas; negative: cut off by the canvas.
        fill: grey level per RGB channel around it; None: the source's mean per channel (float64); "edge": the last
            row and column go on to the right and below.
    """

    resized: Size
    scale: tuple[float, float]
    method: Method
    corner: tuple[int, int] = (0, 0)
    fill: tuple[int, ...] | Literal["edge"] | None = (0, 0, 0)

    def window(self, canvas: Size) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of what lies on ``canvas``, in the resized image's pixels."""
        (left, top), (wide, high) = self.corner, self.resized
        return max(-left, 0), max(-top, 0), min(canvas[0] - left, wide), min(canvas[1] - top, high)


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


def stretch(source: Size, canvas: Size, *, method: Method = "linear") -> Placement:
    """To exactly the canvas; aspect ratio not kept."""
    return Placement(canvas, (canvas[0] / source[0], canvas[1] / source[1]), method)


def center_crop(source: Size, canvas: Size, *, method: PillowFilter, margin: int = 32) -> Placement:
    """Until both sides cover the canvas + ``margin``, then the canvas cut from the centre.

    The classification reference: sides truncated to integers, the corner rounded half to even.
    """
    ratio = max((canvas[0] + margin) / source[0], (canvas[1] + margin) / source[1])
    wide, high = int(source[0] * ratio), int(source[1] * ratio)
    corner = (round(canvas[0] / 2) - round(wide / 2), round(canvas[1] / 2) - round(high / 2))
    return Placement((wide, high), (wide / source[0], high / source[1]), method, corner)


def shortest_edge_crop(source: Size, canvas: Size) -> Placement:
    """clip: the shorter side to the canvas's height, the other in proportion, then the canvas cut from the centre."""
    shortest = min(source)
    wide, high = (canvas[1] if side == shortest else round(side * canvas[1] / shortest) for side in source)
    corner = (-((wide - canvas[0]) // 2), -((high - canvas[1]) // 2))
    return Placement((wide, high), (wide / source[0], high / source[1]), "bicubic", corner)


def enlarge_crop(source: Size, canvas: Size, *, factor: float = 1.14) -> Placement:
    """ml_recog: to ``factor`` times the canvas, aspect ratio not kept, then the canvas cut from the centre.

    The enlarged sides are truncated to integers, the corner is rounded half to even.
    """
    wide, high = int(canvas[0] * factor), int(canvas[1] * factor)
    corner = (-round((wide - canvas[0]) / 2), -round((high - canvas[1]) / 2))
    return Placement((wide, high), (wide / source[0], high / source[1]), "bilinear", corner)


def letterbox(source: Size, canvas: Size) -> Placement:
    """Keep the aspect ratio, centre, fill with the source's mean; float64 (the yolo and faster_rcnn contract)."""
    wide, high = _within(source, canvas)
    corner = ((canvas[0] - wide) // 2, (canvas[1] - high) // 2)
    return Placement((wide, high), (wide / source[0], high / source[1]), "linear", corner, None)


def resize_pad(source: Size, canvas: Size) -> Placement:
    """Keep the aspect ratio, top left, pad with the ImageNet grey (efficientdet, mask_rcnn).

    The scale is the unrounded 1 / max(w/W, h/H) on both axes, as the contract divides boxes by it.
    """
    scale = 1.0 / max(source[0] / canvas[0], source[1] / canvas[1])
    sides = max(round(source[0] * scale), 1), max(round(source[1] * scale), 1)
    return Placement(sides, (scale, scale), "bilinear", fill=IMAGENET_GREY)


def longest_side(source: Size, canvas: Size) -> Placement:
    """Keep the aspect ratio, top left, pad right and below with 0 (rtdetr with ``preserve_aspect_ratio``)."""
    wide, high = _within(source, canvas)
    return Placement((wide, high), (wide / source[0], high / source[1]), "linear")


def height_then_pad(source: Size, canvas: Size) -> Placement:
    """ocrnet with ``keep_aspect_ratio``: the canvas's height, the width rounded up and at most the canvas's."""
    wide = min(math.ceil(canvas[1] * (source[0] / source[1])), canvas[0])
    return Placement((wide, canvas[1]), (wide / source[0], canvas[1] / source[1]), "bicubic", fill="edge")


PLACEMENTS: dict[str, Callable[[Size, Size], Placement]] = {
    "stretch": stretch,
    "stretch_bilinear": partial(stretch, method="bilinear"),
    "stretch_bicubic": partial(stretch, method="bicubic"),
    "stretch_lanczos": partial(stretch, method="lanczos"),
    "center_crop_bilinear": partial(center_crop, method="bilinear"),
    "center_crop_bicubic": partial(center_crop, method="bicubic"),
    "shortest_edge_crop": shortest_edge_crop,
    "enlarge_crop": enlarge_crop,
    "letterbox": letterbox,
    "resize_pad": resize_pad,
    "longest_side": longest_side,
    "height_then_pad": height_then_pad,
}


def resize(image: NDArray[Any], canvas: Size, name: str) -> Placed:
    """(h, w, C) grey levels onto a canvas of (width, height) by the placement of that name."""
    placement = PLACEMENTS[name]((image.shape[1], image.shape[0]), canvas)
    left, top, right, bottom = placement.window(canvas)
    pixels = _resized(image, placement, (left, top, right, bottom))
    corner = placement.corner
    offset = (float(corner[0]), float(corner[1]))
    if pixels.shape[:2] == (canvas[1], canvas[0]):
        return Placed(pixels, placement.scale, offset)
    if placement.fill == "edge":
        missing = [(0, side - own) for side, own in zip((canvas[1], canvas[0]), pixels.shape, strict=False)]
        return Placed(np.pad(pixels, (*missing, (0, 0)), mode="edge"), placement.scale, offset)
    channels = image.shape[2]
    around: Any = placement.fill[:channels] if placement.fill is not None else _channel_means(image)
    full = np.empty((canvas[1], canvas[0], channels), np.float64 if placement.fill is None else pixels.dtype)
    full[:] = around
    full[max(corner[1], 0) : max(corner[1], 0) + bottom - top, max(corner[0], 0) : max(corner[0], 0) + right - left] = (
        pixels
    )
    return Placed(full, placement.scale, offset)


def _within(source: Size, canvas: Size) -> Size:
    """The largest size of the source's shape in the canvas: r = min(H/h, W/w), sides rounded half to even."""
    ratio = min(canvas[1] / source[1], canvas[0] / source[0])
    return max(round(ratio * source[0]), 1), max(round(ratio * source[1]), 1)


def _resized(image: NDArray[Any], placement: Placement, window: tuple[int, int, int, int]) -> NDArray[Any]:
    """The window of the resized image, (h, w, C): float32 for "linear", unless nothing changes, else uint8."""
    height, width, channels = image.shape
    left, top, right, bottom = window
    if placement.resized == (width, height):
        return image[top:bottom, left:right]
    if placement.method == "linear":
        import cv2

        whole = cv2.resize(image.astype(np.float32), placement.resized, interpolation=cv2.INTER_LINEAR)
        # OpenCV drops a channel axis of 1
        return whole.reshape(placement.resized[1], placement.resized[0], channels)[top:bottom, left:right]
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    # Not Pillow's ``box`` for the window alone: it is float32 there, which moves some pixels by a grey level.
    whole = np.asarray(picture.resize(placement.resized, Image.Resampling[placement.method.upper()]))
    return whole.reshape(placement.resized[1], placement.resized[0], channels)[top:bottom, left:right]


def _channel_means(image: NDArray[Any]) -> NDArray[np.float64]:
    """(C,) means in float64; sums of grey levels are exact, and OpenCV takes them 10 times as fast as numpy."""
    import cv2

    sums = np.array(cv2.sumElems(image)[: image.shape[2]], dtype=np.float64)
    return np.asarray(sums / (image.shape[0] * image.shape[1]))
