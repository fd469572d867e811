"""Sample images for a report: two predictions of one image side by side, what differs marked."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.predictions.nms import iou_matrix

LONGEST = 480  # pixels of a picture's longer side
SAME, DIFFERENT = (40, 170, 90), (225, 40, 40)
OVERLAP = 0.5


def unmatched(
    boxes: NDArray[np.float64], classes: NDArray[np.int64], others: NDArray[np.float64], of: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(N,) bool: boxes with no other box of their class at IoU 0.5 or more.

    Args:
        boxes: (N, 4) xyxy.
        classes: (N,).
        others: (M, 4) xyxy.
        of: (M,) classes of ``others``.
    """
    if not len(others):
        return np.ones(len(boxes), bool)
    near: NDArray[np.bool_] = (iou_matrix(boxes, others) >= OVERLAP) & (classes[:, None] == of[None])
    return np.asarray(~near.any(axis=1))


def picture(path: Path, boxes: NDArray[np.float64], different: NDArray[np.bool_]) -> str | None:
    """The image at ``path`` with boxes (N, 4), those in ``different`` (N,) in red, as a data URI; or None."""
    from PIL import Image, ImageDraw

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError:
        return None
    scale = min(1.0, LONGEST / max(image.size))
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(image)
    for box, marked in sorted(zip(boxes.tolist(), different.tolist(), strict=True), key=lambda entry: entry[1]):
        x1, x2 = sorted((box[0] * scale, box[2] * scale))
        y1, y2 = sorted((box[1] * scale, box[3] * scale))
        draw.rectangle((x1, y1, x2, y2), outline=DIFFERENT if marked else SAME, width=3 if marked else 2)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"


def pair(left: str, right: str, left_text: str, right_text: str) -> str:
    """Two pictures (data URIs) side by side with a text below each."""
    cells = "".join(
        f'<figure><img src="{escape(uri)}" alt="{escape(text)}"><figcaption>{escape(text)}</figcaption></figure>'
        for uri, text in ((left, left_text), (right, right_text))
    )
    return f'<div class="pair">{cells}</div>'
