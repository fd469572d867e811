"""Boxes, masks and labels on a picture."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nvidia_tao_deploy.arrays import Bools
from nvidia_tao_deploy.errors import SpecError

if TYPE_CHECKING:
    from PIL import Image

Rgb = tuple[int, int, int]

# The KITTI family's colours, by class id mod 5: black, red, blue, gold, purple.
PALETTE: tuple[Rgb, ...] = ((0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 215, 0), (128, 0, 128))
TAG_SIZE = (75, 10)
MASK_ALPHA = 100


def draw_box(
    picture: Image.Image,
    box_xyxy: Sequence[float],
    text: str,
    color: Rgb,
    outline_width: int = 1,
    *,
    tag_above: bool = False,
) -> None:
    """Draw one box and its tag on an RGB picture, in place.

    The tag is 75 x 10 pixels at (x1, y1) in the box's colour, larger where the text needs it, and moved inside
    the picture where it would be cut off; with ``tag_above`` it is as wide as the box and stands on its upper edge.
    The text is black or white, whichever stands out. Inverted corners are sorted.
    """
    from PIL import ImageDraw, ImageFont

    x1, x2 = sorted((float(box_xyxy[0]), float(box_xyxy[2])))
    y1, y2 = sorted((float(box_xyxy[1]), float(box_xyxy[3])))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x1, y1, x2, y2), outline=color, width=outline_width)
    if not text:
        return
    font = ImageFont.load_default()
    _, ink_top, ink_right, ink_bottom = draw.textbbox((0, 0), text, font=font)
    width = max(x2 - x1 if tag_above else TAG_SIZE[0], ink_right + 1)
    height = max(TAG_SIZE[1], ink_bottom - ink_top)
    left = max(min(x1, picture.width - width), 0.0)
    top = max(min(y1 - height if tag_above else y1, picture.height - height), 0.0)
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left, top - ink_top), text, fill=contrasting(color), font=font)


def draw_mask(picture: Image.Image, mask: Bools, color: Rgb, alpha: int = MASK_ALPHA) -> None:
    """Lay a colour over the pixels of a mask (H, W) of the picture's size, in place; ``alpha`` is in 0..255."""
    from PIL import Image

    picture.paste(color, mask=Image.fromarray(mask.astype(np.uint8) * np.uint8(alpha)))


def class_color(name: str, class_id: int, colors: Mapping[str, Any] | Sequence[Any] | None) -> Rgb | None:
    """The colour of a class.

    Args:
        colors: name -> colour; or a palette indexed by class id, repeating; None: a fixed hash of the name.

    Returns:
        (R, G, B), or None where a mapping does not name the class: listed, but not drawn.
    """
    if colors is None:
        return hashed_color(name)
    if isinstance(colors, Mapping):
        return parse_color(colors[name]) if name in colors else None
    return parse_color(colors[class_id % len(colors)])


def parse_color(color: str | Sequence[int]) -> Rgb:
    """A Pillow colour name, "#rrggbb", "(r, g, b)", or three numbers 0..255; SpecError where it is no colour."""
    try:
        if isinstance(color, str):
            return _named_color(f"rgb{color}" if color.startswith("(") else color)
        red, green, blue = (min(max(int(value), 0), 255) for value in color)
    except (ValueError, TypeError) as error:
        remedy = "Use a CSS colour name, #rrggbb or [R, G, B]."
        raise SpecError(f"{color!r} is not a colour", remedy=remedy) from error
    return red, green, blue


def hashed_color(name: str) -> Rgb:
    """A colour that depends on the name alone, the same in every process: 24 bits of its CRC-32."""
    bits = zlib.crc32(name.encode())
    return (bits >> 16) & 0xFF, (bits >> 8) & 0xFF, bits & 0xFF


def contrasting(color: Rgb) -> Rgb:
    """Black on light colours, white on dark ones (ITU-R 601 luma)."""
    light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 127.5
    return (0, 0, 0) if light else (255, 255, 255)


@lru_cache(maxsize=256)
def _named_color(color: str) -> Rgb:
    from PIL import ImageColor

    red, green, blue = ImageColor.getrgb(color)[:3]
    return red, green, blue
