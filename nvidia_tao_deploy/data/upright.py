"""Images turned upright by their EXIF orientation, for the networks whose contract reads them with OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.image import Backend, ColorMode, decode

ORIENTATION = 0x0112


def decode_upright(path: Path, mode: ColorMode = "RGB", backend: Backend = "opencv") -> NDArray[Any]:
    """Pixels (H, W, C) as :func:`decode` gives them, turned as the EXIF orientation of a JPEG file says.

    Raises:
        DataError: see :func:`decode`.
    """
    pixels = decode(path, mode, backend)
    orientation = _orientation(path)
    if orientation in (5, 6, 7, 8):  # rows and columns swapped
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _orientation(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:  # reads the header only
        return int(image.getexif().get(ORIENTATION, 1)) if image.format == "JPEG" else 1
